"""DataSource: where documents, instructions, preferences and prompts come from."""

import abc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from alignlab.data.cache import Cache
from alignlab.data.records import Comparison, Document, Example, Labelled, Prompt, Ranking
from alignlab.errors import DataError, MissingDataError

Split = Literal["train", "validation"]
Part = Split | Literal["all"]
"""Part of a source's records, or all of them."""
Records = Literal["documents", "instructions", "comparisons", "rankings", "labelled", "prompts"]
"""Kinds of records, by the name of the method that gives them."""


def splits_of(part: Part) -> Sequence[Split]:
    """The splits that a part is made of."""
    return get_args(Split) if part == "all" else (part,)


@dataclass(frozen=True)
class Need:
    """Records that a stage reads from a data source.

    Args:
        records: their kind.
        held_out: whether the stage cannot do without a validation part.
        why: the setting that makes the stage read them (`replay=0.15`), where it does not always; for messages.
        max_length: tokens of the longest sequence that the stage uses; None is the model's context.
        scores: names of the scores of instructions (`Example.scores`) that the stage learns from.
        notes: numbers that every comparison must have (`Comparison.notes`).
    """

    records: Records
    held_out: bool = False
    why: str = ""
    max_length: int | None = None
    scores: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class DataSource(abc.ABC):
    """Gives the records of an experiment, split once and for all into train and validation.

    Each method is a pure function of the constructor arguments (and of the files they name). A source that lacks a
    kind of record raises `MissingDataError`, which says which key would bring it.
    """

    VERSION: ClassVar[str]
    on_bad_record: Literal["stop", "skip"] = "stop"
    """Treatment of records that cannot be used: an error that names them, or they are left out and counted."""

    def documents(self, split: Split) -> Sequence[Document]:
        """Plain texts for pretraining."""
        raise MissingDataError(f"{type(self).__name__} has no documents; set data.corpus to a text file")

    def instructions(self, split: Split) -> Sequence[Example]:
        """Answered instructions for fine-tuning."""
        raise MissingDataError(f"{type(self).__name__} has no instructions; set data.instructions to a file")

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Preferences that came with the data (human ones, usually)."""
        raise MissingDataError(f"{type(self).__name__} has no preferences; set data.preferences to a file")

    def rankings(self, split: Split) -> Sequence[Ranking]:
        """Lists of answers that came with the data in the order of a judge, the best first."""
        raise MissingDataError(f"{type(self).__name__} has no rankings; set data.rankings to a file")

    def labelled(self, split: Split) -> Sequence[Labelled]:
        """Single answers that were called good or bad."""
        raise MissingDataError(f"{type(self).__name__} has no labelled answers; set data.labelled to a file")

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Prompts to sample answers for: by default those of the instructions, each once."""
        return each_once(e.prompt for e in self.instructions(split))

    def content_digest(self) -> str:
        """Digest of everything read from outside (files); empty where all follows from the arguments."""
        return ""

    def notes(self) -> Sequence[str]:
        """Notes on the records read so far, for the user: the shapes recognised, the records left out."""
        return ()

    def keep_in(self, cache: Cache) -> None:  # noqa: B027  # most sources are small
        """Keep what is too large for memory in a run's cache, instead of in one of this process's own."""

    # ---- before anything runs ----------------------------------------------------------------------------------------
    def unset(self, need: Need) -> str:
        """The setting that is missing for a need, such as `data.corpus=FILE`; empty where none is.

        It follows from the arguments alone: nothing is read, so that a plan can be checked at once.
        """
        return ""

    def check(self, needs: Sequence[Need]) -> list[str]:
        """Problems that keep the source from meeting some needs, one line each; reads the records.

        Every problem is in the list, so that one run finds them all. A source that knows more of its records than what
        each method gives (which prompt is in which part) adds to it.
        """
        found = [line for need in dict.fromkeys(needs) for line in self._problems_of(need)]
        return list(dict.fromkeys(found))

    def _problems_of(self, need: Need) -> list[str]:
        read: Any = getattr(self, need.records)
        try:
            train, validation = read("train"), read("validation")
        except DataError as error:
            return [str(error)]
        name = type(self).__name__
        problems = [] if train else [f"{name} has no {need.records} to train on"]
        if need.held_out and not validation:
            problems.append(f"{name} holds out no {need.records}, and some stages measure on held-out ones")
        known = {score for record in train for score in record.scores} if need.scores else set()
        if unrated := [score for score in need.scores if score not in known]:
            problems.append(f"{name} has no {need.records} to train on with the score {', '.join(unrated)}")
        for note in need.notes:
            without = [record.source for part in (train, validation) for record in part if note not in record.notes]
            if without:
                problems.append(f"{len(without)} {need.records} lack {note}, which is learnt (first: {without[0]})")
        return problems


def each_once(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The prompts in their order, each once; one question with two reference answers is there with both."""
    return list({(p.messages, p.facts): p for p in prompts}.values())
