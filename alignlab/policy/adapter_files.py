"""An adapter's folder: PEFT's two files, and which model they belong to.

`adapter_config.json` and `adapter_model.safetensors` are what PEFT and transformers read. `adapter_base.json` has the
fingerprint of the model that the adapter was trained on: another one would be another policy, without a word.

Left out on purpose: folders that other programs wrote, which do not say what their base was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from alignlab.artifact import ADAPTER_BASE, Artifact, write_json
from alignlab.errors import StoreError
from alignlab.policy.files import SCORE
from alignlab.policy.folder import ADAPTER_CONFIG, CONFIG, read_object, weight_files
from alignlab.policy.lora import check_installed
from alignlab.policy.low_rank import LowRank, pattern
from alignlab.policy.score_head import ScoreHead

_WEIGHTS: Final = "adapter_model.safetensors"
_PREFIX: Final = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_PLAIN: Mapping[str, Sequence[Any]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (None, False),
    "use_rslora": (None, False),
    "lora_bias": (None, False),
}
"""Values of settings with which an adapter is a sum of weights, scaled by alpha / r."""


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter as its folder has it.

    Args:
        base: the model that it belongs to; its fingerprint has been compared.
        changes: by layer.
        head: of a reward model.
    """

    base: Artifact
    changes: Mapping[str, LowRank]
    head: ScoreHead | None


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter that alignlab wrote."""
    return (folder / ADAPTER_BASE).is_file() and not (folder / CONFIG).is_file()


def copy_adapter(folder: Path, to: Path) -> Artifact:
    """Write an adapter into another folder, with its base where that is now; returns the base.

    Raises:
        StoreError: it is damaged, or its base is missing or another model.
    """
    stored = read_adapter(folder)
    write_adapter(to, stored.base, stored.changes, stored.head)
    return stored.base


def base_dtype(folder: Path) -> torch.dtype:
    """The type of the weights that an adapter belongs to.

    Raises:
        StoreError: its base is missing or another model.
    """
    from safetensors import safe_open

    base = _base(folder, read_object(folder / ADAPTER_BASE))
    with safe_open(weight_files(base.path)[0], framework="pt") as stream:
        first: Tensor = stream.get_slice(next(iter(stream.keys())))[:1]
        return first.dtype


# ---- writing ---------------------------------------------------------------------------------------------------------
def write_adapter(folder: Path, base: Artifact, changes: Mapping[str, LowRank], head: ScoreHead | None) -> None:
    """Write an adapter, with a head that scores where there is one.

    Raises:
        StoreError: the weights cannot be written.
    """
    import peft
    import safetensors.torch

    tensors: dict[str, Tensor] = {}
    for layer, change in changes.items():
        tensors |= {f"{_PREFIX}{layer}{_A}": change.a, f"{_PREFIX}{layer}{_B}": change.b}
    if head is not None:
        tensors[f"{_PREFIX}{SCORE}"] = head.weight
    config = peft.LoraConfig(
        **pattern({layer: (change.r, change.alpha) for layer, change in changes.items()}),
        base_model_name_or_path=str(base.path.resolve()),
        task_type="CAUSAL_LM" if head is None else "SEQ_CLS",
        modules_to_save=None if head is None else [SCORE.partition(".")[0]],
        inference_mode=True,
    )
    settings: dict[str, Any] = config.to_dict()  # type: ignore[no-untyped-call]
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in settings.items()}
    attributes = None if head is None else list(head.attributes)
    try:
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        safetensors.torch.save_file(stored, folder / _WEIGHTS, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        raise StoreError(f"{folder} cannot be written: {error}; what is finished is kept") from error
    write_json(folder / ADAPTER_CONFIG, plain)
    said = {"fingerprint": base.fingerprint, "path": str(base.path.resolve()), "attributes": attributes}
    write_json(folder / ADAPTER_BASE, said)


# ---- reading ---------------------------------------------------------------------------------------------------------
def read_adapter(folder: Path, dtype: torch.dtype | None = None) -> StoredAdapter:
    """Read an adapter, and find the model that it belongs to.

    Args:
        folder: the adapter's.
        dtype: of its weights; None is as they are stored.

    Raises:
        StoreError: it is damaged or not plain LoRA, or its base is missing or another model.
    """
    check_installed(str(folder))
    said, config = read_object(folder / ADAPTER_BASE), read_object(folder / ADAPTER_CONFIG)
    for name, plain in _PLAIN.items():
        if config.get(name) not in plain:
            raise StoreError(f"{folder / ADAPTER_CONFIG}: {name} is {config.get(name)!r}; only plain LoRA is read")
    tensors = {k: v.to(dtype or v.dtype) for k, v in _tensors(folder / _WEIGHTS).items()}
    score = tensors.pop(f"{_PREFIX}{SCORE}", None)
    return StoredAdapter(_base(folder, said), _changes(folder, tensors, config), _head(folder, score, said))


def _tensors(file: Path) -> dict[str, Tensor]:
    import safetensors.torch

    try:
        return dict(safetensors.torch.load_file(file))
    except (safetensors.SafetensorError, OSError) as error:
        raise StoreError(f"{file} is missing or damaged: {error}; copy it again") from error


def _base(folder: Path, said: Mapping[str, Any]) -> Artifact:
    """The model of an adapter: where it was when the adapter was written, or next to the adapter in its store."""
    key, path = str(said.get("fingerprint")), Path(str(said.get("path")))
    places = [path, *(above / key[:32] for above in folder.resolve().parents[:3])]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise StoreError(f"{folder} is an adapter, and the model that it belongs to is missing: {path}; put it there")
    base = Artifact.open(found)
    if base.fingerprint != key:
        raise StoreError(
            f"{folder} is an adapter of the model with the fingerprint {key[:12]}, and {found} has "
            f"{base.fingerprint[:12]}: it has changed since; put the old one there, or train the adapter again"
        )
    if is_adapter(base.path):
        raise StoreError(f"{folder} is an adapter of {base.path}, which is an adapter itself; it needs a whole model")
    return base


def _changes(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, LowRank]:
    layers = sorted({name.removeprefix(_PREFIX).removesuffix(_A).removesuffix(_B) for name in tensors})
    wanted = {f"{_PREFIX}{layer}{end}" for layer in layers for end in (_A, _B)}
    if not layers or tensors.keys() != wanted:
        odd = sorted(wanted ^ tensors.keys())
        raise StoreError(f"{folder / _WEIGHTS} does not hold the pairs of an adapter ({', '.join(odd[:3]) or 'empty'})")
    scales = config.get("alpha_pattern") or {}
    alphas: dict[str, Any] = {layer: scales.get(layer, config.get("lora_alpha")) for layer in layers}
    if odd_alpha := [layer for layer, a in alphas.items() if not isinstance(a, int | float) or not a > 0]:
        raise StoreError(
            f"{folder / ADAPTER_CONFIG}: the scale of {odd_alpha[0]} must be above 0, got {alphas[odd_alpha[0]]!r} "
            f"(lora_alpha, alpha_pattern); copy the folder again"
        )
    return {
        layer: LowRank(
            tensors[f"{_PREFIX}{layer}{_A}"],
            tensors[f"{_PREFIX}{layer}{_B}"],
            float(alphas[layer]),
        )
        for layer in layers
    }


def _head(folder: Path, weight: Tensor | None, said: Mapping[str, Any]) -> ScoreHead | None:
    names = said.get("attributes")
    if weight is None and names is None:
        return None
    if weight is None or weight.ndim != 2 or not isinstance(names, list) or len(names) != len(weight):
        raise StoreError(f"{folder}: {ADAPTER_BASE} names the attributes {names}, and {_WEIGHTS} has other heads")
    return ScoreHead(weight, [str(name) for name in names])


def check_fits(folder: Path, changes: Mapping[str, LowRank], model: torch.nn.Module) -> None:
    """Refuse an adapter whose layers the model does not have, or has in another size.

    Raises:
        StoreError: names the first one.
    """
    modules = dict(model.named_modules())
    for layer, change in changes.items():
        weight = getattr(modules.get(layer), "weight", None)
        shape = None if weight is None else tuple(weight.shape)
        sizes = (change.b.shape[0], change.a.shape[-1])
        ranks = {change.a.shape[0], change.b.shape[-1]}
        if shape not in (sizes, sizes[::-1]) or len(ranks) > 1:  # some layers store their weight transposed
            raise StoreError(
                f"{folder}: the adapter of {layer} is {tuple(change.b.shape)} x {tuple(change.a.shape)}, and the "
                f"layer of its base is {shape}; copy the folder again"
            )
