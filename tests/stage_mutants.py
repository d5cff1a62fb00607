"""Stages with one fault each, plain ones and training stages.

`FAULTS` are seven that trainers have shipped; `MORE` are others, so that every check has one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from plain_stage_mutants import (
    CountsTwice,
    Elsewhere,
    NotANumber,
    NoVersion,
    Silent,
    Swallows,
    Undeclared,
    Unseeded,
    Vandal,
)
from stage_cases import OPTIMIZER, Honest, given, labels, online, pairs

from alignlab.artifact import Artifact
from alignlab.batch import PreferenceBatch
from alignlab.stage import Stage, StageContext
from alignlab.stats import TokenStats
from alignlab.training import LabelledStage, OnlineStage, PolicyGradientStage, PreferenceStage


class OrderByCalls(PreferenceStage):
    """Its batches follow from how often it was asked, not from the step."""

    VERSION: ClassVar[str] = "1"
    calls: int = 0

    def batch_at(self, step: int) -> PreferenceBatch:
        self.calls += 1
        return super().batch_at(self.calls - 1)


class ForgottenAverage(PreferenceStage):
    """Publishes a moving average of the weights that is not part of its checkpoint."""

    VERSION: ClassVar[str] = "1"

    def after_step(self, step: int) -> None:
        average = self.__dict__.setdefault("average", {})
        for name, weight in self.policy.state_dict().items():
            average[name] = 0.5 * average.get(name, weight) + 0.5 * weight

    def publish(self, folder: Path) -> None:
        kept = {k: v.clone() for k, v in self.policy.state_dict().items()}
        self.policy.load_state_dict(self.__dict__.get("average", kept))
        super().publish(folder)
        self.policy.load_state_dict(kept)


class ForgottenBuffer(PolicyGradientStage):
    """Its buffer is not part of its checkpoint."""

    VERSION: ClassVar[str] = "1"

    def state(self) -> dict[str, Any]:
        return {"number": -1, "buffer": None}


class StopUnscored(PreferenceStage):
    """Masks the stop token as padding."""

    VERSION: ClassVar[str] = "1"

    def batch_of(self, units: Sequence[Any]) -> PreferenceBatch:
        batch = super().batch_of(units)
        mask = batch.response_mask.clone()
        mask[batch.last_tokens()] = False
        return replace(batch, response_mask=mask)


class StopMissing(PreferenceStage):
    """Cuts the stop token off."""

    VERSION: ClassVar[str] = "1"

    def batch_of(self, units: Sequence[Any]) -> PreferenceBatch:
        cut = [[replace(r, tokens=r.tokens[:-1], mask=r.mask[:-1]) for r in pair] for pair in units]
        return super().batch_of([(chosen, rejected) for chosen, rejected in cut])


class MovingReference(PreferenceStage):
    """Its reference is the policy of the moment."""

    VERSION: ClassVar[str] = "1"

    def batch_at(self, step: int) -> PreferenceBatch:
        batch = super().batch_at(step)
        with torch.no_grad():
            return batch.with_tokens(reference_logp=self.policy.token_stats(batch, frozenset({"logp"})).logp)


class ShiftedPairs(PreferenceStage):
    """Each chosen answer is compared with the rejected one of the record before."""

    VERSION: ClassVar[str] = "1"

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> Any:
        train, held_out = super().read(inputs, context)
        rejected = [pair[1] for pair in train]
        chosen = [pair[0] for pair in train]
        return list(zip(chosen, rejected[-1:] + rejected[:-1], strict=True)), held_out


class ShiftedLabels(LabelledStage):
    """Each answer gets the label of the record before."""

    VERSION: ClassVar[str] = "1"

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> Any:
        train, held_out = super().read(inputs, context)
        good = [row.good for row in train]
        return [replace(row, good=g) for row, g in zip(train, good[-1:] + good[:-1], strict=True)], held_out


class ShiftedNames(PreferenceStage):
    """Pairs carry the names of the records before."""

    VERSION: ClassVar[str] = "1"

    def batch_of(self, units: Sequence[Any]) -> PreferenceBatch:
        batch = super().batch_of(units)
        return replace(batch, names=batch.names[-2:] + batch.names[:-2])


class ShiftedNotes(PreferenceStage):
    """Pairs carry the margins of the records before."""

    VERSION: ClassVar[str] = "1"

    def batch_of(self, units: Sequence[Any]) -> PreferenceBatch:
        margins = torch.tensor([chosen.notes["margin"] for chosen, _ in units])
        return super().batch_of(units).with_units(margin=self.shifted(margins))

    def shifted(self, margins: torch.Tensor) -> torch.Tensor:
        return margins.roll(1)


class TrainsOnHeldOut(PreferenceStage):
    """Learns from the held-out records."""

    VERSION: ClassVar[str] = "1"

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> Any:
        _, held_out = super().read(inputs, context)
        return held_out, held_out


class LastMicroBatchOnly(PreferenceStage):
    """The gradient of each micro-batch replaces that of the one before."""

    VERSION: ClassVar[str] = "1"

    def token_stats(self, batch: PreferenceBatch) -> TokenStats:
        if torch.is_grad_enabled():
            self.policy.zero_grad()
        return super().token_stats(batch)


class Idle(PreferenceStage):
    """Trains by a learning rate of 0."""

    VERSION: ClassVar[str] = "1"

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{**arguments, "optimizer": replace(OPTIMIZER, lr=0.0)})


@dataclass(frozen=True)
class Fault:
    """A fault of a stage, and the check that catches it."""

    name: str
    mutant: type[Stage]
    check: str

    def make(self) -> Stage:
        """The stage that has it."""
        for regime, build in ((PreferenceStage, pairs), (LabelledStage, labels), (OnlineStage, online)):
            if issubclass(self.mutant, regime):
                stage: Stage = build(self.mutant)  # type: ignore[operator]
                return stage
        return self.mutant()

    def inputs(self, folder: Path) -> dict[str, Artifact]:
        """What it takes."""
        if issubclass(self.mutant, Honest):
            return given("preferences")(folder)
        return (
            given("policy")(folder) if issubclass(self.mutant, OnlineStage) else given("policy", "preferences")(folder)
        )


FAULTS: tuple[Fault, ...] = (
    Fault("order by calls", OrderByCalls, "continues_after_a_kill"),
    Fault("moving average outside the checkpoint", ForgottenAverage, "continues_after_a_kill"),
    Fault("buffer outside the checkpoint", ForgottenBuffer, "continues_after_a_kill"),
    Fault("stop token unscored", StopUnscored, "the_stop_token_is_scored"),
    Fault("moving reference", MovingReference, "the_reference_stays"),
    Fault("labels shifted by a record", ShiftedLabels, "batches_hold_what_was_given"),
    Fault("gradient of the last micro-batch only", LastMicroBatchOnly, "memory_budget_changes_nothing"),
)
MORE: tuple[Fault, ...] = (
    Fault("no version", NoVersion, "version_is_a_literal"),
    Fault("undeclared input", Undeclared, "inputs_and_product_are_declared"),
    Fault("NaN as a metric", NotANumber, "metrics_are_finite_numbers"),
    Fault("no progress", Silent, "reports_progress"),
    Fault("swallows a kill", Swallows, "publishes_nothing_on_failure"),
    Fault("writes elsewhere", Elsewhere, "publishes_nothing_on_failure"),
    Fault("counts twice", CountsTwice, "continues_after_a_kill"),
    Fault("unseeded", Unseeded, "same_inputs_make_the_same_artifact"),
    Fault("changes its input", Vandal, "inputs_are_only_read"),
    Fault("trains nothing", Idle, "memory_budget_changes_nothing"),
    Fault("stop token missing", StopMissing, "the_stop_token_is_scored"),
    Fault("pairs shifted by a record", ShiftedPairs, "batches_hold_what_was_given"),
    Fault("names shifted by a record", ShiftedNames, "batches_hold_what_was_given"),
    Fault("notes shifted by a record", ShiftedNotes, "batches_hold_what_was_given"),
    Fault("trains on held-out records", TrainsOnHeldOut, "batches_hold_what_was_given"),
)
