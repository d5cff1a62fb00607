"""Every built-in method ends where it says, and the oracle notices when it does not."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from alignlab_distill import ForwardKL, ReverseKL
from alignlab_dpo import (
    DPO,
    IPO,
    WPO,
    ChosenNLL,
    ConservativeDPO,
    DavidsonDPO,
    LengthNormalizedDPO,
    PlackettLuce,
    RobustDPO,
    SoftLabelDPO,
)
from alignlab_grpo import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    DrGRPO,
    GroupRelative,
    KLInReward,
    KLToReference,
    LeaveOneOut,
    Reinforce,
    TruncatedImportance,
    WhitenedReturns,
)
from alignlab_ppo import GAE, PPO
from alignlab_pretrain import CausalLM
from alignlab_reward_model import BradleyTerry, ScoreRegression, TiesBradleyTerry
from alignlab_sft import AnswerNLL
from alignlab_simpo import SimPO

from alignlab import Loss, Objective, PreferenceBatch, RolloutBatch, TokenStats, WeightedSum
from alignlab.optimum import Declared, Tilted
from alignlab.optimum.tables import kl
from alignlab.testing.oracle import MISTAKES, Method, World, mutations, verdict, verify
from alignlab.testing.oracle.policy import TablePolicy
from alignlab.testing.oracle.rollouts import OnPolicy
from alignlab.testing.oracle.solve import natural_gradient


def with_kl(policy: Any, estimator: Any, over: Any, weight: float = 0.3) -> Any:
    """A policy gradient with a KL term in its loss."""
    return WeightedSum({"policy": policy, "kl": KLToReference(estimator, over)}, {"kl": weight})


FREE = LeaveOneOut(beta=0.0, missing_eos_penalty=0.0)
"""Credit for the reward alone."""
CENTRED = GroupRelative(scale=False)

METHODS: dict[str, tuple[Any, ...]] = {
    "dpo": (DPO(),),
    "dpo at another price": (DPO(beta=0.7),),
    "ipo": (IPO(),),
    "cdpo, not smoothed": (ConservativeDPO(label_smoothing=0.0),),
    "rdpo": (RobustDPO(),),
    "rdpo, two labels in five flipped": (RobustDPO(flip_rate=0.4),),
    "soft_dpo": (SoftLabelDPO(),),
    "length_normalized_dpo": (LengthNormalizedDPO(),),
    "wpo": (WPO(),),
    "davidson_dpo": (DavidsonDPO(),),
    "davidson_dpo, few ties": (DavidsonDPO(nu=0.2),),
    "plackett_luce": (PlackettLuce(),),
    "chosen_nll": (ChosenNLL(),),
    "simpo": (SimPO(gamma=0.0),),
    "answer_nll": (AnswerNLL(),),
    "causal_lm": (CausalLM(),),
    "forward_kl": (ForwardKL(),),
    "reverse_kl": (ReverseKL(),),
    "mixed_kl": (WeightedSum({"forward": ForwardKL(), "reverse": ReverseKL()}, {"forward": 0.3}),),
    "reverse_kl on its own answers": (ReverseKL(), None, RolloutBatch),
    "forward_kl on its own answers": (ForwardKL(), None, RolloutBatch),
    "bradley_terry": (BradleyTerry(),),
    "ties_bradley_terry": (TiesBradleyTerry(),),
    "score_regression": (ScoreRegression(),),
    "rloo": (Reinforce(), LeaveOneOut()),
    "rloo, clipped and averaged within answers": (GRPO(beta=0.0), LeaveOneOut()),
    "ppo": (PPO(), GAE()),
    "ppo, not whitened": (PPO(), GAE(whiten=False, lam=1.0)),
    "grpo": (GRPO(), GroupRelative()),
    "grpo, not scaled": (GRPO(), CENTRED),
    "dr_grpo, the KL in the reward": (DrGRPO(), KLInReward(CENTRED)),
    "dr_grpo, k3": (with_kl(DrGRPO(length=4.0), "k3", "answer_sum", 0.1), CENTRED),
    "dapo, the KL in the reward": (DAPO(), KLInReward(CENTRED)),
    "dapo, k3": (with_kl(DAPO(), "k3", "token_mean"), GroupRelative()),
    "gspo, the KL in the reward": (GSPO(), KLInReward(CENTRED)),
    "gspo, k2": (with_kl(GSPO(), "k2", "answer_mean"), CENTRED),
    "cispo, the KL in the reward": (CISPO(), KLInReward(CENTRED)),
    "reinforce, unbiased": (with_kl(Reinforce(), "unbiased", "answer_sum"), FREE),
    "reinforce, k1 does nothing": (with_kl(Reinforce(), "k1", "answer_sum"), LeaveOneOut()),
    "reinforce++": (DAPO(clip_high=0.2), WhitenedReturns()),
    "dapo, the sampler's weights, the KL in the reward": (TruncatedImportance(DAPO()), KLInReward(CENTRED)),
    "grpo, the sampler's weights": (TruncatedImportance(GRPO()), GroupRelative()),
    "ppo, the sampler's weights": (TruncatedImportance(PPO()), GAE()),
    "ppo, unbiased": (with_kl(PPO(), "unbiased", "token_mean"), GAE(beta=0.0, whiten=False)),
}


LONG = {
    "grpo",
    "forward_kl",
    "mixed_kl",
    "reinforce, unbiased",
    "rloo, clipped and averaged within answers",
    "ppo, not whitened",
    "ppo, the sampler's weights",
    "ppo, unbiased",
    "grpo, not scaled",
    "grpo, the sampler's weights",
    "dr_grpo, k3",
    "dapo, k3",
    "gspo, k2",
    "reinforce, k1 does nothing",
    "gspo, the KL in the reward",
    "dapo, the sampler's weights, the KL in the reward",
    "ppo",
    "cispo, the KL in the reward",
    "dapo, the KL in the reward",
    "dr_grpo, the KL in the reward",
    "reinforce++",
    "davidson_dpo",
    "davidson_dpo, few ties",
    "plackett_luce",
    "wpo",
    "length_normalized_dpo",
    "reverse_kl",
}
"""Methods that take more than 3 s; the others are of every kind: pairs, answers, a teacher, scores, rollouts."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in METHODS])
def test_it_ends_where_it_says(name: str) -> None:
    found = verdict(Method(*METHODS[name]))
    assert found.reached and found.start is not None and found.start > 0.1, found


# Not possible, without effect, or seen by the conformance kit alone: everything else must end elsewhere.
HARMLESS: dict[str, set[str]] = {
    "dpo": {"mask_in_the_numerator_only"},
    "ipo": {"mask_in_the_numerator_only"},
    # Weights of pairs move no optimum that meets every pair's probability.
    "wpo": {"mask_in_the_numerator_only"},
    "davidson_dpo": {"mask_in_the_numerator_only"},
    "plackett_luce": {"mask_in_the_numerator_only"},
    "simpo": {"no_reference", "stale_reference"},
    "answer_nll": {"mask_in_the_numerator_only", "beta_twice", "no_reference", "stale_reference"},
    # A teacher that can be matched exactly is matched whatever the weights of its tokens are.
    "forward_kl": {m.__name__ for m in MISTAKES} - {"off_by_one", "sign"},
    "reverse_kl": {m.__name__ for m in MISTAKES} - {"off_by_one", "sign"},
    "reverse_kl on its own answers": {m.__name__ for m in MISTAKES} - {"off_by_one", "sign"},
    # A score has no tokens.
    "bradley_terry": {m.__name__ for m in MISTAKES} - {"sign", "normalised_per_micro_batch"},
    "ties_bradley_terry": {m.__name__ for m in MISTAKES} - {"sign", "normalised_per_micro_batch"},
    # Each answer's own rating can be met, whatever it weighs.
    "score_regression": {m.__name__ for m in MISTAKES} - {"sign"},
    # At pi* every answer is paid the same, so that weights of tokens and answers are those of nothing.
    "rloo": {"mean_for_sum", "mask_in_the_numerator_only", "normalised_per_micro_batch"},
    "ppo": {"mean_for_sum", "normalised_per_micro_batch"},
    "grpo": set(),
    "grpo, not scaled": set(),
    "dr_grpo, the KL in the reward": {"mean_for_sum", "mask_in_the_numerator_only", "normalised_per_micro_batch"},
    "dr_grpo, k3": {"mask_in_the_numerator_only"},
    "gspo, the KL in the reward": {"mean_for_sum", "mask_in_the_numerator_only", "normalised_per_micro_batch"},
    "reinforce, unbiased": {"mask_in_the_numerator_only"},
    "reinforce++": set(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HARMLESS)
def test_mistakes_are_caught(name: str) -> None:
    outcomes = {m.mistake: m.outcome for m in mutations(Method(*METHODS[name]))}
    assert outcomes.keys() == {m.__name__ for m in MISTAKES}
    assert {mistake for mistake, outcome in outcomes.items() if outcome != "caught"} == HARMLESS[name]


@dataclass(frozen=True)
class Hopeful(Objective[PreferenceBatch]):
    """DPO that declares the optimum of another price."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})

    def optimum(self) -> Declared:
        return Tilted(0.2)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return DPO(0.1)(stats, batch)


def test_a_false_claim_is_refuted() -> None:
    found = verify(Hopeful())
    assert found.failed and found.distance is not None and found.distance > 0.1
    assert found.to_json()["reached"] is False


def test_what_declares_nothing_says_so() -> None:
    class Silent(Hopeful):
        optimum = Objective.optimum

    found = verify(Silent())
    assert not found.is_known and not found.failed and "optimum()" in found.reason


def test_an_objective_that_no_advantage_serves_is_named() -> None:
    with pytest.raises(ValueError, match=r"PPO reads returns, which rollouts with LeaveOneOut do not have"):
        verify(PPO(), LeaveOneOut())


# ---- the world -------------------------------------------------------------------------------------------------------
def test_the_answers_are_all_there_are() -> None:
    world = World()
    assert len(world.answers) == 15 and len(set(world.answers)) == 15
    torch.testing.assert_close(world.tables.reference.exp().sum(-1), torch.ones(4, dtype=torch.float64))
    policy = TablePolicy(world)
    batch = world.texts()
    logp = batch.sum_by_sequence(policy.token_stats(batch, frozenset({"logp"})).logp)
    torch.testing.assert_close(logp, world.tables.reference.flatten())


def test_logits_of_answers_are_those_of_their_policy() -> None:
    world = World()
    torch.testing.assert_close(world.of_answers(world.logits_of(world.tables.teacher)), world.tables.teacher)
    torch.testing.assert_close(world.logits_of(world.tables.reference), world.reference.log_softmax(-1))


def test_batches_hold_everything_once_by_its_probability() -> None:
    world = World()
    pairs = world.pairs()
    assert pairs.num_units == 4 * 15 * 15
    # Of each two answers drawn from the reference one is chosen: an ordered pair has half of the draws, on average.
    torch.testing.assert_close(pairs.weight.sum(), torch.tensor(2.0, dtype=torch.float64))
    flipped = world.pairs(flips=1.0).weight.view(4, 15, 15)
    torch.testing.assert_close(flipped.mT, pairs.weight.view(4, 15, 15))
    tied = world.pairs(ties=0.5)
    torch.testing.assert_close(tied.weight.sum(), pairs.weight.sum())
    equal = tied.weight.view(2, 4, 15, 15).diagonal(dim1=2, dim2=3)  # an answer against itself ties once in three
    torch.testing.assert_close(equal[0], equal[1] * 2)
    torch.testing.assert_close(world.texts().weight.sum(), torch.tensor(4.0, dtype=torch.float64))
    torch.testing.assert_close(world.labelled().weight.sum(), torch.tensor(4.0, dtype=torch.float64))
    torch.testing.assert_close(world.labelled(False).weight.sum(), torch.tensor(4.0, dtype=torch.float64))


def test_flipped_labels_move_dpo_and_unmodelled_ties_do_too() -> None:
    """What rDPO and Davidson's model are for: DPO on the same data ends elsewhere."""
    for end in (Tilted(0.1, flips=0.25), Tilted(0.1, ties=1.0)):
        method = Method(DPO(), held_against=end)
        assert method.distance(method.solve()) > 0.1


def test_ties_are_davidsons() -> None:
    """At nu = 1 equal answers tie every second time; and what does not tie is chosen as without ties."""
    world = World()
    weight, plain = world.pairs(ties=1.0).weight.view(2, 4, 15, 15), world.pairs().weight.view(4, 15, 15)
    decided, tied = weight[0] + weight[0].mT, weight[1] + weight[1].mT
    torch.testing.assert_close(weight.sum(), plain.sum())
    torch.testing.assert_close(decided.diagonal(dim1=1, dim2=2), tied.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(weight[0] / decided, plain / (plain + plain.mT))
    # Shares of tie, win and loss: tie^2 = (2 nu)^2 win loss.
    torch.testing.assert_close(tied.square(), 4 * weight[0] * weight[0].mT)
    assert world.pairs(ties=1.0).of_unit("tie").view(2, -1).mean(-1).tolist() == [0.0, 1.0]
    assert world.pairs().of_unit("tie").max() == 0


def test_lists_hold_every_order_of_a_set_by_its_probability() -> None:
    world = World()
    lists = world.lists()
    assert lists.num_units == 4 * 15 * 6 and lists.num_sequences == 3 * lists.num_units
    sets = torch.stack([world.tables.reference.roll(-i, -1) for i in range(3)]).sum(0).exp()
    torch.testing.assert_close(lists.weight.view(4, 15, 6).sum(-1), sets)
    # On lists of two, Plackett and Luce's raters are Bradley and Terry's.
    pairs, true = world.lists(2).weight.view(4, 15, 2), world.tables.preference
    first = torch.arange(15)
    torch.testing.assert_close(pairs[..., 0] / pairs.sum(-1), true[:, first, (first + 1) % 15])


def test_values_are_expectations_of_what_is_still_to_be_paid() -> None:
    world, beta = World(), 0.3
    logp = world.of_answers(world.teacher)
    values = world.values(logp, world.reward, beta)
    whole = (logp.exp() * (world.reward - beta * (logp - world.tables.reference))).sum(-1)
    torch.testing.assert_close(values[:, world.states.index(())], whole)


def test_the_natural_gradient_of_a_policy_gradient_is_the_soft_advantage() -> None:
    """Per state and token: expected reward less beta KL after it, against the state's mean, over the mean length."""
    world, beta = World(prompts=3), 0.4
    method = OnPolicy(world, Reinforce(), LeaveOneOut(beta=beta, missing_eos_penalty=0.0))
    found = natural_gradient(method, world.teacher)
    logp = world.of_answers(world.teacher)
    paid = world.reward - beta * (logp - world.tables.reference)
    state = world.states.index((0,))
    expected = []
    for word in range(3):
        after = [y for y, a in enumerate(world.answers) if a[:2] == (0, word)]
        expected.append((logp[:, after].softmax(-1) * paid[:, after]).sum(-1))
    wanted = torch.stack(expected, -1)
    chance = world.teacher[:, state].softmax(-1)
    wanted = wanted - (wanted * chance).sum(-1, keepdim=True)
    ratio = found[:-1, state] / -wanted[:-1]
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))
    assert float(ratio[0, 0]) > 0 and float(found[-1].abs().max()) == 0


def test_training_on_sampled_rollouts_agrees_with_the_exact_gradient() -> None:
    """The enumerated buffer is the expectation of the sampled one."""
    world = World(prompts=2)
    policy = TablePolicy(world, world.teacher)
    method = OnPolicy(world, Reinforce(), LeaveOneOut(beta=0.0, missing_eos_penalty=0.0))
    whole: RolloutBatch = method.rollouts(policy)
    assert whole.num_units == 2 * 15 * 15 * 2
    chance = policy.log_probability().exp()
    mean = (chance * world.reward).sum(-1)
    drawn = (whole.weight * whole.sequence("reward")).view(2, -1).sum(-1) / whole.weight.view(2, -1).sum(-1)
    torch.testing.assert_close(drawn, mean)
    assert float(kl(policy.log_probability(), world.tables.reference).min()) > 0
