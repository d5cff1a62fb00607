"""Files: an experiment's records out of a user's own files.

Nothing is read when a `Files` is made, except that each file must be there; a role is read when a stage first asks
for it, and kept. The split that a record belongs to follows from a hash of its prompt (or text) alone
(`conversations.prompt_key`): adding rows moves no other row, and one prompt is never in both splits, nor in the
training instructions and the held-out preferences. (Where so few records are there that the hash leaves one part empty,
one prompt is moved over; `check` refuses it where that puts it into both parts.)
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from alignlab.data.cache import Cache
from alignlab.data.files import opening
from alignlab.data.files.arguments import Named, columns_named, paths_of, shapes_of
from alignlab.data.files.digests import digest_of
from alignlab.data.files.formats import Role
from alignlab.data.files.loaded import Loaded
from alignlab.data.files.loading import Loader
from alignlab.data.records import Comparison, Document, Example, Labelled, Prompt, Ranking
from alignlab.data.source import DataSource, Need, Records, Split, each_once
from alignlab.data.split import in_both
from alignlab.errors import ConfigError, DataError

ROLES: Mapping[Records, tuple[Role, ...]] = {
    "documents": ("corpus",),
    "instructions": ("instructions",),
    "comparisons": ("preferences",),
    "rankings": ("rankings",),
    "labelled": ("labelled",),
    "prompts": ("prompts", "instructions", "preferences"),
}
"""The roles that give each kind of records: the first that has a file."""


class Files(DataSource):
    """Plain text, JSON arrays, JSON lines, CSV, TSV and parquet; all but parquet may be gzipped.

    Args:
        corpus: file or files of plain text, or of records with `text`.
        prompts: file or files of prompts to be answered, in place of those of the instructions (preferences).
        instructions: file or files of answered instructions.
        preferences: file or files of preferred and rejected answers.
        rankings: file or files of ranked answers, the best first.
        labelled: file or files of answers called good or bad.
        shape: for each role the name of its shape (`alignlab.data.files.formats`); null or absent detects it by the
            columns.
        facts: columns that are carried along with each prompt, for rewards and evaluations (`Prompt.fact`): texts,
            numbers and flags. The `answer` of `question_answer` records is carried in any case.
        scores: columns of the instructions that rate the (last) answer of a record (`Example.scores`): numbers.
        validation_fraction: of each role's prompts (texts), held out; in [0, 1).
        split_seed: another seed holds out other records.
        on_bad_record: "stop" where records cannot be used, naming them all, or "skip", count and report them.
        document_characters: plain text is cut at blank lines into documents of about so many characters; 0 makes
            each paragraph a document, null the whole file one.

    A role needs no file as long as no stage reads it (`unset`).

    Raises:
        ConfigError: an argument is out of its range.
        DataError: a file is missing or of an unknown extension.
    """

    VERSION: ClassVar[str] = "3"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"corpus", "prompts", "instructions", "preferences", "rankings", "labelled", "on_bad_record"}
    )
    """Where the files lie does not matter; their contents do, by `content_digest`. Nor does `on_bad_record`: an
    artifact that was made with "stop" met no bad record, so it would be the same with "skip"."""

    def __init__(
        self,
        corpus: Named = None,
        instructions: Named = None,
        preferences: Named = None,
        rankings: Named = None,
        labelled: Named = None,
        shape: Mapping[str, str | None] | None = None,
        facts: Sequence[str] = (),
        scores: Sequence[str] = (),
        validation_fraction: float = 0.1,
        split_seed: int = 0,
        on_bad_record: Literal["stop", "skip"] = "stop",
        document_characters: int | None = 2000,
        prompts: Named = None,
    ) -> None:
        if not 0 <= validation_fraction < 1:
            raise ConfigError(f"data.validation_fraction must be in [0, 1), got {validation_fraction}; 0.1 is usual")
        if on_bad_record not in ("stop", "skip"):
            raise ConfigError(f"data.on_bad_record must be stop or skip, got {on_bad_record!r}")
        if document_characters is not None and document_characters < 0:
            raise ConfigError(f"data.document_characters must be >= 0 or null, got {document_characters}")
        named: dict[Role, Named] = {
            "corpus": corpus,
            "prompts": prompts,
            "instructions": instructions,
            "preferences": preferences,
            "rankings": rankings,
            "labelled": labelled,
        }
        self.files = {role: paths_of(names) for role, names in named.items()}
        self.shape = shapes_of(shape or {})
        self.facts, self.scores = columns_named(facts), columns_named(scores)
        self.validation_fraction = validation_fraction
        self.split_seed = split_seed
        self.on_bad_record = on_bad_record
        self.document_characters = document_characters
        self._loaded: dict[Role, Loaded[Any]] = {}
        self._digests: dict[Path, str] = {}
        self.keep_in(Cache())
        self._check_files()

    def _check_files(self) -> None:
        for role, paths in self.files.items():
            for path in paths:
                kind = opening.suffix(path)
                opening.check_exists(path)
                if kind in opening.TEXT and role not in ("corpus", "prompts"):
                    raise DataError(
                        f"data.{role}: {path} is plain text, which only data.corpus and data.prompts take; {role} are "
                        f"records, as "
                        f"{', '.join(k for k in opening.KNOWN if k not in opening.TEXT)}"
                    )

    def has(self, role: Role) -> bool:
        """Whether a file is named for this role."""
        return bool(self.files[role])

    def lacks(self, records: Records) -> bool:
        """Whether no file is named that gives these records."""
        return not any(self.has(role) for role in ROLES[records])

    def documents(self, split: Split) -> Sequence[Document]:
        """The corpus."""
        return self._of("corpus", split) if self.has("corpus") else super().documents(split)

    def instructions(self, split: Split) -> Sequence[Example]:
        """Answered instructions; of pairs the chosen answer, of labelled answers the good ones."""
        return self._of("instructions", split) if self.has("instructions") else super().instructions(split)

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Preferences; pairs of two equal answers are left out."""
        return self._of("preferences", split) if self.has("preferences") else super().comparisons(split)

    def rankings(self, split: Split) -> Sequence[Ranking]:
        """Ranked answers."""
        return self._of("rankings", split) if self.has("rankings") else super().rankings(split)

    def labelled(self, split: Split) -> Sequence[Labelled]:
        """Answers called good or bad."""
        return self._of("labelled", split) if self.has("labelled") else super().labelled(split)

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Those of `prompts`, else of the instructions, else of the preferences; each once."""
        if self.has("prompts"):
            return each_once(asked.prompt for asked in self._of("prompts", split))
        if self.has("instructions") or not self.has("preferences"):
            return super().prompts(split)
        return each_once(c.prompt for c in self.comparisons(split))

    def keep_in(self, cache: Cache) -> None:
        """Keep the records of large files, and their tokens, in this cache."""
        self._cache = cache

    def content_digest(self) -> str:
        """SHA-256 over the contents of all files, by role and in order; where they lie does not matter."""
        total = hashlib.sha256()
        for role, paths in self.files.items():
            for path in paths:
                if path not in self._digests:
                    self._digests[path] = digest_of(path)
                # The suffix decides how the content is read.
                total.update(f"{role}\0{opening.suffix(path)}\0{self._digests[path]}\n".encode())
        return total.hexdigest()

    def notes(self) -> Sequence[str]:
        """Shape and number of the records of each role read so far, and what was left out."""
        return [note for loaded in self._loaded.values() for note in loaded.notes]

    # ---- before anything runs ----------------------------------------------------------------------------------------
    def unset(self, need: Need) -> str:
        """The setting that names a missing file or column, or that fills the validation part; empty where none is."""
        if self.lacks(need.records):
            return " or ".join(f"data.{role}=FILE" for role in ROLES[need.records])
        if need.held_out and self.validation_fraction == 0:
            return "data.validation_fraction above 0 (0.05 to 0.2 is usual)"
        if missing := [name for name in need.scores if name not in self.scores]:
            return f"data.scores=[{','.join((*self.scores, *missing))}], columns of numbers"
        return ""

    def check(self, needs: Sequence[Need]) -> list[str]:
        """Bad records, empty parts, prompts in two parts, and facts and scores that no file has."""
        found = super().check(needs)
        if not found:
            roles = {next(r for r in ROLES[n.records] if self.has(r)) for n in needs} - {"corpus"}
            found = [*self._in_two_parts(sorted(roles)), *self._without_columns(sorted(roles))]
        return found

    def _in_two_parts(self, roles: Sequence[Role]) -> list[str]:
        problems = []
        for learnt, held in itertools.permutations(roles, 2):
            train = self._loader(learnt).places(self._loaded[learnt].train)
            validation = self._loader(held).places(self._loaded[held].validation)
            if both := in_both(train, validation, self.validation_fraction):
                first = self._loaded[learnt].train[train.index(both[0])]
                other = self._loaded[held].validation[validation.index(both[0])]
                problems.append(
                    f"{len(both)} prompts are in the training {learnt} and the held-out {held} (first: "
                    f"{first.source} and {other.source}), as one of the two has too few prompts to hold out "
                    f"the same ones; add records, or set another data.validation_fraction or data.split_seed"
                )
        return problems

    def _without_columns(self, roles: Sequence[Role]) -> list[str]:
        """Columns that are to be carried along and that no file of their roles has."""
        problems = []
        named = (("facts", self.facts, roles), ("scores", self.scores, [r for r in roles if r == "instructions"]))
        for key, names, of in named:
            known = {name for role in of for name in self._loaded[role].carried}
            missing = [name for name in names if name not in known] if of else []
            problems += (
                [f"data.{key} names {', '.join(missing)}, which no file of {', '.join(of)} has"] if missing else []
            )
        return problems

    def _of(self, role: Role, split: Split) -> Sequence[Any]:
        if role not in self._loaded:
            self._loaded[role] = self._loader(role).load(self.files[role], self._cache, digest_of)
            self._check_unchanged(self.files[role])
        return self._loaded[role].train if split == "train" else self._loaded[role].validation

    def _loader(self, role: Role) -> Loader:
        return Loader(
            role,
            self.shape.get(role),
            self.validation_fraction,
            self.split_seed,
            self.on_bad_record == "skip",
            self.document_characters,
            self.facts,
            self.scores,
        )

    def _check_unchanged(self, paths: Sequence[Path]) -> None:
        """A file is read long after its digest went into a fingerprint; in between it may have been written to."""
        for path in paths:
            if path in self._digests and digest_of(path) != self._digests[path]:
                raise DataError(f"{path} has changed since this run began; start it again, once the file is finished")
