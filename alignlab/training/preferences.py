"""PreferenceStage: what all stages that learn from preference pairs share.

A reward model, DPO and their like differ in what they make of a pair, not in how pairs are read, tokenised and cut.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeAlias

from alignlab.artifact import Artifact, Kind
from alignlab.batch import PreferenceBatch
from alignlab.data import preferences
from alignlab.data.records import Comparison
from alignlab.data.rows import Row, Truncation, check_max_length, comparison_rows, longest
from alignlab.objective import Objective
from alignlab.policy import Policy
from alignlab.stage import StageContext
from alignlab.training.loop import Loop
from alignlab.training.optimizer import OptimizerSpec
from alignlab.training.stage import TrainingStage

RowPair: TypeAlias = tuple[Row, Row]
"""Chosen and rejected answer, tokenised with their prompt."""


class PreferenceStage(TrainingStage[PreferenceBatch]):
    """A training stage on preference pairs; the input `preferences` holds them, split into train and validation.

    Args:
        max_length: longest sequence in tokens; null takes the model's context.
        on_bad_record: a pair whose answer is wholly cut away stops the stage, or is left out and counted ("skip").
    """

    held_out: list[Comparison]
    """The validation split, in the order of its file."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = TrainingStage.NOT_IDENTITY | {"on_bad_record"}
    """What was made with "stop" met no such pair, and would have been the same with "skip"."""
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {
        "policy": frozenset({"policy"}),
        "preferences": frozenset({"preferences"}),
    }

    def __init__(
        self,
        *,
        objective: Objective[PreferenceBatch],
        optimizer: OptimizerSpec,
        loop: Loop,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        max_length: int | None = None,
        on_bad_record: Literal["stop", "skip"] = "stop",
    ) -> None:
        super().__init__(inputs=inputs, seed=seed, objective=objective, optimizer=optimizer, loop=loop)
        check_max_length(type(self).__name__, max_length)
        self.max_length = max_length
        self.on_bad_record = on_bad_record

    def load(self, inputs: Mapping[str, Artifact], context: StageContext) -> tuple[list[RowPair], list[RowPair]]:
        """Load `self.policy`; returns the pairs to learn from and the held-out ones, and says how many there are."""
        self.policy = Policy.load(inputs["policy"], context.runtime.dtype)
        truncation = Truncation(longest(type(self).__name__, self.max_length, self.policy.context))
        self.held_out = preferences.read(inputs["preferences"], "validation")
        pairs = preferences.read(inputs["preferences"], "train"), self.held_out
        skip = self.on_bad_record == "skip"
        train, held_out = (comparison_rows(self.policy.tokenizer, p, truncation, skip) for p in pairs)
        context.tracker.say(f"{len(train)} pairs to learn from, {len(held_out)} held out")
        if cut := truncation.describe("pairs"):
            context.tracker.say(cut)
        return train, held_out
