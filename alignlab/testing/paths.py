"""The two ways to a policy's token statistics, through a whole tiny model: the fused head, and eager logits.

Axes: T tokens, L tokens of one sequence, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from alignlab.batch import Batch, RolloutBatch
from alignlab.policy import Policy
from alignlab.stats import TokenStats
from alignlab.testing.artifacts import head_of, tiny_policy
from alignlab.testing.cases import Case, Subject, with_floats

_KNOWN = frozenset({"logp", "lse", "entropy", "value", "score"})


def fused_and_eager_paths_agree(subject: Subject) -> None:
    """Loss and gradient of the weights are the same through the fused head and through eager logits.

    In float32, and in bfloat16. The eager path leaves true numbers at masked tokens, the fused one never computes
    them: whoever reads them differs.
    """
    needs = subject.make().needs
    unknown = needs - _KNOWN
    assert not unknown, f"{subject.name}: needs {sorted(unknown)}, which no policy gives; skip this check, saying why"
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 3e-2)):
        policy = tiny_policy(seed=3, scalar_head=bool(needs & {"value", "score"})).to(dtype)
        batch = _batch_near(subject.case(), policy, needs)
        found, expected = (
            _loss_and_gradient(subject, batch, policy, stats)
            for stats in (policy.token_stats(batch, needs), eager_stats(policy, batch, needs))
        )
        for what, one, other in zip(("loss", "gradient of the weights"), found, expected, strict=True):
            apart = float((one - other).norm() / other.norm().clamp_min(1e-3))
            assert apart < tolerance, (
                f"{subject.name}: through the fused head and through eager logits, in {dtype}, the {what} is "
                f"{apart:.2g} apart (relative); is anything read at masked tokens?"
            )


def eager_stats(policy: Policy, batch: Batch, needs: frozenset[str]) -> TokenStats:
    """What `Policy.token_stats` gives, from the whole logits of each sequence alone, at masked tokens too."""
    temperature = batch.temperature if isinstance(batch, RolloutBatch) else 1.0
    parts = [
        _of_sequence(policy, tokens, temperature) for tokens in torch.split(batch.tokens, batch.lengths().tolist())
    ]
    return TokenStats({name: torch.cat([part[name] for part in parts]) for name in parts[0] if name in needs})


def _of_sequence(policy: Policy, tokens: Tensor, temperature: float) -> dict[str, Tensor]:
    hidden = policy.model.base_model(input_ids=tokens[None], use_cache=False).last_hidden_state[0]
    # The rounding of logits to bfloat16 is not what is compared here.
    logits = hidden.float() @ head_of(policy).float().T / temperature
    logp = logits.log_softmax(-1)
    found = {
        "logp": _shifted(logp[:-1].gather(1, tokens[1:, None])[:, 0]),
        "lse": _shifted(logits[:-1].logsumexp(-1)),
        "entropy": _shifted(-(logp.exp() * logp).sum(-1)[:-1]),
    }
    if policy.score_head is not None:
        scalar = policy.score_head(hidden)[:, 0].float()
        found |= {"value": _shifted(scalar[:-1]), "score": scalar[-1:]}
    return found


def _shifted(x: Tensor) -> Tensor:
    """What is said of token t by what stands before it; nothing comes before the first."""
    return torch.cat([x.new_zeros(1), x])


def _batch_near(case: Case, policy: Policy, needs: frozenset[str]) -> Batch:
    """The case's batch, its extras as near to this policy's statistics as they were to the random ones."""
    batch: Batch = with_floats(case.batch, lambda x: x.float())
    with torch.no_grad():
        stats = policy.token_stats(batch, needs).values
    random = {"logp": case.now.get("logp"), "value": case.now.get("value")}
    near = {"reference_logp": "logp", "old_logp": "logp", "old_value": "value", "returns": "value"}
    moved = dict(batch.per_token)
    for name, statistic in near.items():
        was = random[statistic]
        if name in moved and was is not None:
            moved[name] = moved[name] - was.detach().float() + stats[statistic].float()
    return replace(batch, per_token=moved)


def _loss_and_gradient(subject: Subject, batch: Batch, policy: Policy, stats: TokenStats) -> Iterator[Tensor]:
    objective = subject.make()
    mean = objective.statistic(TokenStats({k: v.detach() for k, v in stats.values.items()}), batch)
    loss = objective(stats, batch, None if mean is None else mean.value()).mean(objective.units(batch))
    weights = [p for p in policy.parameters() if p.requires_grad]
    gradient = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    yield loss.detach()
    yield torch.cat([g.flatten().float() for g in gradient])
