"""Backwards by hand: outside autocast, and differentiable once.

PyTorch's own `once_differentiable` refuses a second derivative only where the upstream gradient requires one. A
gradient of inputs that train depends on them whatever the upstream is, and would pass for a constant.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeAlias

import torch
from torch import Tensor

Gradients: TypeAlias = tuple[Tensor | None, ...]


def once(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """Return the backward of a `torch.autograd.Function`, computed as a constant; differentiating it is an error.

    The function must save what leads to all its inputs that train: themselves, or one of its differentiable outputs.
    Under autocast its products would be rounded to half; the types were settled by the forward.
    """

    @wraps(backward)
    def wrapped(ctx: Any, *upstream: Tensor | None) -> Gradients:
        given = [g for g in upstream if g is not None]
        if not given:
            return (None,) * len(ctx.needs_input_grad)
        with torch.no_grad(), torch.autocast(given[0].device.type, enabled=False):
            found = backward(ctx, *upstream)
        if not torch.is_grad_enabled():  # no create_graph: the usual case
            return found
        return _refuse_twice(found, [t for t in (*ctx.saved_tensors, *given) if t is not None and t.requires_grad])

    return wrapped


def _refuse_twice(found: Gradients, sources: list[Tensor]) -> Gradients:
    """Attach gradients to their inputs by a node that raises."""
    there = [t for t in found if t is not None]
    attached = iter(_Twice.apply(len(there), *there, *sources))  # type: ignore[no-untyped-call]
    return tuple(None if t is None else next(attached) for t in found)


class _Twice(torch.autograd.Function):
    """The identity of the first `count` tensors, made of all of them; it has no derivative."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *_: Tensor | None) -> Gradients:
        raise RuntimeError(
            "alignlab.kernels: the fused losses have no second derivative, and a gradient made with create_graph=True "
            'was differentiated; use implementation="reference", which is plain autograd'
        )
