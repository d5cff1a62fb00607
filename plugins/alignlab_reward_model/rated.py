"""Reward modelling on rated answers.

Axes: W answers, k attributes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import Artifact, Kind, StageContext, TokenBatch
from alignlab.data.rows import Row
from alignlab.data.source import DataSource, Need
from alignlab.errors import DataError
from alignlab.metrics import Column, Estimate, with_intervals, write_columns
from alignlab.policy import LearnedScores, Policy, previews
from alignlab.training import AnswerStage
from alignlab.training.measure import measure
from alignlab_reward_model.head import prompts_of, with_score_head
from alignlab_reward_model.rewards import check_name


class RatedRewardModel(AnswerStage):
    """Fit one head for each attribute, and the body below them, to ratings of single answers.

    Scores are read at the stop token. An answer without any of the ratings is left out and counted; one that lacks
    some teaches the other heads.

    Args:
        ratings: names of the attributes: scores of the answers (`Example.scores`), which are columns that `data.scores`
            names, or stand in the lines of the input `answers`.
        inputs: `policy`, a reward model to continue among others; `answers`, in place of the instructions of `data`.
    """

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy", "reward_model"})}
    PRODUCES: ClassVar[Kind] = "reward_model"
    DROPOUT: ClassVar[bool] = True
    PROVIDES: ClassVar[frozenset[str]] = AnswerStage.PROVIDES | {"ratings"}

    def __init__(self, *, ratings: Sequence[str], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.ratings = ratings
        if not ratings or isinstance(ratings, str) or len(set(ratings)) < len(ratings):
            raise ValueError(f"RatedRewardModel: ratings must be a list of different names, got {ratings!r}")
        for name in ratings:
            check_name("RatedRewardModel", name)

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Rated instructions, where no answers are given."""
        return [(source, replace(need, scores=tuple(self.ratings))) for source, need in super().data_needs()]

    def load_policy(self, inputs: Mapping[str, Artifact], context: StageContext) -> Policy:
        """The input `policy`, with heads of small random weights where it has not the same ones."""
        return with_score_head(super().load_policy(inputs, context), self.ratings, self.seed)

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> tuple[list[Row], list[Row]]:
        """Every rated answer, tokenised with its prompt.

        Raises:
            DataError: as `AnswerStage`; or a rating is of no answer to train on.
        """
        train, held_out = super().read(inputs, context)
        known = {name for row in train for name in row.notes}
        if missing := [name for name in self.ratings if name not in known]:
            raise DataError(
                f"RatedRewardModel: no answer to train on has the score {', '.join(missing)} (they have "
                f"{', '.join(sorted(known)) or 'none'}); name its column in data.scores, or set other ratings"
            )
        kept = [[row for row in rows if self._is_rated(row)] for rows in (train, held_out)]
        if unrated := len(train) + len(held_out) - sum(map(len, kept)):
            context.tracker.say(f"{unrated} answers without any of these ratings are left out")
        return kept[0], kept[1]

    def _is_rated(self, row: Row) -> bool:
        return any(name in row.notes for name in self.ratings)

    def batch_of(self, units: Sequence[Row]) -> TokenBatch:
        """One sequence per answer, with its ratings; NaN where there is none."""
        return super().batch_of(units).with_units(ratings=self._known(units))

    def _known(self, rows: Sequence[Row]) -> Float[Tensor, "W k"]:
        known = [[row.notes.get(name, math.nan) for name in self.ratings] for row in rows]
        return torch.tensor(known).reshape(len(rows), len(self.ratings))

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Scores of held-out answers, next to their ratings."""
        return previews.rated(self.policy, LearnedScores(self.policy), self.held_out)

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Train; returns how far the published model's scores are from the held-out ratings, by attribute."""
        found = super().run(inputs, context)
        write_columns(context.folder, list(self._columns()))
        return {**found, **with_intervals(self._held_out(context))}

    def _columns(self) -> Iterator[Column]:
        for name in self.ratings:
            text = f"mean distance of the score from the rating {name} of held-out answers"
            yield Column(f"absolute_error_{name}", text, unit="units of the rating", better=-1, headline=True)

    def _held_out(self, context: StageContext) -> dict[str, Estimate]:
        """Mean distance by attribute; several answers may be to one prompt."""
        rows = self.held_out_units
        if not rows:
            return {}
        error, prompts, found = self._scores(context) - self._known(rows), prompts_of(rows), dict[str, Estimate]()
        for name, column in zip(self.ratings, error.abs().T.tolist(), strict=True):
            rated = [(prompt, x) for prompt, x in zip(prompts, column, strict=True) if not math.isnan(x)]
            if (estimate := Estimate.mean(rated)) is not None:
                found[f"absolute_error_{name}"] = estimate
        return found

    def _scores(self, context: StageContext) -> Float[Tensor, "W k"]:
        """Scores of the held-out answers."""
        self.policy.to(context.runtime.device).eval()
        budget, device = self.loop.micro_batch_tokens, context.runtime
        return torch.cat([measure(self.policy, b, device, budget, of="scores") for b in self.validation_batches()])
