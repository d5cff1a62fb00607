"""Earlier artifacts of a store: how long a stage took, and in what it differs from the last one that was made.

A manifest has the identity that was part of the fingerprint (`identity_of`), so that two can be compared key by key.
Manifests from before that was recorded are compared by their configuration.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Final

from alignlab.artifact import MANIFEST
from alignlab.config.locate import public_path
from alignlab.pipeline.plan import Step, trains
from alignlab.pipeline.store import Store
from alignlab.sanitize import redact

ABSENT: Final = "(not set)"
LATEST: Final = 20
"""Earlier artifacts that are looked at."""


@dataclass(frozen=True)
class Change:
    """One reason why a stage is not the one that was made before.

    Args:
        what: `pipeline.dpo.objective.beta`, or a sentence where there are no values.
        old: value of the earlier artifact.
        new: value now.
    """

    what: str
    old: Any = None
    new: Any = None

    def __str__(self) -> str:
        return self.what if self.old is None and self.new is None else f"{self.what}: {_short(self.old)} -> {self.new}"


def identity_of(step: Step, precision: str) -> dict[str, Any]:
    """Part of a fingerprint that a user configures, without secrets."""
    found: dict[str, Any] = redact(step.spec.identity(step.builder))
    return {**found, "precision": precision} if trains(step.spec.cls) else found


@dataclass(frozen=True)
class History:
    """The manifests of a store, the latest first.

    Args:
        root: folder of the store.
    """

    root: Path

    def changes(self, step: Step, precision: str) -> list[Change]:
        """In what a stage differs from the nearest of the latest of its class; nothing where there was none.

        Those of the same name come first. Of equally near ones the latest counts.
        """
        found = list(self._of_class(step))
        named = [m for m in found if m.get("name") == step.name] or found
        compared = [list(_changes(before, step, precision)) for before in named[:LATEST]]
        return min(compared, key=len, default=[])

    def seconds(self, step: Step) -> float | None:
        """Expected time of a stage: the median of the latest of its class, in proportion to their steps."""
        found = [(m, float(m["seconds"])) for m in self._of_class(step) if _is_number(m.get("seconds"))]
        named = [pair for pair in found if pair[0].get("name") == step.name] or found
        if not named:
            return None
        loop = step.spec.redacted().get("loop")
        return median(seconds * _ratio(loop, m) for m, seconds in named[:LATEST])

    def _of_class(self, step: Step) -> Iterator[Mapping[str, Any]]:
        same = self._by_class.get(public_path(step.spec.cls), [])
        yield from sorted(same, key=lambda m: m.get("name") != step.name)

    @cached_property
    def _by_class(self) -> dict[str, list[Mapping[str, Any]]]:
        found: dict[str, list[Mapping[str, Any]]] = {}
        for manifest in sorted(self._manifests(), key=lambda m: str(m.get("created", "")), reverse=True):
            found.setdefault(str(manifest.get("stage", "")), []).append(manifest)
        return found

    def _manifests(self) -> Iterator[Mapping[str, Any]]:
        for file in (self.root / "objects").glob(f"[!.]*/{MANIFEST}"):
            with contextlib.suppress(OSError, ValueError, RecursionError):  # damaged: the run will say so
                content = json.loads(file.read_text(encoding="utf-8"))
                if isinstance(content, dict):
                    yield content


def _changes(before: Mapping[str, Any], step: Step, precision: str) -> Iterator[Change]:
    if "identity" in before:
        yield from _differing(before["identity"], identity_of(step, precision), step.spec.path)
    else:
        yield from _differing(before.get("config"), step.spec.redacted(), step.spec.path)
    yield from _inputs(before, step)
    yield from _code(before, step)


def _differing(old: Any, new: Any, path: str) -> Iterator[Change]:
    """The keys that differ; of an object of another class, the class alone."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        if old != new:
            yield Change(path, ABSENT if old is None else old, "null" if new is None else new)
        return
    name = next((key for key in ("class", "_target_") if old.get(key) != new.get(key)), None)
    if name:
        yield Change(path, old.get(name), new.get(name))
        return
    for key in dict.fromkeys([*new, *old]):
        if key == "content" and old.get(key) != new.get(key):
            yield Change(f"the data of {path} changed")
        elif key == "VERSION" and old.get(key) != new.get(key):
            yield Change(f"VERSION of {path}", old.get(key), new.get(key))
        elif key not in old or key not in new or old[key] != new[key]:
            yield from _differing(old.get(key), new.get(key), f"{path}.{key}")


def _inputs(before: Mapping[str, Any], step: Step) -> Iterator[Change]:
    old = before.get("inputs") or {}
    for name in (name for name in step.inputs if name not in old):
        yield Change(f"it has a further input, {_input(name, step)}")
    both = [(name, key) for name, key in step.input_fingerprints.items() if name in old]
    if changed := [_input(name, step) for name, key in both if old[name].get("fingerprint") != key]:
        yield Change(f"its input{'s' if len(changed) > 1 else ''} {', '.join(changed)} changed")
    for name in old.keys() - step.inputs.keys():
        yield Change(f"it has no input {name} any more")


def _input(name: str, step: Step) -> str:
    source = step.inputs[name]
    return name if name == source else f"{name} ({source})"


def _code(before: Mapping[str, Any], step: Step) -> Iterator[Change]:
    old = before.get("code") or {}
    for path, digest in step.code.items():
        if old.get(path, digest) != digest:
            yield Change(f"the code of {path} has changed since it last ran")


def _ratio(loop: Any, manifest: Mapping[str, Any]) -> float:
    """How many times as much is trained on now; 1 where that is not known."""
    before = (manifest.get("config") or {}).get("loop")
    now, then = _visited(loop), _visited(before)
    return now / then if now and then else 1.0


def _visited(loop: Any) -> float:
    if not isinstance(loop, Mapping) or not _is_number(loop.get("steps")):
        return 0.0
    return float(loop["steps"]) * float(loop["batch_size"] if _is_number(loop.get("batch_size")) else 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def changed_code(step: Step, store: Store) -> list[str]:
    """Public paths of the classes whose code differs from that of the last run of the same recipe."""
    before = {} if store.has(step.fingerprint) else store.code_of(step.recipe)
    return [path for path, digest in step.code.items() if before.get(path, digest) != digest]
