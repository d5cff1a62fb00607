"""Trained reward models as reward sources.

Axes: answers, attributes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.batch import TokenBatch
from alignlab.data.chat import encode_answer
from alignlab.data.records import Prompt
from alignlab.errors import ConfigError
from alignlab.policy.policy import Policy
from alignlab.reward import RewardSource, ScoreModel
from alignlab.stage import Stage


class LearnedScores(ScoreModel):
    """Scores of a reward model: what its head reads at the last token of an answer (the stop token).

    Args:
        policy: with a head that scores; used in evaluation mode, on the device that it is on.
        max_tokens: of one forward pass.
    """

    def __init__(self, policy: Policy, max_tokens: int = 16384) -> None:
        if policy.score_head is None:
            raise ConfigError(f"{type(self).__name__}: the model has no scalar head; give the folder of a reward model")
        self.policy = policy.eval()
        self.attributes = policy.score_head.attributes
        self.max_tokens = max_tokens

    @torch.no_grad()
    def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers attributes"]:
        """Float32 scores on the CPU, in reward units, by all attributes in one pass."""
        if not answers:
            return torch.zeros(0, len(self.attributes))
        rows = [encode_answer(self.policy.tokenizer, p, a) for p, a in zip(prompts, answers, strict=True)]
        context = self.policy.context
        # What does not fit loses its beginning: the reward is read at the end.
        batch = TokenBatch.of([tokens[-context:] for tokens, _ in rows], [mask[-context:] for _, mask in rows])
        parts = batch.to(self.policy.device).micro_batches(self.max_tokens)
        return torch.cat([self.policy.token_stats(p, frozenset({"scores"})).scores for p in parts]).float().cpu()


class LearnedReward(RewardSource):
    """The score of a reward model of one attribute.

    Args:
        policy: with a head that scores; used in evaluation mode.
        max_tokens: of one forward pass.
    """

    VERSION: ClassVar[str] = "1"

    def __init__(self, policy: Policy, max_tokens: int = 16384) -> None:
        if policy.score_head is None:
            raise ConfigError("LearnedReward: the model has no scalar head; give the folder of a reward model")
        if len(names := policy.score_head.attributes) > 1:
            raise ConfigError(
                f"LearnedReward: the model scores {', '.join(names)}, and a reward is one number; weigh them with "
                f"reward=model reward.weights={{{names[0]}: 1.0}}"
            )
        self._model = LearnedScores(policy, max_tokens)
        self.max_tokens = max_tokens

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """Float32 rewards on the CPU, in reward units."""
        return self._model.scores(prompts, answers)[:, 0]


def learned(
    reward: RewardSource | None, inputs: Mapping[str, Artifact], max_tokens: int = 16384
) -> tuple[RewardSource | None, list[Policy]]:
    """A stage's reward source with the reward models that it scores with, loaded and frozen; and those models.

    Args:
        reward: the stage's; None takes the input `reward` by itself, where there is one.
        inputs: of the stage.
        max_tokens: of one forward pass.
    """
    if reward is None and "reward" not in inputs:
        return None, []
    names = ("reward",) if reward is None else reward.inputs
    models = {name: Policy.load(inputs[name]).eval().requires_grad_(False) for name in dict.fromkeys(names)}
    if reward is None:
        return LearnedReward(models["reward"], max_tokens), list(models.values())
    scores = {name: LearnedScores(model, max_tokens) for name, model in models.items()}
    return (reward.with_models(scores) if scores else reward), list(models.values())


def check_scored(stage: Stage, reward: RewardSource | None, names: frozenset[str], needed: bool = True) -> None:
    """Refuse a stage that nothing scores for, or whose reward models are not its reward's.

    Args:
        stage: whose further inputs are reward models for its reward source to score with.
        reward: its reward source, if it has one.
        names: of its inputs.
        needed: whether something must score.

    Raises:
        ValueError: neither a reward source nor the input `reward` is given; an input that the source scores with is
            missing; or nothing scores with an input.
    """
    if needed and reward is None and "reward" not in names:
        raise ValueError(
            f"{type(stage).__name__}: nothing scores the answers; set inputs.reward to a reward model (a stage or a "
            f"folder), or reward to a reward source"
        )
    check_scorers(stage, () if reward is None else (reward,), names)


def check_scorers(stage: Stage, rewards: Iterable[RewardSource], names: frozenset[str]) -> None:
    """Refuse a stage that lacks a reward model which one of its rewards scores with, or has one that none does.

    Args:
        stage: whose further inputs are reward models for its reward sources to score with.
        rewards: its reward sources.
        names: of its inputs.

    Raises:
        ValueError: names the input.
    """
    owner, wanted = type(stage).__name__, frozenset(name for reward in rewards for name in reward.inputs)
    if missing := sorted(wanted - names):
        raise ValueError(
            f"{owner}: its reward scores with the inputs {', '.join(sorted(wanted))}; set inputs.{missing[0]} to a "
            f"reward model (a stage or a folder)"
        )
    if idle := sorted(names - wanted - {*stage.INPUTS, *stage.OPTIONAL}):
        raise ValueError(
            f"{owner}: nothing reads inputs.{idle[0]}; it takes {', '.join((*stage.INPUTS, *stage.OPTIONAL))}, and the "
            f"reward models that its reward names"
        )
