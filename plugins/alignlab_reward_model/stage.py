"""Reward modelling on preference pairs.

Axes: W pairs.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import Artifact, Kind, StageContext
from alignlab.metrics import Column, Estimate, with_intervals, write_columns
from alignlab.objective import preferred
from alignlab.policy import LearnedReward, Policy, previews
from alignlab.policy.score_head import REWARD
from alignlab.training import PreferenceStage
from alignlab.training.measure import measure
from alignlab_reward_model.head import prompts_of, with_score_head

COLUMNS: Final = (
    Column("accuracy", "held-out pairs that it orders as the raters did", better=1, share=True, headline=True),
    Column("held_out_pairs", "held-out pairs that it was measured on", unit="pairs"),
    Column("chosen_score", "mean score of the preferred answers of held-out pairs", unit="reward units"),
    Column("chosen_score_std", "standard deviation of these scores", unit="reward units"),
    Column("rejected_score", "mean score of the other answers of held-out pairs", unit="reward units"),
    Column("rejected_score_std", "standard deviation of these scores", unit="reward units"),
)


class RewardModel(PreferenceStage):
    """Fit a scalar head, and the body below it, to preferences. The score is read at the stop token."""

    VERSION: ClassVar[str] = "2"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {
        **PreferenceStage.INPUTS,
        "policy": frozenset({"policy", "reward_model"}),
    }
    PRODUCES: ClassVar[Kind] = "reward_model"
    DROPOUT: ClassVar[bool] = True

    def load_policy(self, inputs: Mapping[str, Artifact], context: StageContext) -> Policy:
        """The input `policy`, with a head of small random weights where it has none, or one of several attributes."""
        policy = super().load_policy(inputs, context)
        known = REWARD if policy.score_head is None else policy.score_head.attributes
        return with_score_head(policy, known if len(known) == 1 else REWARD, self.seed)

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Scores of held-out pairs."""
        return previews.scored(self.policy, LearnedReward(self.policy), self.held_out)

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Train; returns how the published model orders and scores the held-out pairs (see `COLUMNS`)."""
        found = super().run(inputs, context)
        write_columns(context.folder, COLUMNS)
        return {**found, **with_intervals(self._held_out(*self._scores(context)))}

    def _scores(self, context: StageContext) -> tuple[Float[Tensor, "W"], Float[Tensor, "W"]]:
        """Scores of the chosen and the rejected answers of the held-out pairs."""
        self.policy.to(context.runtime.device).eval()
        budget = self.loop.micro_batch_tokens
        parts = [measure(self.policy, b, context.runtime, budget, of="score") for b in self.validation_batches()]
        scores = torch.cat(parts).double()
        return scores[0::2], scores[1::2]

    def _held_out(self, chosen: Float[Tensor, "W"], rejected: Float[Tensor, "W"]) -> dict[str, float]:
        """Accuracy, and mean and spread of the scores of either side; several pairs are of one prompt."""
        rows = [row for row, _ in self.held_out_units]
        prompts = prompts_of(rows)
        accuracy = Estimate.share(zip(prompts, preferred(chosen - rejected).tolist(), strict=True))
        means = {
            f"{side}_score": Estimate.mean(zip(prompts, scores.tolist(), strict=True))
            for side, scores in (("chosen", chosen), ("rejected", rejected))
        }
        known = {k: v for k, v in {"accuracy": accuracy, **means}.items() if v is not None}
        spread = {"chosen_score_std": chosen, "rejected_score_std": rejected}
        return {
            **known,
            **{name: float(scores.std(correction=0)) for name, scores in spread.items()},
            "held_out_pairs": float(len(rows)),
        }
