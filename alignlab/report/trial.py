"""One run of several that are compared, read from the files of its folder; its artifacts may be gone."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from alignlab.artifact import MANIFEST, METRICS, Artifact
from alignlab.errors import DataError
from alignlab.metrics import Column, Panel, Profile, estimates, read_columns, read_panels

COMPLETED = "completed"


@dataclass(frozen=True)
class Trial:
    """A run.

    Args:
        folder: of the run.
        name: short, for the page.
        status: "completed", or how else it stands.
        experiment: its name.
        seed: as text; empty where it is not recorded.
        created: when, as ISO 8601 text.
        overrides: as typed, by key.
        kinds: what each stage made, in the order of the pipeline.
        parents: for each stage, the one whose policy it started from, or "".
        metrics: by "stage/metric"; those with an interval are estimates.
        columns: what the metrics are, by the same names, where the run still has its stages.
        reads: digests of the code and data of each stage but the report, by what a reader calls them.
        profiles: panels of shares, by policy and title, where the run still has its stages.
    """

    folder: Path
    name: str
    status: str
    experiment: str = ""
    seed: str = ""
    created: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    profiles: Mapping[tuple[str, str], Panel] = field(default_factory=dict)
    reads: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, name: str, status: str) -> "Trial":
        """Read a run's folder; one that has not completed may lack any of its files.

        Raises:
            DataError: a file of a completed run is missing or damaged.
        """
        required = status == COMPLETED
        about = _read(folder / MANIFEST, required)
        metrics = _metrics(folder / METRICS, _read(folder / METRICS, required))
        stages = _ordered({k: v for k, v in _mapping(about.get("stages")).items() if isinstance(v, Mapping)})
        return cls(
            folder, name, status, str(about.get("name") or ""), str(about.get("seed", "")),
            str(about.get("created") or ""), parsed(about.get("overrides") or ()),
            {stage: str(node.get("kind", "")) for stage, node in stages.items()},
            {stage: str(_mapping(node.get("inputs")).get("policy", "")) for stage, node in stages.items()},
            metrics, _columns(folder, stages, metrics), _profiles(folder, stages), _reads(stages),
        )  # fmt: skip

    def value(self, key: str) -> str | None:
        """Value of a key: as typed, else as `config.yaml` has it, else what a stage read; None where it is none."""
        return self.overrides[key] if key in self.overrides else _looked_up(self.config, key) or self.reads.get(key)

    def chooses(self, key: str) -> bool:
        """Whether a key chooses an option of a group (`objective=ipo`) and is not a value itself."""
        return "@" in key or "/" in key or isinstance(_node(self.config, key), Mapping)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its resolved configuration; empty where it left none."""
        import yaml

        file = self.folder / "config.yaml"
        if not file.is_file():
            return {}
        try:
            return _mapping(yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise DataError(f"{file} cannot be read ({error})") from error


def parsed(overrides: Sequence[Any]) -> dict[str, str]:
    """Values by key, as Hydra reads them: the last one of a key counts."""
    found: dict[str, str] = {}
    for text in map(str, overrides):
        key, equals, value = text.lstrip("+").partition("=")
        found[key.lstrip("~")] = plain(value) if equals and not key.startswith("~") else "(removed)"
    return found


def plain(value: str) -> str:
    """A value without its quotes; a number in its shortest form, so that 0.10 and 0.1 are one value."""
    text = value.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    number = as_number(text)
    return text if number is None else f"{number:.12g}"


def as_number(text: str) -> float | None:
    """The number that a value is, if it is one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def _looked_up(config: Mapping[str, Any], key: str) -> str | None:
    node = _node(config, key)
    if node is None or isinstance(node, (Mapping, list)):
        return None
    return str(node).lower() if isinstance(node, bool) else plain(str(node))


def _node(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _reads(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Code and data of the stages, which no key shows; the report measures nothing."""
    measured = {name: _mapping(node.get("reads")) for name, node in stages.items() if node.get("kind") != "report"}
    return {f"{what} of {name}": str(digest) for name, reads in measured.items() for what, digest in reads.items()}


def _columns(folder: Path, stages: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, float]) -> dict[str, Column]:
    """Columns of the stages that are still there; an evaluation's are filed as its numbers are, under its policy."""
    found: dict[str, Column] = {}
    for name, node in stages.items():
        owner = _mapping(node.get("inputs")).get("policy") if node.get("kind") == "evaluation" else name
        for column in _declared(folder / "stages" / name):
            first, own = (f"{stage}/{column.metric}" for stage in (owner, name))
            found.setdefault(first if first in metrics and first not in found else own, column)
    return found


def _profiles(folder: Path, stages: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], Panel]:
    """Profiles of the evaluations that are still there, under their policies."""
    found: dict[tuple[str, str], Panel] = {}
    for name, node in stages.items():
        owner = str(_mapping(node.get("inputs")).get("policy") or name)
        for _, panel in read_panels(Artifact(folder / "stages" / name, "other", "")):
            if isinstance(panel.content, Profile):
                found.setdefault((owner, panel.title), panel)
    return found


def _declared(stage: Path) -> list[Column]:
    try:
        by_evaluation = read_columns(Artifact(stage, "other", "")) if stage.is_dir() else {}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"{stage / 'columns.json'} cannot be read ({error})") from error
    return [column for columns in by_evaluation.values() for column in columns]


def _ordered(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """In the order of the pipeline; the file has them by name."""
    return dict(sorted(stages.items(), key=lambda item: item[1].get("order", 0)))


def _metrics(file: Path, node: Mapping[str, Any]) -> dict[str, float]:
    numbers = {k: float(v) for k, v in node.items() if isinstance(v, (int, float)) and math.isfinite(v) and "/" in k}
    try:
        return estimates(numbers, {})
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error


def _read(file: Path, required: bool) -> dict[str, Any]:
    if not required and not file.is_file():
        return {}
    try:
        node = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file} is missing, although the run has completed; leave the run out") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read ({error}); leave the run out") from error
    if not isinstance(node, dict):
        raise DataError(f"{file}: expected a JSON object, found {type(node).__name__}; leave the run out")
    return node


def _mapping(node: Any) -> Mapping[str, Any]:
    return node if isinstance(node, Mapping) else {}
