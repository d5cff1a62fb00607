"""DataSource: where documents, instructions, preferences and prompts come from."""

import abc
from collections.abc import Sequence
from typing import ClassVar, Literal

from alignlab.data.records import Comparison, Document, Example, Labelled, Prompt
from alignlab.errors import MissingDataError

Split = Literal["train", "validation"]


class DataSource(abc.ABC):
    """Gives the records of an experiment, split once and for all into train and validation.

    Each method is a pure function of the constructor arguments (and of the files they name). A source that lacks a
    kind of record raises `MissingDataError`, which says which key would bring it.
    """

    VERSION: ClassVar[str]
    on_bad_record: Literal["stop", "skip"] = "stop"
    """What happens to a record that cannot be used: an error that names it, or it is left out and counted."""

    def documents(self, split: Split) -> Sequence[Document]:
        """Plain texts for pretraining."""
        raise MissingDataError(f"{type(self).__name__} has no documents; set data.corpus to a text file")

    def instructions(self, split: Split) -> Sequence[Example]:
        """Answered instructions for fine-tuning."""
        raise MissingDataError(f"{type(self).__name__} has no instructions; set data.instructions to a file")

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Preferences that came with the data (human ones, usually)."""
        raise MissingDataError(f"{type(self).__name__} has no preferences; set data.preferences to a file")

    def labelled(self, split: Split) -> Sequence[Labelled]:
        """Single answers that were called good or bad."""
        raise MissingDataError(f"{type(self).__name__} has no labelled answers; set data.labelled to a file")

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Prompts to sample answers for: by default those of the instructions, each once."""
        return list(dict.fromkeys(e.prompt for e in self.instructions(split)))

    def content_digest(self) -> str:
        """Digest of everything read from outside (files); empty where all follows from the arguments."""
        return ""

    def notes(self) -> Sequence[str]:
        """Lines for the reader on what was read so far: shapes that were taken, records that were left out."""
        return ()
