"""How a difference is told: comparisons that say whose rule was broken, and by how much."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alignlab.objective import Objective
from alignlab.testing.cases import Case
from alignlab.testing.step import Outcome, run


def same_step(owner: str, found: Outcome, expected: Outcome, what: str) -> None:
    """Two steps have the same loss and gradients, up to rounding."""
    close(owner, found.loss, expected.loss, f"the loss {what}")
    for name, gradient in expected.gradient.items():
        close(owner, found.gradient[name], gradient, f"the gradient of {name} {what}")


def close(owner: str, found: Tensor, expected: Tensor, what: str, tolerance: float = 1e-9) -> None:
    """Largest difference within `tolerance` of the largest expected value, or of 1."""
    scale = float(expected.detach().abs().max().clamp_min(1.0)) if expected.numel() else 1.0
    far = float((found - expected).detach().abs().max()) if expected.numel() else 0.0
    assert far <= tolerance * scale, f"{owner}: {what} is {far:.3g} off (at a scale of {scale:.3g})"


def same_bits(owner: str, found: Tensor, expected: Tensor, what: str) -> None:
    """Equal, to the bit."""
    assert torch.equal(found, expected), f"{owner}: {what}: not the same bits"


def is_free(objective: Objective[Any], case: Case, what: str, gradients: list[str]) -> None:
    """No NaN, no gradient of the named statistics, and no loss where there are no units."""
    owner, case = type(objective).__name__, case.fresh()
    found = run(objective, case)
    units = torch.stack(list(found.units.values()))
    assert torch.isfinite(found.loss), f"{owner}: the loss of {what} is {float(found.loss)}"
    assert units.any() or found.loss == 0, f"{owner}: the loss of {what} is {float(found.loss)}, not 0"
    if what != "a wholly masked batch":
        assert not units.any(), f"{owner}: {what} has units {dict(found.units)}, not 0"
    for name in gradients:
        gradient = found.gradient[name]
        assert not gradient.any(), f"{owner}: {what} has a gradient of {name}, up to {float(gradient.abs().max())}"
    for name, metric in found.metrics.items():
        assert torch.isfinite(metric), f"{owner}: metric {name} of {what} is {float(metric)}"


class Downcasts(TorchDispatchMode):
    """Writes down every operation that turns floating-point numbers into ones of fewer bits."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        cast = func is torch.ops.aten._to_copy.default and out.is_floating_point() and args[0].is_floating_point()
        if cast and out.element_size() < args[0].element_size():
            self.seen.add(f"{args[0].dtype} to {out.dtype}")
        return out
