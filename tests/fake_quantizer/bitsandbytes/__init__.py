"""A stand-in for the parts of bitsandbytes that 4-bit bases use: codes of NF4 and a scale per 64 weights, on the CPU.

As in bitsandbytes, a weight is rounded in place when it is moved: it is then a column of codes with a
`quant_state`, and a layer's state has further entries below the name of its weight.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch import nn as torch_nn

_BELOW = (-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0)
_ABOVE = (0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0)
LEVELS = torch.tensor([*_BELOW, *_ABOVE])
BLOCK = 64
ROUNDED: list[tuple[int, ...]] = []
"""Shapes of the weights that were rounded."""


class Params4bit(torch_nn.Parameter):
    quant_state: Any

    def __new__(cls, data: Tensor, requires_grad: bool = False, module: Any = None, **settings: Any) -> "Params4bit":
        made = torch.Tensor._make_subclass(cls, data, requires_grad)
        assert settings == {"compress_statistics": settings["compress_statistics"], "quant_type": "nf4"}
        made.quant_state, made.module = None, module
        return made

    def to(self, *arguments: Any, **named: Any) -> "Params4bit":
        if self.quant_state is None:
            self._round()
        return self

    def _round(self) -> None:
        ROUNDED.append(tuple(self.shape))
        flat = self.data.float().flatten()
        padded = torch.cat([flat, flat.new_zeros(-len(flat) % BLOCK)]).view(-1, BLOCK)
        scale = padded.abs().amax(1, keepdim=True).clamp_min(1e-12)
        codes = ((padded / scale)[..., None] - LEVELS).abs().argmin(-1)
        self.quant_state = SimpleNamespace(shape=self.shape, dtype=self.dtype, scale=scale)
        self.data = codes.to(torch.uint8).view(-1, 1)
        self.module.quant_state = self.quant_state


def _whole(codes: Tensor, state: Any) -> Tensor:
    flat = (LEVELS[codes.view(-1, BLOCK).long()] * state.scale).flatten()
    return flat[: state.shape.numel()].view(state.shape).to(state.dtype)


class Linear4bit(torch_nn.Linear):
    def __init__(
        self, inputs: int, outputs: int, bias: bool, *, compress_statistics: bool, quant_type: str, device: str
    ) -> None:
        super().__init__(inputs, outputs, bias, device=device)
        self.quant_state: Any = None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight.absmax"] = self.weight.quant_state.scale

    def forward(self, x: Tensor) -> Tensor:
        assert self.weight.dtype == torch.uint8, f"codes are {self.weight.dtype}: they were converted"
        return torch_nn.functional.linear(x, _whole(self.weight.data, self.weight.quant_state).to(x.dtype), self.bias)


class AdamW8bit(torch.optim.AdamW):
    """Its moments are in full precision; what it was given is that of bitsandbytes."""

    def __init__(self, params: Any, *, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, betas=betas, eps=eps)


optim = SimpleNamespace(AdamW8bit=AdamW8bit)
nn = SimpleNamespace(Linear4bit=Linear4bit, Params4bit=Params4bit)
functional = SimpleNamespace(dequantize_4bit=_whole)
