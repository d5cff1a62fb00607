"""What the tests of the fused loss share: problems, the float64 oracle, and eyes on memory and products."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignlab.kernels import LogProbs, linear_logprobs


@dataclass
class Case:
    """A head over a few tokens, with one upstream gradient for each output."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    targets: Tensor
    upstream: Tensor

    def to(self, dtype: torch.dtype) -> "Case":
        """The same numbers in another type, as fresh leaves."""
        bias = None if self.bias is None else leaf(self.bias, dtype)
        return Case(leaf(self.hidden, dtype), leaf(self.weight, dtype), bias, self.targets, self.upstream)

    def leaves(self) -> list[Tensor]:
        return [t for t in (self.hidden, self.weight, self.bias) if t is not None]

    def run(self, implementation: str | None, **kwargs: Any) -> LogProbs:
        return linear_logprobs(
            self.hidden, self.weight, self.targets, self.bias, implementation=implementation, **kwargs
        )

    def pull(self, stats: LogProbs, *, by: int = 3, keep: bool = False) -> list[Tensor]:
        """Gradients of all leaves for the case's upstream gradients of the first `by` outputs; `keep` the graph."""
        used = zip(self.upstream[:by].to(stats.logp.dtype), stats[:by], strict=True)
        terms = [(u * s).sum() for u, s in used if s is not None]
        total = torch.stack(terms).sum()
        return list(torch.autograd.grad(total, self.leaves(), allow_unused=True, retain_graph=keep))


def leaf(t: Tensor, dtype: torch.dtype) -> Tensor:
    return t.detach().clone().to(dtype).requires_grad_()


def case(
    tokens: int = 23,
    vocabulary: int = 301,
    width: int = 16,
    *,
    bias: bool = True,
    masked: int = 0,
    ignored: int = 3,
    scale: float = 2.0,
    seed: int = 0,
) -> Case:
    """Random logits of standard deviation about `scale`, in float64; the first `masked` words have a bias of −inf."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=g, dtype=torch.float64)
    weight = torch.randn(vocabulary, width, generator=g, dtype=torch.float64) * scale / width**0.5
    shift = torch.randn(vocabulary, generator=g, dtype=torch.float64) if bias or masked else None
    if shift is not None:
        shift[:masked] = -torch.inf
    targets = torch.randint(masked, vocabulary, (tokens,), generator=g)
    targets[:ignored] = -100
    upstream = torch.randn(3, tokens, generator=g, dtype=torch.float64)
    return Case(hidden, weight, shift, targets, upstream).to(torch.float64)


def relative(value: Tensor, truth: Tensor) -> float:
    """Frobenius norm of the error over that of the truth."""
    return float((value.detach().double() - truth.detach().double()).norm() / truth.detach().double().norm())


def absolute(value: Tensor, truth: Tensor) -> float:
    return float((value.detach().double() - truth.detach().double()).abs().max())


class Watch(TorchDispatchMode):
    """Counts multiply-adds of matrix products, and remembers the largest tensor that any operation made.

    `also` sees each tensor that an operation returns in memory of its own.
    """

    def __init__(self, also: Callable[[Tensor], None] | None = None) -> None:
        super().__init__()
        self.also = also
        self.flops = 0
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            a, b = args[-2:]
            self.flops += a.shape[0] * a.shape[1] * b.shape[1]
        if isinstance(out, Tensor):
            self.largest = max(self.largest, out.numel())
            given = [t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
            if self.also is not None and out.untyped_storage().data_ptr() not in given:
                self.also(out)
        return out


def products(run: Callable[[], Any], size: int) -> tuple[float, int]:
    """Return how many products of `size` multiply-adds a run makes, and its largest tensor."""
    with Watch() as watch:
        run()
    return watch.flops / size, watch.largest
