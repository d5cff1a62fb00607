"""The two ways to a policy's token statistics, through a whole tiny model: the fused head, and eager logits.

Axes: T tokens, L tokens of one sequence, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alignlab.batch import Batch
from alignlab.policy import Policy
from alignlab.policy.score_head import REWARD, STATISTICS
from alignlab.stats import TokenStats
from alignlab.testing.artifacts import head_of, tiny_policy
from alignlab.testing.objective.cases import ATTRIBUTES, Case
from alignlab.testing.objective.step import ALL
from alignlab.testing.objective.subject import ObjectiveSubject
from alignlab.training.step import backward, whole_step

_NEAR = dict.fromkeys(("reference_logp", "old_logp", "sampler_logp"), "logp")
_NEAR |= dict.fromkeys(("old_value", "returns"), "value")
"""Extras that are kept as close to the policy's statistics as they were to the random ones."""
_DTYPES = ((torch.float32, 1e-4), (torch.bfloat16, 3e-2))
"""Types of the weights, and the relative difference that their rounding makes."""


def fused_and_eager_paths_agree(subject: ObjectiveSubject) -> None:
    """Loss and gradient of the weights are the same through the fused head and through eager logits.

    In float32, and in bfloat16. The eager path leaves true numbers at masked tokens, the fused one never computes
    them: an objective that reads them differs.
    """
    needs = subject.make().needs
    for dtype, tolerance in _DTYPES:
        policy = tiny_policy(seed=3)
        if needs & STATISTICS:
            policy.add_score_head(3, ATTRIBUTES if "scores" in needs else REWARD)
        policy = policy.to(dtype)
        teacher = tiny_policy(seed=4).to(dtype).requires_grad_(False)
        batch = _batch_near(subject.case(), policy, teacher, needs)
        fused = partial(policy.token_stats, needs=needs, teacher=teacher)
        eager = partial(eager_stats, policy, teacher, needs=needs)
        found = _loss_and_gradient(subject, batch, policy, fused)
        expected = _loss_and_gradient(subject, batch, policy, eager)
        for what, one, other in zip(("loss", "gradient of the weights"), found, expected, strict=True):
            apart = float((one - other).norm() / other.norm().clamp_min(1e-3))
            assert apart < tolerance, (
                f"{subject.name}: through the fused head and through eager logits, in {dtype}, the {what} is "
                f"{apart:.2g} apart (relative); is anything read at masked tokens?"
            )


def eager_stats(policy: Policy, teacher: Policy, batch: Batch, needs: frozenset[str]) -> TokenStats:
    """The statistics of `Policy.token_stats`, from the whole logits of each sequence alone, at masked tokens too."""
    sequences = torch.split(batch.tokens, batch.lengths().tolist())
    parts = [_of_sequence(policy, teacher, tokens, batch.temperature) for tokens in sequences]
    return TokenStats({name: torch.cat([part[name] for part in parts]) for name in parts[0] if name in needs})


def _of_sequence(policy: Policy, teacher: Policy, tokens: Tensor, temperature: float) -> dict[str, Tensor]:
    hidden, logits = _logits(policy, tokens, temperature)
    logp = logits.log_softmax(-1)
    with torch.no_grad():
        other = _logits(teacher, tokens, temperature)[1].log_softmax(-1)
    found = {
        "logp": _shifted(logp[:-1].gather(1, tokens[1:, None])[:, 0]),
        "lse": _shifted(logits[:-1].logsumexp(-1)),
        "entropy": _shifted(-(logp.exp() * logp).sum(-1)[:-1]),
        "kl_to_teacher": _shifted((logp.exp() * (logp - other)).sum(-1)[:-1]),
        "kl_from_teacher": _shifted((other.exp() * (other - logp)).sum(-1)[:-1]),
    }
    if policy.score_head is not None:
        scored = policy.score_head(hidden).float()
        found |= {"value": _shifted(scored[:-1, 0]), "score": scored[-1:, 0], "scores": scored[-1:]}
    return found


def _logits(policy: Policy, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Last hidden state and logits of one sequence."""
    hidden = policy.model.base_model(input_ids=tokens[None], use_cache=False).last_hidden_state[0]
    # The rounding of logits to bfloat16 is not what is compared here.
    return hidden, hidden.float() @ head_of(policy).float().T / temperature


def _shifted(x: Tensor) -> Tensor:
    """Statistics of token t from the distribution before it; the first token has none."""
    return torch.cat([x.new_zeros(1), x])


def _batch_near(case: Case, policy: Policy, teacher: Policy, needs: frozenset[str]) -> Batch:
    """The case's batch in float32, its extras as close to this policy's statistics as they were to the random ones."""
    single = case.to(torch.float32)
    batch: Batch = single.plain_batch()
    with torch.no_grad():
        stats = policy.token_stats(batch, needs, teacher).values
    moved = dict(batch.per_token)
    for name, statistic in _NEAR.items():
        if name in moved and statistic in single.stats:
            moved[name] = moved[name] - single.stats[statistic].detach() + stats[statistic].float()
    return replace(batch, per_token=moved)


def _loss_and_gradient(
    subject: ObjectiveSubject, batch: Batch, policy: Policy, stats: Callable[[Any], TokenStats]
) -> tuple[Tensor, Tensor]:
    """One step's loss, and its gradient of the weights in one row."""
    objective = subject.make()
    weights = [p for p in policy.parameters() if p.requires_grad]
    total = [torch.zeros_like(w) for w in weights]

    def differentiate(loss: Tensor) -> None:
        found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        for known, part in zip(total, found, strict=True):
            known.add_(part)

    loss, _ = backward(objective, whole_step(objective, batch, stats, ALL), stats, differentiate)
    return loss.value(), torch.cat([g.flatten().float() for g in total])
