"""Files of tensors that tell whether they are whole: torch's own format, followed by a SHA-256 and a few numbers.

Digest and content are one file, so that no kill can part them. `torch.load` reads such a file as any other.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import torch

_SEAL: Final = 512
"""Bytes behind the content."""
_MARK: Final = "alignlab seal "
_PORTION: Final = 1 << 20
_END, _END_SIZE = b"PK\5\6", 22
"""Mark and bytes of the last record of a zip file, which torch's format is."""


class _Hashed:
    """A stream that hashes what it writes, and keeps its error: torch reports another one in its place."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        if self.error is None:
            try:
                self._stream.write(data)
            except OSError as error:
                self.error = error
        self.digest.update(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing: the file is brought to the disk at its end."""


def write(content: Mapping[str, Any], file: Path, notes: Mapping[str, int]) -> None:
    """Write tensors, with notes, and bring them to the disk; where that fails, nothing is left of the file.

    Raises:
        OSError: it could not be written; the disk is full.
    """
    try:
        with file.open("wb") as stream:
            hashed = _Hashed(stream)
            try:
                torch.save(content, hashed)  # type: ignore[arg-type]  # it asks for no more than `write` and `flush`
            finally:
                if hashed.error is not None:
                    raise hashed.error
            stream.write(_seal(hashed, notes))
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def notes_of(file: Path) -> dict[str, int]:
    """The notes of a file; empty where it has no seal."""
    try:
        return {k: int(v) for k, v in _read_seal(file)["notes"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def damage(file: Path) -> str:
    """Damage of a file, as the end of a sentence; empty where it is as it was written."""
    if not file.is_file():
        return "is missing"
    if not (size := file.stat().st_size):
        return "is empty"
    try:
        seal = _read_seal(file)
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            left = size - _SEAL
            while left > 0 and (portion := stream.read(min(left, _PORTION))):
                digest.update(portion)
                left -= len(portion)
        digest.update(_plain(seal["notes"]))
    except (ValueError, LookupError, TypeError):
        return "has no digest: an older alignlab wrote it" if _is_closed(file) else "is cut short"
    return "" if digest.hexdigest() == seal["sha256"] else "has changed since it was written"


def _is_closed(file: Path) -> bool:
    """Whether a file ends as torch's do, so that nothing is missing but the seal."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _END_SIZE))
        return stream.read(len(_END)) == _END


def _seal(hashed: _Hashed, notes: Mapping[str, int]) -> bytes:
    hashed.digest.update(_plain(notes))
    text = _MARK + json.dumps({"sha256": hashed.digest.hexdigest(), "notes": dict(notes)})
    return text.encode().ljust(_SEAL - 1) + b"\n"


def _read_seal(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - _SEAL))
        text = stream.read(_SEAL).decode()
    if not text.startswith(_MARK):
        raise ValueError("no seal")
    return dict(json.loads(text.removeprefix(_MARK)))


def _plain(notes: Mapping[str, int]) -> bytes:
    return json.dumps(notes, sort_keys=True).encode()
