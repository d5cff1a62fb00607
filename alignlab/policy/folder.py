"""The files of a model's folder, checked before a library reads them: a folder may come from anywhere.

What is refused here would otherwise be read silently (a shard outside the folder, an adapter in place of its model), or
keep the machine busy for minutes (a configuration of ten million layers).
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from alignlab.errors import StoreError

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"

Shapes: TypeAlias = dict[str, tuple[int, ...]]
"""Name and shape of each tensor in a folder's weights."""

_LFS = b"version https://git-lfs"
_LARGEST_JSON = 2**26
_MOST_PARTS = 1000
"""Layers or experts that a configuration may have with fewer tensors than that: some architectures share weights."""
_PARTS = re.compile(r"(?!max_)(\w+_)?(layers?|experts?|depth)|(n|num)_blocks")
"""Names of a number of layers or experts; architectures have a dozen of them."""
_EACH = re.compile(r"\w+_(types?|pattern)")
"""Names of what has an entry for each layer, or how often an entry is repeated (GPT-Neo's `attention_types`)."""


def check_folder(folder: Path) -> Shapes:
    """Refuse a folder that holds no model, or not the one that it describes; returns the tensors of its weights.

    Raises:
        StoreError: the message says what is wrong, and what to do.
    """
    _check_adapter(folder)
    if not (folder / CONFIG).is_file():
        raise StoreError(f"{folder} holds no model ({CONFIG} is missing); give a stage that trains, or its folder")
    config = read_object(folder / CONFIG)
    _check_stop_tokens(folder / CONFIG, config)
    if (folder / GENERATION_CONFIG).is_file():  # transformers takes a broken one for a missing one
        _check_stop_tokens(folder / GENERATION_CONFIG, read_object(folder / GENERATION_CONFIG))
    _check_full_precision(folder, config)
    _check_own_code(folder, config)
    shapes = shapes_of(folder)
    _check_size(folder, config, len(shapes))
    return shapes


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        StoreError: it is too large, too deep, or not a JSON object.
    """
    if (size := file.stat().st_size) > _LARGEST_JSON:
        raise StoreError(f"{file} has {size} bytes; more than {_LARGEST_JSON} are not read")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise StoreError(f"{file} cannot be read: {why}; copy the folder again") from error
    if not isinstance(found, dict):
        raise StoreError(f"{file} must hold a JSON object, found {type(found).__name__}; copy the folder again")
    return found


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights, by name.

    Raises:
        StoreError: there are none, one is missing, or one is outside the folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / WEIGHTS_INDEX).is_file():
        raise StoreError(
            f"{folder} holds no safetensors weights ({WEIGHTS} or {WEIGHTS_INDEX}); pickled weights are not read, "
            f"since they can run code: load them elsewhere, and save them with save_pretrained"
        )
    names = read_object(folder / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise StoreError(f"{folder / WEIGHTS_INDEX} has no weight_map; copy the folder again")
    return [_shard(folder, name) for name in sorted({str(n) for n in names.values()})]


def _shard(folder: Path, name: str) -> Path:
    if Path(name).name != name or name in ("", "..") or "\\" in name:
        raise StoreError(f"{folder / WEIGHTS_INDEX} names {name!r}, which is not a file of its own folder; not read")
    if not (folder / name).is_file():
        raise StoreError(f"{folder / WEIGHTS_INDEX} names {name}, which is missing; copy the folder again")
    return folder / name


def shapes_of(folder: Path) -> Shapes:
    """Name and shape of each tensor in a folder's weights, by the headers of its files.

    Raises:
        StoreError: a file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    found: Shapes = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as stream:
                found |= {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise StoreError(_unreadable(file, error)) from error
    return found


def _unreadable(file: Path, error: Exception) -> str:
    with file.open("rb") as stream:
        if stream.read(len(_LFS)) == _LFS:
            return f"{file} is a Git LFS pointer in place of the weights; run `git lfs pull` where it was cloned"
    return f"{file} is damaged: {error}; copy it again"


# ---- folders that cannot be used -------------------------------------------------------------------------------------
def _check_stop_tokens(file: Path, config: Mapping[str, Any]) -> None:
    given = config.get("eos_token_id")
    ids = given if isinstance(given, list) else [] if given is None else [given]
    if bad := [i for i in ids if not isinstance(i, int) or isinstance(i, bool) or i < 0]:
        raise StoreError(f"{file}: eos_token_id holds {bad[0]!r:.60}, which is not a token id; correct it")


def _check_adapter(folder: Path) -> None:
    if not (folder / ADAPTER_CONFIG).is_file():
        return
    what = "an adapter next to a model" if (folder / CONFIG).is_file() else "an adapter without its base model"
    raise StoreError(
        f"{folder} holds {what} ({ADAPTER_CONFIG}), so which weights are meant is unclear; merge them (PEFT: "
        f"model.merge_and_unload().save_pretrained(...)) and give the merged model's folder, or remove {ADAPTER_CONFIG}"
    )


def _check_full_precision(folder: Path, config: Mapping[str, Any]) -> None:
    for name, value in _items(config):
        if name in ("quantization_config", "compression_config") and value:
            method = value.get("quant_method", "unknown method") if isinstance(value, dict) else value
            raise StoreError(
                f"{folder} holds quantised weights ({method}), which cannot be trained; give the model in float32, "
                f"float16 or bfloat16 (model.dequantize().save_pretrained(...))"
            )


def _check_own_code(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse kernels by the name of a repository: transformers would download and run them."""
    for name, value in _items(config):
        if name.lstrip("_").startswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
            raise StoreError(
                f"{folder / CONFIG}: {name} is {value!r:.80}, code from a repository, which is never run; remove it"
            )


def _check_size(folder: Path, config: Mapping[str, Any], tensors: int) -> None:
    for name, value in _items(config):
        if (count := _count(name, value)) > max(_MOST_PARTS, tensors):
            told = f"{name} is {count}" if isinstance(value, int) else f"{name} describes {count} layers"
            raise StoreError(f"{folder / CONFIG}: {told}, but its weights are {tensors} tensors; correct it")


def _count(name: str, value: Any) -> int:
    """How many layers or experts a setting asks for; 0 where it is about something else."""
    if isinstance(value, int):
        return value if _PARTS.fullmatch(name) else 0
    if not isinstance(value, (str, list)) or not _EACH.fullmatch(name):
        return 0
    repeated = [n for entry in value if isinstance(entry, list) for n in entry if isinstance(n, int)]
    return max([len(value), *repeated])


def _items(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All keys with their values, those of nested configurations included."""
    for name, value in config.items():
        yield name, value
        if isinstance(value, dict):
            yield from _items(value)
