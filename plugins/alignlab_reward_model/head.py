"""Parts that the stages share: the head that a reward model starts from, and the prompts of its held-out answers."""

from collections.abc import Sequence

from alignlab.data.rows import Row
from alignlab.policy import Policy
from alignlab.seed import fold_in


def with_score_head(policy: Policy, attributes: Sequence[str], seed: int) -> Policy:
    """The policy, with a head of small random weights for these attributes where it has no head of just these."""
    if policy.score_head is None or policy.score_head.attributes != tuple(attributes):
        policy.add_score_head(fold_in(seed, 1), attributes)
    return policy


def prompts_of(rows: Sequence[Row]) -> list[str]:
    """A key of each row's prompt: estimates must know which answers are to the same one."""
    return [str([t for t, scored in zip(row.tokens, row.mask, strict=True) if not scored]) for row in rows]
