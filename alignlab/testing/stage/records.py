"""The check that a stage's batches hold the preferences that it was given."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from alignlab.batch import Batch, LabelledBatch, PreferenceBatch
from alignlab.data import preferences
from alignlab.data.chat import encode_answer
from alignlab.data.records import Comparison
from alignlab.testing.apply import DoesNotApply
from alignlab.testing.stage.driving import prepared
from alignlab.testing.stage.sandbox import StageSubject
from alignlab.training.stage import TrainingStage

Place: TypeAlias = tuple[int, str]
"""Number of a record, and `chosen` or `rejected`."""

NOTE_TOLERANCE = 1e-5
"""Relative difference that single precision makes of a number."""
_SIDE = re.compile(r"\((chosen|rejected)\)")


def batches_hold_what_was_given(subject: StageSubject) -> None:
    """Answers, labels and notes are those of the record that they are named after.

    Chosen and rejected answers are of one record, good answers are chosen ones, and a `margin`, `agreement`,
    `probability` or `tie` of a unit is its record's. Steps hold records of the train split alone, validation those of
    the validation split.
    """
    with subject.sandbox() as sandbox:
        stage = prepared(subject, sandbox)
        if "preferences" not in sandbox.inputs:
            raise DoesNotApply("it takes no preferences")
        artifact = sandbox.inputs["preferences"]
        training = [stage.batch_at(step) for step in range(stage.loop.steps)]
        _check(subject, stage, training, preferences.read(artifact, "train"), "train")
        held_out = stage.validation_batches()
        if held_out:
            _check(subject, stage, held_out, preferences.read(artifact, "validation"), "validation")


def _check(
    subject: StageSubject,
    stage: TrainingStage[Any],
    batches: Iterable[Batch],
    records: Sequence[Comparison],
    split: str,
) -> None:
    known = _Known(stage, records)
    for batch in batches:
        rows = batch.tokens.split(batch.lengths().tolist())
        found = [known.places(row.tolist()) for row in rows]
        for sequence, (places, name) in enumerate(zip(found, batch.names or [""] * len(found), strict=True)):
            if isinstance(batch, LabelledBatch) and int(batch.rank()[sequence]) > 0:
                continue  # the answer to another prompt
            assert places, f"{subject.name}: sequence {sequence} ({name}) holds no answer of a {split} record"
            assert known.fits(name, places), f"{subject.name}: the answer named {name!r} is that of another record"
        for unit, wanted in enumerate(_wanted(batch)):
            members = [s for s, u in enumerate(batch.unit.tolist()) if u == unit][: len(wanted)]
            common = [{i for i, side in found[s] if side == want} for s, want in zip(members, wanted, strict=True)]
            own = set.intersection(*common)
            assert own, (
                f"{subject.name}: unit {unit} should hold the {' and the '.join(wanted)} answer of one {split} record, "
                f"and holds {[sorted(found[s]) for s in members]} (number of the record, side); are labels shifted?"
            )
            _check_notes(subject, batch, unit, [records[i] for i in own])


def _check_notes(subject: StageSubject, batch: Batch, unit: int, own: Sequence[Comparison]) -> None:
    """Insist that the numbers of a unit are those of its record, or of one with the same answers."""
    for name, values in batch.per_unit.items():
        noted = [record.notes[name] for record in own if name in record.notes]
        assert not noted or any(abs(float(values[unit]) - n) <= NOTE_TOLERANCE * (1 + abs(n)) for n in noted), (
            f"{subject.name}: {name} of unit {unit} is {float(values[unit]):g}, and its record's is {noted[0]:g}"
        )


def _wanted(batch: Batch) -> list[tuple[str, ...]]:
    """The sides that the first sequences of each unit should hold."""
    if isinstance(batch, PreferenceBatch) and batch.num_sequences == 2 * batch.num_units:
        return [("chosen", "rejected")] * batch.num_units
    if isinstance(batch, LabelledBatch):
        return [("chosen",) if good else ("rejected",) for good in batch.desirable.tolist()]
    raise DoesNotApply("its batches hold neither pairs nor labelled answers")


class _Known:
    """The tokens of every record's answers."""

    def __init__(self, stage: TrainingStage[Any], records: Sequence[Comparison]) -> None:
        self.number = {record.source: i for i, record in enumerate(records)}
        self.encoded = [
            ((i, side), list(encode_answer(stage.policy.tokenizer, record.prompt, getattr(record, side))[0]))
            for i, record in enumerate(records)
            for side in ("chosen", "rejected")
        ]

    def places(self, tokens: list[int]) -> set[Place]:
        """Whose answer these tokens are; several, where records are alike. A long one may be cut at its end."""
        return {place for place, encoded in self.encoded if encoded[: len(tokens)] == tokens}

    def fits(self, name: str, places: set[Place]) -> bool:
        """Whether a sequence's name, where it is that of a record and a side, is one of these."""
        side, number = _SIDE.search(name), self.number.get(name.partition(" (")[0])
        return side is None or number is None or (number, side.group(1)) in places
