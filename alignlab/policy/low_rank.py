"""Low-rank adapters in a model, by PEFT: added, filled, read, merged and taken away.

A model has at most two of them: `EARLIER`, which came with it and stays, too, and `OWN`, which is trained. Both are
added to the output of their layers, so that an adapter can be trained on top of another one. They are stored as one:
`B1 A1 + B2 A2` is the product of the matrices side by side.

Axes: r rank, i inputs and o outputs of a layer.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    import transformers

EARLIER: Final = "earlier"
OWN: Final = "own"
_INSIDE = (".base_layer", ".lora_A.", ".lora_B.", ".lora_dropout.")


@dataclass(frozen=True)
class LowRank:
    """The change `alpha / r * B A` of one layer's weight."""

    a: Float[Tensor, "r i"]
    b: Float[Tensor, "o r"]
    alpha: float

    @property
    def r(self) -> int:
        """Rank."""
        return len(self.a)

    def beside(self, other: "LowRank") -> "LowRank":
        """The sum of both changes, as one of both ranks."""
        b = torch.cat([self.b * (self.alpha / self.r), other.b * (other.alpha / other.r)], 1)
        return LowRank(torch.cat([self.a, other.a]), b, float(self.r + other.r))


def has_adapter(model: nn.Module, name: str | None = None) -> bool:
    """Whether a model has an adapter (of this name)."""
    return any(name is None or name in layer.lora_A for _, layer in _adapted(model))


def add(
    model: "transformers.PreTrainedModel",
    name: str,
    shapes: Mapping[str, tuple[int, float]],
    seed: int,
    dropout: float = 0.0,
) -> None:
    """Put a new adapter that changes nothing yet next to those of a model; of all its weights, it alone is trainable.

    Args:
        model: changed in place.
        name: `EARLIER` or `OWN`.
        shapes: rank and alpha of each layer that is adapted, by its full name.
        seed: of the matrices A.
        dropout: of what goes into A.
    """
    import peft

    layers = {found for found, _ in linear_layers(model)}
    assert shapes.keys() <= layers, f"no such layers: {sorted(shapes.keys() - layers)}"
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.simplefilter("ignore")  # on a second adapter, and on layers that store their weight transposed
        peft.inject_adapter_in_model(peft.LoraConfig(lora_dropout=dropout, **pattern(shapes)), model, name)
    for _, layer in _adapted(model):
        layer.set_adapter([EARLIER, OWN])
    model.requires_grad_(False)
    for found, layer in _adapted(model):
        assert (name in layer.lora_A) == (found in shapes), f"{found} is adapted by mistake, or was left out"
        for part in (layer.lora_A, layer.lora_B):
            if name in part:
                # In float32 at least: small steps would be lost in the type of a base in bfloat16.
                part[name].to(torch.promote_types(part[name].weight.dtype, torch.float32)).requires_grad_(True)


def pattern(shapes: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
    """Ranks and scales of layers, as PEFT writes them down: the commonest, and those that differ."""
    (r, alpha), _ = Counter(shapes.values()).most_common(1)[0]
    others = {layer: shape for layer, shape in shapes.items() if shape != (r, alpha)}
    return {
        "r": r,
        "lora_alpha": alpha,
        "target_modules": sorted(shapes),
        "rank_pattern": {layer: rank for layer, (rank, _) in others.items()},
        "alpha_pattern": {layer: scale for layer, (_, scale) in others.items()},
    }


@torch.no_grad()
def fill(model: nn.Module, name: str, changes: Mapping[str, LowRank]) -> None:
    """Give an adapter its weights."""
    for found, layer in _adapted(model):
        if name in layer.lora_A:
            layer.lora_A[name].weight.copy_(changes[found].a)
            layer.lora_B[name].weight.copy_(changes[found].b)


def changes(model: nn.Module) -> dict[str, LowRank]:
    """The change of each adapted layer of a model, by its name: of both adapters where it has two."""
    found: dict[str, LowRank] = {}
    for name, layer in _adapted(model):
        parts = _changes(layer)
        found[name] = parts[0] if len(parts) == 1 else parts[0].beside(parts[1])
    return found


def _changes(layer: Any) -> list[LowRank]:
    """The change that each adapter of a layer makes."""
    return [
        LowRank(layer.lora_A[k].weight.detach(), layer.lora_B[k].weight.detach(), layer.lora_alpha[k])
        for k in (EARLIER, OWN)
        if k in layer.lora_A
    ]


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add the adapters of a model to its weights, which become trainable, in place; computed in float32 at least."""
    for name, layer in list(_adapted(model)):
        base = layer.get_base_layer()
        base.weight.copy_(_merged(layer))
        model.set_submodule(name, base)
    model.requires_grad_(True)


@torch.no_grad()
def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of a model by the names that they have without adapters, with these added, one after the other."""
    layers = dict(_adapted(model))
    for name, weight in model.named_parameters():
        owner, _, own = name.rpartition(".base_layer.")
        if owner in layers:
            whole = unrounded(weight)
            yield f"{owner}.{own}", _merged(layers[owner]).to(whole.dtype) if own == "weight" else whole
        elif not any(part in name for part in _INSIDE):
            yield name, unrounded(weight)


def unrounded(weight: Tensor) -> Tensor:
    """A weight as it counts: one that is held in 4 bits has codes in its place."""
    if (state := getattr(weight, "quant_state", None)) is None:
        return weight.detach()
    import bitsandbytes

    whole: Tensor = bitsandbytes.functional.dequantize_4bit(weight.data, state)
    return whole


def _merged(layer: Any) -> Tensor:
    """The weight of a layer with its adapters."""
    base = layer.get_base_layer()
    weight = unrounded(base.weight)
    total = weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)
    for change in _changes(layer):
        delta = (change.alpha / change.r) * (change.b.to(total.dtype) @ change.a.to(total.dtype))
        total += delta.T if layer.fan_in_fan_out else delta
    return total


def drop(model: nn.Module, name: str) -> None:
    """Take an adapter away from a model, in place."""
    for found, layer in list(_adapted(model)):
        if name in layer.lora_A:
            layer.delete_adapter(name)
            layer.set_adapter([EARLIER, OWN])
        if not layer.lora_A:
            model.set_submodule(found, layer.get_base_layer())
    model.requires_grad_(False)


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Layers with an adapter, with their names; of a model without one, PEFT is not imported."""
    kind = getattr(sys.modules.get("peft.tuners.lora"), "LoraLayer", None)
    return ((n, m) for n, m in model.named_modules() if kind is not None and isinstance(m, kind))


def linear_layers(model: "transformers.PreTrainedModel") -> Sequence[tuple[str, nn.Module]]:
    """Linear layers, adapted or not, with their names."""
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Linear, Conv1D)
    outer = ((n, m) for n, m in model.named_modules() if not any(part in f"{n}." for part in _INSIDE))
    return [(n, m) for n, m in outer if isinstance(m, kinds) or isinstance(getattr(m, "base_layer", None), kinds)]
