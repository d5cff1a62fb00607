"""PreferenceStage: the data regime of methods that learn from preference pairs."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, TypeAlias

import torch

from alignlab.artifact import Artifact, Kind
from alignlab.batch import PreferenceBatch
from alignlab.data import preferences
from alignlab.data.judgement import DEFAULTS, RANGES
from alignlab.data.records import Comparison
from alignlab.data.rows import Row, Truncation, check_max_length, comparison_parts, preference_batch, resolve_max_length
from alignlab.data.source import DataSource, Need
from alignlab.errors import DataError
from alignlab.objective import Objective
from alignlab.policy import LoRA, previews
from alignlab.stage import StageContext
from alignlab.training.loop import Loop
from alignlab.training.mixed_in import MixedIn
from alignlab.training.offline import OfflineStage
from alignlab.training.optimizer import OptimizerSpec

RowPair: TypeAlias = tuple[Row, Row]
"""Chosen and rejected answer, tokenised with their prompt."""


class PreferenceStage(OfflineStage[PreferenceBatch, RowPair]):
    """Train a policy on preference pairs by any objective on them (DPO, IPO, SimPO, ORPO, ...).

    Args:
        max_length: longest sequence in tokens; null takes the model's context.
        on_bad_record: a pair whose answer is cut away as a whole stops the stage, or is left out and counted ("skip").
        inputs: `policy`; `preferences`, split into train and validation; `reference`, by default the policy as it was.
    """

    VERSION: ClassVar[str] = "1"
    NOT_IDENTITY: ClassVar[frozenset[str]] = OfflineStage.NOT_IDENTITY | {"on_bad_record"}
    """An artifact that was made with "stop" met no such pair, so it would be the same with "skip"."""
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {
        **OfflineStage.INPUTS,
        "preferences": frozenset({"preferences"}),
    }
    PROVIDES: ClassVar[frozenset[str]] = OfflineStage.PROVIDES | set(RANGES)
    """Also numbers on each judgement (`Comparison.notes`): margin, agreement, probability of the choice, tie."""
    DROPOUT: ClassVar[bool] = False

    held_out: list[Comparison]
    """The validation split, in the order of its file."""

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
        mixed_in: Mapping[str, MixedIn] | None = None,
        adapter: LoRA | None = None,
    ) -> None:
        super().__init__(
            inputs=inputs,
            seed=seed,
            objective=objective,
            optimizer=optimizer,
            loop=loop,
            mixed_in=mixed_in,
            adapter=adapter,
        )
        check_max_length(type(self).__name__, max_length)
        self.max_length = max_length
        self.on_bad_record = on_bad_record

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Texts that are mixed in; the pairs come from another stage."""
        return self.mixed_needs()

    def read(
        self, inputs: Mapping[str, Artifact], context: StageContext
    ) -> tuple[Sequence[RowPair], Sequence[RowPair]]:
        """Both answers of every pair, tokenised with their prompt.

        Raises:
            DataError: a pair cannot be used, or lacks a number that the objective reads.
        """
        truncation = Truncation(resolve_max_length(type(self).__name__, self.max_length, self.policy.context))
        self.held_out = preferences.read(inputs["preferences"], "validation")
        pairs = preferences.read(inputs["preferences"], "train")
        skip = self.on_bad_record == "skip"
        train, held_out = comparison_parts(self.policy.tokenizer, pairs, self.held_out, truncation, skip)
        context.tracker.say(f"{len(train)} pairs to learn from, {len(held_out)} held out")
        if cut := truncation.describe("pairs"):
            context.tracker.say(cut)
        self._check_notes([*train, *held_out])
        return train, held_out

    def _check_notes(self, pairs: Sequence[RowPair]) -> None:
        for note in sorted(self.needs_notes()):
            without = [chosen.name for chosen, _ in pairs if note not in chosen.notes]
            if without:
                raise DataError(
                    f"{type(self.objective).__name__} reads {note}, which {len(without)} of {len(pairs)} preferences "
                    f"lack (first: {without[0]}); see docs/data.md on the columns that bring it"
                )

    def needs_notes(self) -> frozenset[str]:
        """Those that the objective reads, but for what has a default."""
        return frozenset(note for note in self._notes() if note not in DEFAULTS)

    def _notes(self) -> list[str]:
        """Numbers on the judgement that the objective reads."""
        return sorted(self.objective.reads & set(RANGES))

    def batch_of(self, units: Sequence[RowPair]) -> PreferenceBatch:
        """The chosen and the rejected answer of each pair, in turn, with the numbers that the objective reads."""
        known = [{**DEFAULTS, **chosen.notes} for chosen, _ in units]
        notes = {note: torch.tensor([of[note] for of in known]) for note in self._notes()}
        return preference_batch(units).with_units(**notes)

    def samples(self) -> Sequence[Mapping[str, object]]:
        """The policy's answers to held-out prompts, next to the two that were compared."""
        return previews.compared(self.policy, self.held_out, self.seed)
