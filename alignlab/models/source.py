"""Where an imported model lies, and what identifies it: the commit of the hub, or the content of its files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from alignlab.artifact import MANIFEST, METRICS
from alignlab.digests import remembered_digest
from alignlab.errors import StoreError
from alignlab.models import hub
from alignlab.models.request import Imported
from alignlab.policy.folder import CONFIG, weight_files

_SMALL: Final = (".json", ".jinja", ".txt", ".model", ".tiktoken")
"""Files next to the weights that may belong to a model: its configuration and its tokenizer."""


@dataclass(frozen=True)
class Source:
    """The place of a model.

    Args:
        request: the model that is asked for.
        memory: where digests of large files are noted; None does not look.
    """

    request: Imported
    memory: Path | None = None

    @property
    def is_folder(self) -> bool:
        """Whether a folder was given, not a name on the hub."""
        return self.request.folder.is_dir()

    def digest(self) -> str:
        """Identity of the model: `commit ...` of the hub, or a SHA-256 of the files.

        Raises:
            StoreError: there is no such model, or the hub is out of reach.
        """
        return self._folder_digest() if self.is_folder else f"commit {self._commit}"

    def fetch(self) -> Path:
        """The folder of the model, downloaded if need be.

        Raises:
            StoreError: the hub is out of reach.
        """
        if self.is_folder:
            return self.request.folder
        name = self.request.name_or_path
        return hub.cached(name, self._commit) or hub.download(name, self._commit)

    @cached_property
    def _commit(self) -> str:
        name, revision = self.request.name_or_path, self.request.revision
        if not hub.NAME.fullmatch(name):
            raise StoreError(
                f"{name}: no such folder; name_or_path is a folder in Hugging Face layout, or a name on the hub, such "
                f"as Qwen/Qwen2.5-0.5B-Instruct"
            )
        snapshot = hub.cached(name, revision)
        return snapshot.name if snapshot is not None else hub.commit_of(name, revision)

    def _folder_digest(self) -> str:
        folder, total = self.request.folder, hashlib.sha256()
        for file in sorted([*small_files(folder), *weight_files(folder)]):
            total.update(f"{file.name}\0{remembered_digest(file, self.memory)}\n".encode())
        return f"files {total.hexdigest()}"


def small_files(folder: Path) -> Sequence[Path]:
    """A model's files besides its weights.

    Raises:
        StoreError: the folder holds no model.
    """
    if not (folder / CONFIG).is_file():
        raise StoreError(f"{folder} holds no model ({CONFIG} is missing); give the folder of one, or a name on the hub")
    own = (MANIFEST, METRICS)  # of an artifact
    return sorted(f for f in folder.iterdir() if f.is_file() and f.suffix in _SMALL and f.name not in own)
