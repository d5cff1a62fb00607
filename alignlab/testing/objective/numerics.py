"""Checks of an objective's arithmetic: precision is kept, and nothing overflows."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alignlab.testing.compare import close
from alignlab.testing.objective.cases import PER_SEQUENCE, Case
from alignlab.testing.objective.step import constants_of, loss_on, run
from alignlab.testing.objective.subject import ObjectiveSubject


def float32_agrees_with_float64(subject: ObjectiveSubject) -> None:
    """Nothing is rounded on the way: float64 stays float64 (oracles need it), float32 loses no more than it must."""
    objective = subject.make()
    exact = subject.case(8).to(torch.float32).to(torch.float64)
    single = exact.to(torch.float32)
    for case in (exact, single):
        with Downcasts() as downcasts:
            terms = loss_on(objective, case, constants_of(objective, case)).terms
        assert not downcasts.seen, f"{subject.name}: rounds on the way, {sorted(downcasts.seen)}; keep the input's type"
    for name, term in terms.items():
        assert term.dtype == torch.float32, f"{subject.name}: term {name} of float32 input is {term.dtype}"
    expected, found = run(objective, exact), run(objective, single)
    close(subject.name, found.loss.double(), expected.loss, "the loss in float32 against float64", 1e-5)
    for name, gradient in expected.gradient.items():
        what = f"the gradient of {name} in float32 against float64"
        close(subject.name, found.gradient[name].double(), gradient, what, 1e-5)


def far_from_the_reference_stays_finite(subject: ObjectiveSubject) -> None:
    """A policy hundreds of nats away from where it began, either way, has a finite loss and gradient in float32."""
    case = subject.case(8).to(torch.float32)
    for sign in (1, -1):
        found = run(subject.make(), case.with_values(**{k: _extreme(k, v, case, sign) for k, v in case.stats.items()}))
        for what, value in {"loss": found.loss, **{f"gradient of {k}": g for k, g in found.gradient.items()}}.items():
            assert torch.isfinite(value).all(), (
                f"{subject.name}: the {what} is not finite for a policy far from its reference (log-probabilities of "
                f"-100 and 0); use logsigmoid and softplus, and clamp log-ratios before exp and probabilities before "
                f"log"
            )


def _extreme(name: str, value: Tensor, case: Case, sign: int) -> Tensor:
    """Every second sequence hundreds of nats (or a thousand reward units) one way, its neighbours the other way."""
    size = torch.full_like(value.detach(), 1000.0 if name in PER_SEQUENCE else 100.0)
    sequence = torch.arange(len(size)) if name in PER_SEQUENCE else case.batch.sequence_id
    direction = torch.where(sequence % 2 == 0, sign, -sign).reshape(-1, *[1] * (size.ndim - 1))
    # Log-probabilities cannot leave 0 upwards, and entropies and divergences cannot fall below it.
    if name == "logp":
        return -size * (direction > 0)
    return size * (direction > 0) if name == "entropy" or name.startswith("kl_") else size * direction


class Downcasts(TorchDispatchMode):
    """Records every operation that turns floating-point numbers into ones of fewer bits."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        cast = func is torch.ops.aten._to_copy.default and out.is_floating_point() and args[0].is_floating_point()
        if cast and out.element_size() < args[0].element_size():
            self.seen.add(f"{args[0].dtype} to {out.dtype}")
        return out
