"""Artifact: the folder that a stage leaves behind.

It holds `manifest.json` (what made it, and a SHA-256 of every file), `metrics.json`, and what its kind asks for: a
model in Hugging Face layout, preferences as JSON lines, an evaluation, a report. Nothing in it is pickled, and no
configuration found in it is ever instantiated. The weights of an imported model are links to where they lie.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignlab.digests import digest_of_file, remembered_digest
from alignlab.errors import DataError, StoreError

SCHEMA = 1
"""Layout of artifacts; part of every fingerprint."""

Kind = Literal["policy", "reward_model", "preferences", "rankings", "answers", "evaluation", "report", "other"]

MANIFEST = "manifest.json"
LINKS = "links"
"""Entry of a manifest with an artifact's links to files elsewhere."""
METRICS = "metrics.json"
PREFERENCES = "preferences.jsonl"
RANKINGS = "rankings.jsonl"
ANSWERS = "answers.jsonl"
SAMPLES = "samples.jsonl"
CURVES = "curves.jsonl"
REPORT = "report.html"
ADAPTER_BASE = "adapter_base.json"

_KINDS_BY_FILE: Mapping[str, Kind] = {PREFERENCES: "preferences", RANKINGS: "rankings", ANSWERS: "answers"}
"""Kind of a folder without a manifest, by a file in it."""


@dataclass(frozen=True)
class Artifact:
    """A published folder, read only.

    Args:
        path: the folder.
        kind: what it holds.
        fingerprint: of what it was made from; for a folder that alignlab did not make, a digest of its content.
        manifest: `manifest.json`, or empty for a folder from outside.
    """

    path: Path
    kind: Kind
    fingerprint: str
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> "Artifact":
        """Open a folder: one that a stage published, or a Hugging Face model folder from elsewhere.

        Args:
            verify: check every file against the digest in the manifest.

        Raises:
            StoreError: there is no such folder, it holds no known kind of artifact, or a file is missing or changed.
        """
        if not str(path):
            raise StoreError("an input is empty; give the name of another stage or an existing folder")
        path = Path(path).expanduser()
        if not path.is_dir():
            raise StoreError(
                f"no such folder: {path}; {lost(path) or 'an input is the name of another stage or an existing folder'}"
            )
        if not (path / MANIFEST).is_file():
            return cls(path, _kind_from_content(path), digest_of_folder(path))
        manifest = _manifest(path)
        artifact = cls(path, manifest["kind"], manifest["fingerprint"], manifest)
        if verify:
            artifact.verify()
        return artifact

    def verify(self, since: int = 0) -> None:
        """Check every file against its recorded digest; a link to weights elsewhere, by their size and time first.

        Curves are for the reader alone: a damaged line in them stops nothing, and is left out where they are drawn.

        Args:
            since: time in nanoseconds; what has not changed after it is not read.

        Raises:
            StoreError: a file is missing, was changed or was added.
        """
        files, links = self.manifest.get("files", {}), self.manifest.get(LINKS, {})
        for name, digest in files.items():
            file = self.path / name
            if not file.is_file():
                raise StoreError(f"{file} is missing since it was published; delete {self.path} and run again")
            # Where a plan looks, each of a thousand jobs would read the same weights again.
            read = remembered_digest if since else digest_of_file
            if name != CURVES and file.stat().st_mtime_ns > since and read(file) != digest:
                raise self._not_as_published(file, "has changed since it was published")
        for name, was in links.items():
            _verify_link(self.path / name, was)
        for file in self.path.rglob("*") if files else ():
            name = file.relative_to(self.path).as_posix()
            if name not in {MANIFEST, *files, *links} and file.is_file() and not _is_hidden(name):
                raise self._not_as_published(file, "was added after its folder was published")

    def _not_as_published(self, file: Path, what: str) -> StoreError:
        return StoreError(
            f"{file} {what}; delete {self.path} and run again. To use the folder as it is now, as a model of your own, "
            f"copy it without {MANIFEST}"
        )

    @property
    def trained_on(self) -> list[Mapping[str, Any]]:
        """Configurations of the data that the artifact and its ancestors were trained on, the earliest first."""
        own = (self.manifest.get("config") or {}).get("data")
        before = list(self.manifest.get("trained_on") or [])
        return before if own is None or own in before else [*before, own]

    def metrics(self) -> dict[str, float]:
        """Metrics of the stage."""
        file = self.path / METRICS
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The JSON lines of one of its files; nothing where the file is not there.

        Raises:
            DataError: a line is not a JSON object; the message names file and line.
        """
        file = self.path / name
        if not file.is_file():
            return
        with file.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    row = json.loads(line.decode("utf-8"))
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{file}:{number}: broken JSON ({error})") from error
                if not isinstance(row, dict):
                    raise DataError(f"{file}:{number}: expected a JSON object, found {type(row).__name__}")
                yield row


def _manifest(path: Path) -> dict[str, Any]:
    """The manifest of an artifact.

    Raises:
        StoreError: it is damaged, or it belongs to another kind of folder.
    """
    file = path / MANIFEST
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file} cannot be read ({error}); delete the folder and run again") from error
    if isinstance(found, dict) and "stages" in found:
        raise StoreError(f"{path} is a run's folder, not a stage's; the artifacts are in {path / 'stages'}")
    wanted = {"kind": str, "fingerprint": str}
    known = isinstance(found, dict) and all(isinstance(found.get(k), t) for k, t in wanted.items())
    links = found.get(LINKS, {}) if known else {}
    known = known and isinstance(links, dict) and all(isinstance(link, dict) for link in links.values())
    if not known or not isinstance(found.get("files", {}), dict):
        needs = f"it needs {', '.join(wanted)} and the digests of its files"
        raise StoreError(f"{file} is not an artifact's manifest: {needs}")
    return dict(found)


def _is_hidden(name: str) -> bool:
    """Whether a file belongs to the system or an editor, which loading a model does not read."""
    return any(part.startswith(".") for part in name.split("/"))


def _kind_from_content(path: Path) -> Kind:
    for name, kind in _KINDS_BY_FILE.items():
        if (path / name).is_file():
            return kind
    if (path / "config.json").is_file():
        try:
            architectures = _object(path / "config.json").get("architectures") or [""]
            return "reward_model" if "SequenceClassification" in architectures[0] else "policy"
        except (TypeError, LookupError) as error:
            raise StoreError(f"{path / 'config.json'} cannot be read ({error})") from error
    if (path / ADAPTER_BASE).is_file():
        return "policy" if _object(path / ADAPTER_BASE).get("attributes") is None else "reward_model"
    if (path / "adapter_config.json").is_file():
        raise StoreError(
            f"{path} holds an adapter without its base model; merge them (PEFT: "
            f"model.merge_and_unload().save_pretrained(...)) and give the merged model's folder"
        )
    raise StoreError(f"{path} holds neither {MANIFEST} nor a model's config.json nor {' nor '.join(_KINDS_BY_FILE)}")


def _verify_link(file: Path, was: Mapping[str, Any]) -> None:
    """Check that a linked file is the one that was linked to: of the same size and time, or else the same content."""
    if not file.is_file():
        raise StoreError(
            f"{file} is a link to {was.get('target')}, which is gone; put it back (of the hub's cache: download it "
            f"again), or delete {file.parent} and run again"
        )
    now = file.stat()
    if (now.st_size, now.st_mtime_ns) == (was.get("size"), was.get("mtime_ns")):
        return
    if now.st_size != was.get("size") or remembered_digest(file) != was.get("sha256"):
        raise StoreError(f"{file.resolve()} has changed since it was imported; delete {file.parent} and run again")


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{file} cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise StoreError(f"{file} cannot be read (it holds a {type(found).__name__}, not an object)")
    return found


def lost(path: Path) -> str:
    """The reason why a link to an artifact leads nowhere, with what to do; empty where it is not such a link."""
    if not path.is_symlink() or path.exists():
        return ""
    return (
        f"it is a link to {os.path.abspath(path.parent / os.readlink(path))}, which is not there: a run's folder and "
        f"its store are moved together; put the store there, or move both"
    )


def fingerprint(identity: Any) -> str:
    """SHA-256 of canonical JSON; 64 hexadecimal digits."""
    text = json.dumps({"schema": SCHEMA, "identity": identity}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_folder(path: Path) -> str:
    """SHA-256 of the names and contents of all files below a folder."""
    total = hashlib.sha256()
    for name, digest in files_of(path).items():
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


def files_of(path: Path, linked: bool = True) -> dict[str, str]:
    """Name and SHA-256 of every file below a folder, the manifest left out, in sorted order; with those linked to."""
    files = (f for f in path.rglob("*") if f.is_file() and (linked or not f.is_symlink()))
    names = sorted(f.relative_to(path).as_posix() for f in files)
    return {n: digest_of_file(path / n) for n in names if n != MANIFEST}


def links_of(path: Path) -> dict[str, dict[str, Any]]:
    """Links to files elsewhere, by name: their target, and its size, time and SHA-256."""
    found = sorted(f for f in path.rglob("*") if f.is_symlink() and f.is_file())
    return {f.relative_to(path).as_posix(): _link(f) for f in found}


def _link(file: Path) -> dict[str, Any]:
    now = file.stat()
    return {
        "target": str(file.resolve()),
        "size": now.st_size,
        "mtime_ns": now.st_mtime_ns,
        "sha256": remembered_digest(file),
    }


def write_json(path: Path, content: object) -> None:
    """Write JSON with sorted keys, readable, in one step (a reader never sees half of it)."""
    _write(path, [json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)])


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write JSON lines, in one step."""
    _write(path, (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows))


def _write(path: Path, lines: Iterable[str]) -> None:
    # A name of its own: several processes may write the same file at once.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in lines)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
