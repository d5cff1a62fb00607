"""Files: an experiment's records out of somebody's own files.

Nothing is read when a `Files` is made, except that each file must be there; a role is read when a stage first asks
for it, and kept. Which split a record belongs to follows from a hash of its prompt (or text) alone: adding rows moves
no other row, and one prompt never stands in both splits, nor in the training instructions and the held-out preferences.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast, get_args

from alignlab.artifact import digest_of_file
from alignlab.data.files import formats, reading
from alignlab.data.files.formats import Role
from alignlab.data.files.loading import Loaded, Loader
from alignlab.data.records import Comparison, Document, Example, Labelled, Prompt
from alignlab.data.source import DataSource, Split
from alignlab.errors import ConfigError, DataError

Named = str | Sequence[str] | None


class Files(DataSource):
    """Plain text, JSON arrays, JSON lines, CSV, TSV and parquet; all but parquet may be gzipped.

    Args:
        corpus: file or files of plain text, or of records with `text`.
        instructions: file or files of answered instructions.
        preferences: file or files of preferred and rejected answers.
        labelled: file or files of answers called good or bad.
        shape: for each role the name of its shape (`alignlab.data.shapes`); null or absent detects it by the columns.
        validation_fraction: of each role's prompts (texts), held out; in [0, 1).
        split_seed: another seed holds out other records.
        on_bad_record: "stop" at the first record that cannot be used, or "skip", count and report it.
        document_characters: plain text is cut at blank lines into documents of about so many characters; 0 makes
            each paragraph a document, null the whole file one.
        require: roles that must have a file, so that an experiment can miss one before it has trained for an hour.

    Raises:
        ConfigError: an argument is out of its range, or no file is named at all.
        DataError: a file is missing or of an unknown extension.
    """

    VERSION: ClassVar[str] = "2"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"corpus", "instructions", "preferences", "labelled", "require", "on_bad_record"}
    )
    """Where the files lie does not matter; their contents do, by `content_digest`. Nor does what is done about bad
    records: whatever was made with "stop" met none, and would have been the same with "skip"."""

    def __init__(
        self,
        corpus: Named = None,
        instructions: Named = None,
        preferences: Named = None,
        labelled: Named = None,
        shape: Mapping[str, str | None] | None = None,
        validation_fraction: float = 0.1,
        split_seed: int = 0,
        on_bad_record: Literal["stop", "skip"] = "stop",
        document_characters: int | None = 2000,
        require: Sequence[str] = (),
    ) -> None:
        if not 0 <= validation_fraction < 1:
            raise ConfigError(f"data.validation_fraction must be in [0, 1), got {validation_fraction}; 0.1 is usual")
        if on_bad_record not in ("stop", "skip"):
            raise ConfigError(f"data.on_bad_record must be stop or skip, got {on_bad_record!r}")
        if document_characters is not None and document_characters < 0:
            raise ConfigError(f"data.document_characters must be >= 0 or null, got {document_characters}")
        named: dict[Role, Named] = {
            "corpus": corpus,
            "instructions": instructions,
            "preferences": preferences,
            "labelled": labelled,
        }
        self.files = {role: _paths(names) for role, names in named.items()}
        self.shape = _checked_shapes(shape or {})
        self.validation_fraction = validation_fraction
        self.split_seed = split_seed
        self.on_bad_record = on_bad_record
        self.document_characters = document_characters
        self.require = tuple(_checked_role("require", role) for role in require)
        self._loaded: dict[Role, Loaded[Any]] = {}
        self._digests: dict[Path, str] = {}
        self._check_files()

    def _check_files(self) -> None:
        if not any(self.files.values()) and not self.require:
            raise ConfigError("no file is named; set data.corpus, data.instructions or data.preferences to a file")
        if missing := [f"data.{role}=FILE" for role in self.require if not self.files[role]]:
            raise ConfigError(f"files are missing; give {' '.join(missing)}")
        for role, paths in self.files.items():
            for path in paths:
                kind = reading.suffix(path)
                reading.check_exists(path)
                if kind in reading.TEXT and role != "corpus":
                    raise DataError(
                        f"data.{role}: {path} is plain text, which only data.corpus takes; {role} are records, as "
                        f"{', '.join(k for k in reading.KNOWN if k not in reading.TEXT)}"
                    )

    def has(self, role: Role) -> bool:
        """Whether a file is named for this role."""
        return bool(self.files[role])

    def documents(self, split: Split) -> Sequence[Document]:
        """The corpus."""
        return self._of("corpus", split) if self.has("corpus") else super().documents(split)

    def instructions(self, split: Split) -> Sequence[Example]:
        """Answered instructions; of pairs the chosen answer, of labelled answers the good ones."""
        return self._of("instructions", split) if self.has("instructions") else super().instructions(split)

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        """Preferences; what says nothing (both answers the same) is left out."""
        return self._of("preferences", split) if self.has("preferences") else super().comparisons(split)

    def labelled(self, split: Split) -> Sequence[Labelled]:
        """Answers called good or bad."""
        return self._of("labelled", split) if self.has("labelled") else super().labelled(split)

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Those of the instructions, each once; of the preferences where no instructions are named."""
        if self.has("instructions") or not self.has("preferences"):
            return super().prompts(split)
        return list(dict.fromkeys(c.prompt for c in self.comparisons(split)))

    def content_digest(self) -> str:
        """SHA-256 over the contents of all files, by role and in order; where they lie does not matter."""
        total = hashlib.sha256()
        for role, paths in self.files.items():
            for path in paths:
                if path not in self._digests:
                    self._digests[path] = digest_of_file(path)
                # The suffix decides how the content is read.
                total.update(f"{role}\0{reading.suffix(path)}\0{self._digests[path]}\n".encode())
        return total.hexdigest()

    def notes(self) -> Sequence[str]:
        """What was taken for what, and how much of it, for each role read so far."""
        return [note for loaded in self._loaded.values() for note in loaded.notes]

    def _of(self, role: Role, split: Split) -> Sequence[Any]:
        if role not in self._loaded:
            loader = Loader(
                role,
                self.shape.get(role),
                self.validation_fraction,
                self.split_seed,
                self.on_bad_record == "skip",
                self.document_characters,
            )
            self._loaded[role] = loader.load(self.files[role])
            self._check_unchanged(self.files[role])
        return self._loaded[role].train if split == "train" else self._loaded[role].validation

    def _check_unchanged(self, paths: Sequence[Path]) -> None:
        """A file is read long after its digest went into a fingerprint; in between somebody may have written to it."""
        for path in paths:
            if path in self._digests and digest_of_file(path) != self._digests[path]:
                raise DataError(f"{path} has changed since this run began; start it again, once the file is finished")


def _paths(names: Named) -> tuple[Path, ...]:
    listed = [names] if isinstance(names, str) else list(names or [])
    return tuple(Path(name).expanduser() for name in listed)


def _checked_shapes(asked: Mapping[str, str | None]) -> dict[Role, str]:
    named = {_checked_role("shape", role): name for role, name in asked.items()}
    return {role: formats.named(role, name).name for role, name in named.items() if name is not None}


def _checked_role(key: str, name: str) -> Role:
    for role in get_args(Role):
        if role == name:
            return cast(Role, role)
    raise ConfigError(f"data.{key}: there is no {name!r}; files play the roles {', '.join(get_args(Role))}")
