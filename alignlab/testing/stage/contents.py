"""Contents of the files that a stage has published, without what measures the machine."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import load_file

from alignlab.artifact import files_of

Contents: TypeAlias = Mapping[str, Any]
"""Tensors, JSON or bytes of each file, by its name."""
_VOLATILE = ("seconds", "tokens_per_second", "peak_memory_mb")
"""Metrics that measure the machine, not the model."""


def read_contents(folder: Path) -> Contents:
    """Contents of all files of an artifact."""
    return {name: _content(folder / name) for name in files_of(folder)}


def same(one: Any, other: Any) -> bool:
    """Whether two files of one name hold the same."""
    if isinstance(one, dict) and any(isinstance(value, torch.Tensor) for value in one.values()):
        return bool(one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one))
    return bool(one == other)


def steady(value: Any) -> Any:
    """A mapping without what measures the machine."""
    if isinstance(value, Mapping):
        return {k: steady(v) for k, v in value.items() if not str(k).endswith(_VOLATILE)}
    return value


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    raw = path.read_bytes()
    if path.suffix not in (".json", ".jsonl"):
        return raw
    lines = [raw] if path.suffix == ".json" else raw.splitlines()
    return [steady(json.loads(line)) for line in lines]
