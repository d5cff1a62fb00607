"""A trained reward model as a reward source.

Axes: answers.
"""

from collections.abc import Collection, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.batch import TokenBatch
from alignlab.data.chat import encode_answer
from alignlab.data.records import Prompt
from alignlab.errors import ConfigError
from alignlab.policy.policy import Policy
from alignlab.reward import RewardSource


class LearnedReward(RewardSource):
    """Scores an answer by a reward model's scalar head at its last token (the stop token).

    Args:
        policy: with a scalar head; used in evaluation mode.
        max_tokens: of one forward pass.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(self, policy: Policy, max_tokens: int = 16384) -> None:
        if policy.score_head is None:
            raise ConfigError("LearnedReward: the model has no scalar head; give the folder of a reward model")
        self._policy = policy.eval()
        self.max_tokens = max_tokens

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """Float32 rewards on the CPU, in reward units."""
        if not answers:
            return torch.zeros(0)
        rows = [encode_answer(self._policy.tokenizer, p, a) for p, a in zip(prompts, answers, strict=True)]
        context = self._policy.context
        # What does not fit loses its beginning: the reward is read at the end.
        batch = TokenBatch.of([tokens[-context:] for tokens, _ in rows], [mask[-context:] for _, mask in rows])
        parts = batch.to(self._policy.device).micro_batches(self.max_tokens)
        return torch.cat([self._policy.token_stats(p, frozenset({"score"})).score for p in parts]).float().cpu()


def check_scored(owner: str, reward: RewardSource | None, names: Collection[str]) -> None:
    """Refuse a stage that has neither a reward source nor the input `reward`.

    Args:
        owner: name of the stage's class.
        reward: its reward source, if it has one.
        names: of its inputs.
    """
    if reward is None and "reward" not in names:
        raise ValueError(
            f"{owner}: nothing scores the answers; set inputs.reward to a reward model (a stage or a folder), or "
            f"reward to a reward source"
        )
