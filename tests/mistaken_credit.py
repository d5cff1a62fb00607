"""Credit that is right but for one mistake in the KL that is paid in the reward."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from alignlab import Advantage, RolloutBatch
from alignlab.advantage import last_response_token
from alignlab.optimum import Credit, NoneKnown


@dataclass(frozen=True)
class Mistaken(Advantage):
    """An advantage, of rollouts that something is wrong with.

    Args:
        right: credits them.
        change: the mistake.
    """

    VERSION: ClassVar[str] = "1"
    right: Advantage
    change: Callable[[RolloutBatch], RolloutBatch]

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", self.right.reads)

    def optimum(self) -> Credit | NoneKnown:
        return self.right.optimum()

    def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
        return self.right(self.change(rollouts))


def kl_skips_the_end(b: RolloutBatch) -> RolloutBatch:
    return b.with_tokens(reference_logp=torch.where(last_response_token(b), b.old_logp, b.reference_logp))


def kl_is_a_mean_over_tokens(b: RolloutBatch) -> RolloutBatch:
    k1 = (b.old_logp - b.reference_logp) / b.response_lengths()[b.sequence_id]
    return b.with_tokens(reference_logp=b.old_logp - k1)


def sign_of_kl(b: RolloutBatch) -> RolloutBatch:
    return b.with_tokens(reference_logp=2 * b.old_logp - b.reference_logp)


def mistakes(right: Advantage) -> dict[str, Advantage]:
    """Each of the mistakes above, in a given credit."""
    return {c.__name__: Mistaken(right, c) for c in (kl_skips_the_end, kl_is_a_mean_over_tokens, sign_of_kl)}
