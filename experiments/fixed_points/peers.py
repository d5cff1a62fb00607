"""Where the loss functions of TRL, OpenRLHF and verl end, in the same world and at the same price.

    python experiments/fixed_points/peers.py [trl] [openrlhf] [verl] [NAME ...]

In an environment of their own (README.md). Their functions are imported from their packages and called as they are, on
the log-probabilities of a table; the table then follows their gradient to where it is 0. Without NAMEs, the rows of
results.csv are replaced.

Nothing is sampled. Their losses are means over the examples of a batch, and the gradient of such a mean with respect to
the log-probabilities of one example is that example's own, over their number: so every example is given once, and its
gradient weighted by its exact probability, before it goes on to the table.

Axes: P prompts, K states of a prompt, V words, A answers (of all prompts), T tokens, B rows of a batch.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol

import torch
from table import BETA, PI_STAR, WORLD, Row, followed, markdown, regret, worst, write
from torch import Tensor

from alignlab.optimum import LengthTilted, Optimum, PreferenceTilted, Stationary, Tables, Tilted
from alignlab.testing.oracle.solve import one_thread
from alignlab.testing.oracle.verdict import described

GROUP = 2
"""Answers of each group."""
FLIPS = 0.1
"""Share of turned labels, and `label_smoothing`, for losses that are meant for them."""


class Answers:
    """Every answer to every prompt, padded: state and word of each token, and where there is one."""

    def __init__(self) -> None:
        prompts, answers = range(WORLD.prompts), WORLD.answers
        longest, size = max(map(len, answers)), len(WORLD.states)
        self.state = torch.zeros(len(prompts) * len(answers), longest, dtype=torch.long)
        self.word, self.mask = torch.zeros_like(self.state), torch.zeros_like(self.state, dtype=torch.float64)
        for p in prompts:
            for y, answer in enumerate(answers):
                for t, word in enumerate(answer):
                    at = p * len(answers) + y, t
                    self.state[at], self.word[at] = p * size + WORLD.states.index(answer[:t]), word
                    self.mask[at] = 1.0
        self.reference = self.logp(WORLD.reference)
        self.reward = WORLD.reward.flatten()

    def logp(self, logits: Tensor) -> Tensor:
        """`(A, T)` nats: log-probability of every token, 0 where there is none."""
        return logits.log_softmax(-1).flatten(0, 1)[self.state, self.word] * self.mask

    def visits(self, probability: Tensor) -> Tensor:
        """`(P, K)` share of the answers that pass through each state."""
        share = (probability[:, None] * self.mask / WORLD.prompts).flatten()
        found = torch.zeros(WORLD.prompts * len(WORLD.states), dtype=torch.float64)
        return found.index_add(0, self.state.flatten(), share).view(WORLD.prompts, -1)


ANSWERS = Answers()


def weighted_gradient(logits: Tensor, rows: Tensor, weight: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """`(P, K, V)` the gradient of a loss whose examples have weights that it knows nothing of.

    Args:
        logits: of the table.
        rows: `(B,)` the answer of each row of the batch.
        weight: `(B,)` of each row.
        loss: of `(B, T)` log-probabilities; a mean over examples.
    """
    table = logits.clone().requires_grad_()
    logp = ANSWERS.logp(table)
    given = logp.detach()[rows].requires_grad_()
    (found,) = torch.autograd.grad(loss(given), given)
    back = torch.zeros_like(logp).index_add(0, rows, found * weight[:, None] * len(rows))
    (gradient,) = torch.autograd.grad((back.detach() * logp).sum(), table)
    return gradient


# ---- the kinds of method ---------------------------------------------------------------------------------------------
class Peer(Protocol):
    """One method of another library."""

    name: str
    own: Optimum | None

    def gradient(self, logits: Tensor) -> Tensor:
        """`(P, K, V)` of its loss, at a policy."""


@dataclass(frozen=True)
class Pairs:
    """A loss on pairs that the reference draws and raters choose from.

    Args:
        name: for the table.
        loss: of policy, reference and mask, each `(2, N, T)`, chosen before rejected.
        own: where its paper says that it ends, if it does.
        flips: share of the labels that are turned.
    """

    name: str
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    own: Optimum | None = None
    flips: float = 0.0

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        number = torch.arange(len(ANSWERS.reward)).view(WORLD.prompts, -1)
        shape = WORLD.tables.preference.shape
        chosen, rejected = number[:, :, None].expand(shape).flatten(), number[:, None, :].expand(shape).flatten()
        return torch.cat([chosen, rejected]), WORLD.pairs(self.flips).weight.repeat(2)

    def gradient(self, logits: Tensor) -> Tensor:
        """Over all ordered pairs."""
        rows, weight = self._pairs
        shape = (2, len(rows) // 2, -1)
        reference, mask = ANSWERS.reference[rows].view(shape), ANSWERS.mask[rows].view(shape)
        return weighted_gradient(logits, rows, weight, lambda logp: self.loss(logp.view(shape), reference, mask))


@dataclass(frozen=True)
class Labelled:
    """A loss on single answers, called good and called bad as often as raters do.

    Args:
        name: for the table.
        loss: of policy, reference and mask `(B, T)`, label `(B,)`, and the exact mean log-ratio of answers to other
            prompts, nats.
        own: where its paper says that it ends, if it does.
    """

    name: str
    loss: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    own: Optimum | None = None

    def gradient(self, logits: Tensor) -> Tensor:
        """Over all answers with both labels."""
        count = len(ANSWERS.reward)
        rows, label = torch.arange(count).repeat(2), torch.arange(2).repeat_interleave(count)
        drawn, good = WORLD.tables.reference.exp(), torch.sigmoid(WORLD.reward)
        weight = torch.cat([(drawn * (1 - good)).flatten(), (drawn * good).flatten()])
        moved = WORLD.of_answers(logits) - WORLD.tables.reference  # of an answer that was given to the next prompt
        baseline = (drawn.roll(-1, 0) * moved).sum(-1).mean()
        reference, mask = ANSWERS.reference[rows], ANSWERS.mask[rows]
        return weighted_gradient(logits, rows, weight, lambda logp: self.loss(logp, reference, mask, label, baseline))


@dataclass(frozen=True)
class Groups:
    """An online loss on groups of two answers, at the policy that sampled them.

    Args:
        name: for the table.
        credit: of reward `(B,)`, old log-probability, reference and mask `(B, T)`: the advantages, `(B,)` or `(B, T)`.
        loss: of policy, reference, advantages and mask; the policy that sampled is the same, without gradient.
        own: where the fixed point is by `alignlab.optimum`, if it is known.
        pays_kl: whether the credit depends on the policy.
    """

    name: str
    credit: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    own: Optimum | None = None
    pays_kl: bool = False

    @cached_property
    def _rows(self) -> Tensor:
        number = torch.arange(len(ANSWERS.reward)).view(WORLD.prompts, -1)
        each = [torch.cartesian_prod(*[own] * GROUP) for own in number]
        return torch.cat(each).flatten()

    @cached_property
    def _unpaid(self) -> Tensor:
        return self._credited(ANSWERS.reference)

    def _credited(self, logp: Tensor) -> Tensor:
        rows = self._rows
        with torch.no_grad():
            return self.credit(ANSWERS.reward[rows], logp[rows], ANSWERS.reference[rows], ANSWERS.mask[rows])

    def gradient(self, logits: Tensor) -> Tensor:
        """The natural gradient, per state; 0 at the last prompt, which keeps a spread of rewards."""
        rows, logp = self._rows, ANSWERS.logp(logits).detach()
        probability = logp.sum(-1).exp()
        weight = probability[rows].view(-1, GROUP).prod(1, keepdim=True).expand(-1, GROUP).flatten()
        advantage = self._credited(logp) if self.pays_kl else self._unpaid
        found = weighted_gradient(
            logits,
            rows,
            weight,
            lambda given: self.loss(given, ANSWERS.reference[rows], advantage, ANSWERS.mask[rows]),
        )
        chance = logits.softmax(-1)
        natural = found / (ANSWERS.visits(probability)[..., None] * chance).clamp_min(1e-300)
        natural = natural - (natural * chance).sum(-1, keepdim=True)
        return torch.cat([natural[:-1], torch.zeros_like(natural[-1:])])


@dataclass(frozen=True)
class Diverged(Optimum):
    """pi = pi_ref g((r - c) / beta), with c per prompt so that it adds up to 1: reward less beta times an f-divergence.

    Args:
        beta: price of leaving the reference.
        divergence: "forward_kl" has g(u) = 1 / (1 - u), "js_divergence" exp(u) / (2 - exp(u)); g inverts f'.

    Source: Wang et al. 2023, arXiv:2309.16240, theorem 1.
    """

    beta: float
    divergence: str

    def policy(self, tables: Tables) -> Tensor:
        """By bisection on c, which the total probability falls with."""
        is_forward = self.divergence == "forward_kl"
        best = tables.reward.amax(-1, keepdim=True)
        low, high = best - self.beta * (1.0 if is_forward else math.log(2)), best + 100 * self.beta
        for _ in range(200):
            middle = (low + high) / 2
            u = (tables.reward - middle) / self.beta
            logp = tables.reference + (-torch.log1p(-u) if is_forward else u - (2 - u.exp()).log())
            total = logp.logsumexp(-1, keepdim=True)
            low, high = torch.where(total > 0, middle, low), torch.where(total > 0, high, middle)
        return logp.log_softmax(-1)


def standardised(beta: float, eps: float, estimator: Any, mean_over_answer: bool) -> Stationary:
    """Where rewards over a group's *sample* deviation lead; `Stationary` has the population's, larger by sqrt(2)."""
    root = GROUP**0.5
    return Stationary(beta * root, estimator, mean_over_answer, "standardised", eps=eps / root)


# ---- TRL -------------------------------------------------------------------------------------------------------------
class _Accelerator:
    """One process: what is gathered is what there is."""

    device = torch.device("cpu")
    num_processes = 1
    is_main_process = True
    sync_gradients = True

    def gather(self, x: Tensor) -> Tensor:
        return x

    gather_for_metrics = gather

    def reduce(self, x: Tensor, reduction: str = "sum") -> Tensor:
        return x

    def autocast(self) -> Any:
        return nullcontext()


class _Model:
    """Answers a forward pass of TRL's patched models with given log-probabilities."""

    training = True
    is_gradient_checkpointing = False

    def __init__(self, logp: Tensor) -> None:
        nothing = torch.zeros_like(logp)
        self.outputs = SimpleNamespace(log_probs=logp, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())

    def __call__(self, **inputs: Any) -> SimpleNamespace:
        return self.outputs


def _trainer(**settings: Any) -> SimpleNamespace:
    """Everything that the methods below read of `self`; nothing of a real trainer is built."""
    metrics: dict[str, Any] = {"train": _Lists(), "eval": _Lists()}
    given: dict[str, Any] = {
        "accelerator": _Accelerator(),
        "model": SimpleNamespace(training=True),
        "aux_loss_enabled": False,
        "_metrics": metrics,
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "beta": BETA,
        "label_smoothing": 0.0,
    }
    return SimpleNamespace(**{**given, **settings})


class _Lists(dict[str, list[Any]]):
    def __missing__(self, key: str) -> list[Any]:
        return self.setdefault(key, [])


def _tokens(mask: Tensor) -> Tensor:
    """`(B, 1 + T)` ids with a token of the prompt in front; no model reads them."""
    return torch.zeros(mask.shape[0], 1 + mask.shape[1], dtype=torch.long)


def _behind_prompt(mask: Tensor, prompt: float) -> Tensor:
    return torch.cat([torch.full_like(mask[:, :1], prompt), mask], 1).long()


def trl() -> Iterator[Peer]:
    """Trainers' `_compute_loss`, called on a stand-in for `self`."""
    dpo = import_module("trl.trainer.dpo_trainer").DPOTrainer
    grpo = import_module("trl.trainer.grpo_trainer").GRPOTrainer
    rloo = import_module("trl.trainer.rloo_trainer").RLOOTrainer
    kto = import_module("trl.trainer.kto_trainer").KTOTrainer
    cpo = import_module("trl.experimental.cpo.cpo_trainer").CPOTrainer
    nanstd = import_module("trl.trainer.utils").nanstd

    def pairs(logp: Tensor, reference: Tensor, mask: Tensor, loss_type: str, **settings: Any) -> Tensor:
        flat = mask.flatten(0, 1)
        chosen, rejected = reference.sum(-1)
        trainer = _trainer(
            ld_alpha=None,
            precompute_ref_logps=True,
            f_divergence_type="reverse_kl",
            f_alpha_divergence_coef=0.5,
            loss_types=[loss_type],
            loss_weights=[1.0],
            use_weighting=False,
            args=SimpleNamespace(discopop_tau=0.05),
        )
        vars(trainer).update(settings)
        inputs = {
            "input_ids": _tokens(flat),
            "attention_mask": _behind_prompt(flat, 1),
            "completion_mask": _behind_prompt(flat, 0),
            "ref_chosen_logps": chosen,
            "ref_rejected_logps": rejected,
        }
        loss: Tensor = dpo._compute_loss(trainer, _Model(logp.flatten(0, 1)), inputs, False)
        return loss

    ends: dict[str, Optimum] = {
        "sigmoid": PI_STAR,
        "ipo": PreferenceTilted(BETA),
        "sigmoid_norm": LengthTilted(BETA, from_reference=True),
    }
    for kind in (*ends, "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "discopop"):
        yield Pairs(f"DPO {kind}", partial(pairs, loss_type=kind), ends.get(kind))
    flipped = Tilted(BETA, flips=FLIPS)
    yield Pairs("DPO robust", partial(pairs, loss_type="robust", label_smoothing=FLIPS), flipped, FLIPS)
    yield Pairs("DPO sigmoid, 10 % flips", partial(pairs, loss_type="sigmoid"), flipped, FLIPS)
    yield Pairs("DPO exo_pair, label_smoothing 0.001", partial(pairs, loss_type="exo_pair", label_smoothing=1e-3))
    for kind in ("forward_kl", "js_divergence"):
        of_kind = partial(pairs, loss_type="sigmoid", f_divergence_type=kind)
        yield Pairs(f"DPO sigmoid, {kind}", of_kind, Diverged(BETA, kind))

    def simpo(logp: Tensor, reference: Tensor, mask: Tensor, gamma: float) -> Tensor:
        trainer = _trainer(loss_type="simpo", simpo_gamma=gamma, alpha=0.0)
        losses: Tensor = cpo.cpo_loss(trainer, *(logp.sum(-1) / mask.sum(-1)))[0]
        return losses.mean()

    yield Pairs("CPO simpo, simpo_gamma 0", partial(simpo, gamma=0.0), LengthTilted(BETA, from_reference=False))
    yield Pairs("CPO simpo, simpo_gamma 1", partial(simpo, gamma=1.0))

    def labelled(logp: Tensor, reference: Tensor, mask: Tensor, label: Tensor, moved: Tensor, loss_type: str) -> Tensor:
        trainer = _trainer(
            loss_type=loss_type,
            calculate_KL=loss_type == "kto",
            precompute_ref_logps=True,
            desirable_weight=1.0,
            undesirable_weight=1.0,
            _compute_kl_logps=lambda model, batch: moved.expand(len(label)),
        )
        inputs = {
            "input_ids": _tokens(mask),
            "attention_mask": _behind_prompt(mask, 1),
            "completion_mask": _behind_prompt(mask, 0),
            "label": label,
            "ref_logps": reference.sum(-1),
            "ref_KL_logps": torch.zeros(len(label), dtype=logp.dtype),
        }
        loss: Tensor = kto._compute_loss(trainer, _Model(logp), inputs, False)
        return loss

    for kind in ("kto", "apo_zero_unpaired"):
        yield Labelled(f"KTO {kind}", partial(labelled, loss_type=kind))

    # The advantages are made in the middle of a method that generates: these are its lines for one reward function.
    def grouped(reward: Tensor, old: Tensor, reference: Tensor, mask: Tensor, scale: bool) -> Tensor:
        mean = torch.nanmean(reward.view(-1, GROUP), dim=1).repeat_interleave(GROUP)
        deviation = nanstd(reward.view(-1, GROUP), dim=1).repeat_interleave(GROUP)
        advantages = reward - mean
        return advantages / (deviation + 1e-4) if scale else advantages

    def online(logp: Tensor, reference: Tensor, advantage: Tensor, mask: Tensor, **settings: Any) -> Tensor:
        args = SimpleNamespace(
            delta=None,
            use_bias_correction_kl=settings.pop("use_bias_correction_kl", True),
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            steps_per_generation=1,
        )
        trainer = _trainer(
            args=args,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            importance_sampling_level="token",
            epsilon_low=0.2,
            epsilon_high=0.2,
            use_vllm=False,
            max_completion_length=mask.shape[1],
            current_gradient_accumulation_steps=1,
            _entropy_bonus_enabled=False,
        )
        vars(trainer).update(settings)
        trainer._get_per_token_logps_and_entropies = partial(grpo._get_per_token_logps_and_entropies, trainer)
        inputs = {
            "prompt_ids": torch.zeros(len(mask), 1, dtype=torch.long),
            "prompt_mask": torch.ones(len(mask), 1, dtype=torch.long),
            "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
            "completion_mask": mask.long(),
            "advantages": advantage,
            "ref_per_token_logps": reference,
            "num_items_in_batch": mask.sum(),
        }
        loss: Tensor = grpo._compute_loss(trainer, _Model(logp), inputs)
        return loss

    scaled, centred = partial(grouped, scale=True), partial(grouped, scale=False)
    plain = {"use_bias_correction_kl": False}
    for kind in ("grpo", "dapo"):
        mean, of_kind = kind == "grpo", partial(online, loss_type=kind)
        yield Groups(f"GRPO {kind}", scaled, of_kind, standardised(BETA, 1e-4, "k2", mean))
        k3 = standardised(BETA, 1e-4, "k3", mean)
        yield Groups(f"GRPO {kind}, use_bias_correction_kl false", scaled, partial(of_kind, **plain), k3)
    dr = partial(online, loss_type="dr_grpo")
    name = "GRPO dr_grpo, scale_rewards none"
    yield Groups(name, centred, dr, Stationary(BETA, "k2", False, "centred"))
    yield Groups(
        f"{name}, use_bias_correction_kl false", centred, partial(dr, **plain), Stationary(BETA, "k3", False, "centred")
    )
    sequence = partial(online, loss_type="grpo", importance_sampling_level="sequence")
    yield Groups("GRPO grpo, importance_sampling_level sequence (GSPO)", scaled, sequence)
    cispo = partial(online, loss_type="cispo", epsilon_high=5.0)
    yield Groups("GRPO cispo, epsilon_high 5", scaled, cispo, standardised(BETA, 1e-4, "k2", False))
    sapo = partial(online, loss_type="sapo")
    yield Groups("GRPO sapo", scaled, sapo, standardised(BETA, 1e-4, "k2", True))

    def left_out(reward: Tensor, old: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        paid = reward - BETA * ((old - reference) * mask).sum(-1)
        own = paid.view(-1, GROUP)
        return paid - ((own.sum(1, keepdim=True) - own) / (GROUP - 1)).view(-1)

    def leave_one_out(logp: Tensor, reference: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        trainer = _trainer(epsilon_low=0.2, epsilon_high=0.2)
        trainer._get_per_token_logps_and_entropies = partial(rloo._get_per_token_logps_and_entropies, trainer)
        inputs = {
            "prompt_ids": torch.zeros(len(mask), 1, dtype=torch.long),
            "prompt_mask": torch.ones(len(mask), 1, dtype=torch.long),
            "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
            "completion_mask": mask.long(),
            "advantages": advantage,
            "old_logps": (logp.detach() * mask).sum(1),
        }
        loss: Tensor = rloo._compute_loss(trainer, _Model(logp), inputs)
        return loss

    yield Groups("RLOO", left_out, leave_one_out, PI_STAR, pays_kl=True)


# ---- OpenRLHF --------------------------------------------------------------------------------------------------------
def _openrlhf() -> tuple[ModuleType, ModuleType]:
    """Its files `models/loss.py` and `models/utils.py`, without the package around them, which wants a GPU."""
    spec = find_spec("openrlhf")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'openrlhf'", name="openrlhf")
    if find_spec("deepspeed") is None:  # imported by utils.py for a function that is not called here
        sys.modules["deepspeed"] = ModuleType("deepspeed")
    package = ModuleType("openrlhf.models")  # its __init__ imports flash_attn
    package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "models")]
    sys.modules["openrlhf.models"] = package
    return import_module("openrlhf.models.loss"), import_module("openrlhf.models.utils")


def openrlhf() -> Iterator[Peer]:
    """`DPOLoss`, `PolicyLoss`, `compute_approx_kl` and `compute_reward`."""
    losses, utils = _openrlhf()

    def pairs(logp: Tensor, reference: Tensor, mask: Tensor, **settings: Any) -> Tensor:
        loss: Tensor = losses.DPOLoss(BETA, **settings)(*logp.sum(-1), *reference.sum(-1))[0]
        return loss

    yield Pairs("DPOLoss", pairs, PI_STAR)
    yield Pairs("DPOLoss, ipo", partial(pairs, ipo=True), PreferenceTilted(BETA))
    smooth = partial(pairs, label_smoothing=FLIPS)
    yield Pairs("DPOLoss, label_smoothing 0.1", smooth, PI_STAR)
    yield Pairs("DPOLoss, label_smoothing 0.1, 10 % flips", smooth, Tilted(BETA, flips=FLIPS), FLIPS)

    # RemoteExperienceMaker.compute_advantages_and_returns needs a Ray cluster: these are its lines.
    def group_norm(reward: Tensor, old: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        own = reward.view(-1, GROUP)
        own = (own - own.mean(-1, keepdim=True)) / (own.std(-1, keepdim=True) + 1e-9)
        return own.view(-1, 1) * mask

    def rloo(reward: Tensor, old: Tensor, reference: Tensor, mask: Tensor, estimator: str) -> Tensor:
        own = reward.view(-1, GROUP)
        own = own - (own.sum(-1, keepdim=True) - own) / (GROUP - 1)
        kl = utils.compute_approx_kl(old, reference, kl_estimator=estimator) * mask
        rewards = utils.compute_reward(own.reshape(-1), BETA, kl, action_mask=mask) * mask
        return rewards.flip(1).cumsum(1).flip(1).to(reward.dtype)

    def online(
        logp: Tensor, reference: Tensor, advantage: Tensor, mask: Tensor, kl: dict[str, Any] | None, **settings: Any
    ) -> Tensor:
        policy = losses.PolicyLoss(**settings)
        loss: Tensor = policy(logp, logp.detach(), advantage, action_mask=mask)[0]
        if kl is not None:
            paid = utils.compute_approx_kl(logp, reference, log_probs_old=logp.detach(), **kl)
            loss = loss + BETA * losses.aggregate_loss(paid, mask, policy.token_level_loss)
        return loss

    k1, k2, k3 = ({"kl_estimator": k} for k in ("k1", "k2", "k3"))
    fixed = {"kl_estimator": "k3", "unbiased_gradient": True}
    for name, kl, estimator in (("k2", k2, "k2"), ("k3", k3, "k3"), ("k3, unbiased_gradient", fixed, "k2")):
        own = standardised(BETA, 1e-9, estimator, False)
        yield Groups(f"group_norm, PolicyLoss ppo, KL loss {name}", group_norm, partial(online, kl=kl), own)
    yield Groups("group_norm, PolicyLoss ppo, KL loss k1", group_norm, partial(online, kl=k1))
    for kind in ("ppo", "gspo"):
        loss = partial(online, kl=None, policy_loss_type=kind)
        name = f"rloo, PolicyLoss {kind}, KL in the reward"
        yield Groups(f"{name} k1", partial(rloo, estimator="k1"), loss, PI_STAR, pays_kl=True)
    k3_paid = partial(rloo, estimator="k3")
    yield Groups("rloo, PolicyLoss ppo, KL in the reward k3", k3_paid, partial(online, kl=None), pays_kl=True)


# ---- verl ------------------------------------------------------------------------------------------------------------
def verl() -> Iterator[Peer]:
    """`core_algos`: the registered advantages and policy losses, `kl_penalty`, `compute_rewards` and `agg_loss`."""
    algos = import_module("verl.trainer.ppo.core_algos")
    configs = import_module("verl.workers.config")

    def index(reward: Tensor) -> Any:
        return torch.arange(len(reward) // GROUP).repeat_interleave(GROUP).numpy()

    def at_last_token(reward: Tensor, mask: Tensor) -> Tensor:
        last = mask.sum(-1).long()[:, None] - 1
        return torch.zeros_like(mask).scatter(1, last, reward[:, None])

    def grpo(reward: Tensor, old: Tensor, reference: Tensor, mask: Tensor, by_std: bool) -> Tensor:
        found: Tensor = algos.compute_grpo_outcome_advantage(
            at_last_token(reward, mask), mask, index(reward), norm_adv_by_std_in_grpo=by_std
        )[0]
        return found

    def rloo(reward: Tensor, old: Tensor, reference: Tensor, mask: Tensor, beta: float) -> Tensor:
        paid = algos.compute_rewards(at_last_token(reward, mask), old, reference, beta) * mask
        found: Tensor = algos.compute_rloo_vectorized_outcome_advantage(paid, mask, index(reward))[0]
        return found

    def online(
        logp: Tensor,
        reference: Tensor,
        advantage: Tensor,
        mask: Tensor,
        policy: str = "vanilla",
        mode: str = "token-mean",
        kl: str = "",
    ) -> Tensor:
        config = configs.ActorConfig(
            strategy="fsdp", rollout_n=GROUP, ppo_micro_batch_size_per_gpu=1, loss_agg_mode=mode
        )
        loss: Tensor
        loss, _ = algos.get_policy_loss_fn(policy)(logp.detach(), logp, advantage, mask, mode, config)
        if kl:  # as in workers/utils/losses.py
            paid = algos.kl_penalty(logp, reference, kl)
            loss = loss + BETA * algos.agg_loss(paid, mask, mode)
        return loss

    scaled, centred = partial(grpo, by_std=True), partial(grpo, by_std=False)
    for kl, estimator in (("low_var_kl", "k3"), ("k2", "k2"), ("k3+", "k2")):
        own = standardised(BETA, 1e-6, estimator, False)
        yield Groups(f"grpo, vanilla, token-mean, KL loss {kl}", scaled, partial(online, kl=kl), own)
    for kl in ("k1", "abs"):
        yield Groups(f"grpo, vanilla, token-mean, KL loss {kl}", scaled, partial(online, kl=kl))
    by_answer = partial(online, mode="seq-mean-token-mean", kl="low_var_kl")
    own = standardised(BETA, 1e-6, "k3", True)
    yield Groups("grpo, vanilla, seq-mean-token-mean, KL loss low_var_kl", scaled, by_answer, own)
    for kl, estimator in (("low_var_kl", "k3"), ("k3+", "k2")):
        loss = partial(online, mode="seq-mean-token-sum-norm", kl=kl)
        name = f"grpo, norm_adv_by_std_in_grpo false, seq-mean-token-sum-norm, KL loss {kl}"
        yield Groups(name, centred, loss, Stationary(BETA, estimator, False, "centred"))  # type: ignore[arg-type]
    for kl, estimator in (("low_var_kl", "k3"), ("k3+", "k2")):
        unpaid, loss = partial(rloo, beta=0.0), partial(online, kl=kl)
        own = Stationary(BETA, estimator, False, "reward")  # type: ignore[arg-type]
        yield Groups(f"rloo_vectorized, vanilla, token-mean, KL loss {kl}", unpaid, loss, own)
    paid = partial(rloo, beta=BETA)
    for policy in ("vanilla", "gspo", "cispo", "geo_mean", "sapo", "gpg"):
        mode = "seq-mean-token-mean" if policy in ("gspo", "sapo") else "token-mean"
        loss = partial(online, policy=policy, mode=mode)
        yield Groups(f"rloo_vectorized, {policy}, KL in the reward", paid, loss, PI_STAR, pays_kl=True)


# ---- the table -------------------------------------------------------------------------------------------------------
LIBRARIES: dict[str, tuple[str, Callable[[], Iterator[Peer]], float]] = {
    "trl": ("TRL", trl, 1e-8),
    "openrlhf": ("OpenRLHF", openrlhf, 1e-5),
    "verl": ("verl", verl, 1e-8),
}
"""Name, methods, and the length of a gradient at which a policy is at rest: OpenRLHF computes its KL in float32."""


def row(library: str, peer: Peer, rest: float = 1e-8) -> Row:
    """Follow its gradient to where it is shorter than `rest`, and measure that."""
    own = described(peer.own) if peer.own is not None else ""
    logits, note = followed(peer.gradient, WORLD.reference, rest), ""
    if logits is None and peer.own is not None:
        logits, note = followed(peer.gradient, _near(peer.own), rest), "followed from near its own optimum"
    if logits is None:
        return Row(library, peer.name, own, note="no end was found")
    policy = WORLD.of_answers(logits)
    distance = worst(policy, peer.own) if peer.own is not None else None
    return Row(library, peer.name, own, distance, worst(policy, PI_STAR), regret(policy), note=note)


def _near(optimum: Optimum) -> Tensor:
    """`(P, K, V)` logits of a policy a little off an optimum."""
    policy, answers = optimum.policy(WORLD.tables), WORLD.answers
    logits = torch.zeros_like(WORLD.reference)
    for k, state in enumerate(WORLD.states):
        for word in range(logits.shape[-1]):
            after = [y for y, answer in enumerate(answers) if answer[: len(state) + 1] == (*state, word)]
            logits[:, k, word] = policy[:, after].logsumexp(-1)
    return logits + 0.1 * torch.randn(logits.shape, dtype=logits.dtype, generator=torch.Generator().manual_seed(0))


def main(names: list[str]) -> None:
    """Print the table of the libraries that are named, or of all."""
    chosen = [name for name in LIBRARIES if name in names] or list(LIBRARIES)
    only = set(names) - set(LIBRARIES)
    rows = []
    with one_thread():
        for name in chosen:
            title, methods, rest = LIBRARIES[name]
            library = f"{title} {version(name)}"
            for peer in methods():
                if not only or peer.name in only:
                    rows.append(row(library, peer, rest))
                    print(library, rows[-1], file=sys.stderr, flush=True)
    print(markdown(rows))
    if not only:
        write(rows, Path(__file__).with_name("results.csv"))


if __name__ == "__main__":
    main(sys.argv[1:])
