"""What autograd may ask of the fused losses: one derivative and no second, in any thread, under any autocast."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from test_kernels_cases import Case, case, relative
from torch import Tensor

from alignlab.kernels import linear_kl, linear_loss_streamed, rows

Way = Callable[[Case, float], Tensor]
BIG, SMALL = 256, 0.005
"""Workspaces, in MiB: all logits of a case are kept, or made again slab by slab."""


def linear(problem: Case, workspace_mb: float) -> Tensor:
    out = problem.run("chunked", entropy=True, workspace_mb=workspace_mb)
    return sum((s.sum() for s in out), torch.zeros(()))


def logp_alone(problem: Case, workspace_mb: float) -> Tensor:
    return problem.run("chunked", workspace_mb=workspace_mb).logp.sum()


def frozen(problem: Case, workspace_mb: float) -> Tensor:
    for t in problem.leaves()[1:]:
        t.requires_grad_(False)
    return problem.run("chunked", workspace_mb=workspace_mb).logp.sum()


def streamed(problem: Case, workspace_mb: float) -> Tensor:
    return linear_loss_streamed(
        problem.hidden, problem.weight, problem.targets, lambda s, _: s.logp, problem.bias, workspace_mb=workspace_mb
    ).loss


def divergence(problem: Case, workspace_mb: float) -> Tensor:
    teacher = case(seed=1).to(problem.hidden.dtype)
    return linear_kl(
        problem.hidden, problem.weight, teacher.hidden, teacher.weight, problem.bias, teacher.bias,
        workspace_mb=workspace_mb,
    ).sum()  # fmt: skip


WAYS: dict[str, tuple[Way, float]] = {
    "rows": (linear, BIG),
    "rows, logp alone": (logp_alone, BIG),
    "slabs": (linear, SMALL),
    "frozen": (frozen, SMALL),
    "streamed, one block": (streamed, BIG),
    "streamed": (streamed, SMALL),
    "divergence": (divergence, SMALL),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Callable[[Case], Tensor]]:
    run, workspace_mb = WAYS[request.param]
    yield lambda problem: run(problem, workspace_mb)


def test_a_second_derivative_is_an_error(way: Callable[[Case], Tensor]) -> None:
    """With a constant upstream too, and by whichever way the gradient leads back to what trains."""
    for through_body in (False, True):
        problem = case()
        root = problem.hidden
        if through_body:
            problem.hidden = root * 2
        loss = way(problem)
        (g,) = torch.autograd.grad(loss, root, create_graph=True)
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad((g**2).sum() + loss.detach(), root)


def test_a_penalty_on_the_gradient_is_an_error(way: Callable[[Case], Tensor]) -> None:
    problem = case()
    loss = way(problem)
    (g,) = torch.autograd.grad(loss, problem.hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(loss + (g**2).sum(), problem.hidden)


def test_create_graph_alone_changes_nothing(way: Callable[[Case], Tensor]) -> None:
    gradients = []
    for create_graph in (False, True):
        problem = case()
        loss = way(problem)
        leaves = [t for t in problem.leaves() if t.requires_grad]
        gradients.append(torch.autograd.grad(loss, leaves, create_graph=create_graph))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert all(g.requires_grad for g in gradients[1])


# ---- probabilities that are kept ------------------------------------------------------------------------------------
def test_threads_may_walk_one_graph_at_once() -> None:
    """The usual backward borrows the kept probabilities; with and without entropy, each thread finds them whole."""
    problem = case(64, 2000, 16).to(torch.float32)
    logp, _, entropy = problem.run("chunked", entropy=True)
    losses = logp.sum(), entropy.sum()

    def gradients(loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, problem.leaves(), retain_graph=True)

    want = [gradients(loss) for loss in losses]
    turns = [0, 0, 1, 0] * 25
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: gradients(losses[i]), turns))
    for i, got in zip([*turns, 0, 1], [*found, *(gradients(loss) for loss in losses)], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, want[i], strict=True))


def test_a_backward_that_fails_leaves_the_graph_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = case()
    loss = problem.run("chunked").logp.sum()
    first = torch.autograd.grad(loss, problem.leaves(), retain_graph=True)

    def fail(*_: Any) -> None:
        raise MemoryError("no memory left")

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(rows.Sums, "add", fail)
        torch.autograd.grad(loss, problem.leaves(), retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(loss, problem.leaves()), strict=True))


# ---- autocast -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", [name for name in WAYS if name != "frozen"])
def test_a_backward_inside_autocast_rounds_nothing_more(name: str) -> None:
    """The operands are rounded to bfloat16 by the forward; the bias's gradient is then a sum in float32."""
    run, workspace_mb = WAYS[name]
    problem = case(bias=True).to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = run(problem, workspace_mb)
        inside = torch.autograd.grad(loss, problem.leaves(), retain_graph=not name.startswith("streamed"))
    rounded = Case(
        *(t.bfloat16().double() for t in problem.leaves()[:2]), problem.bias, problem.targets, problem.upstream
    )
    truth = rounded.to(torch.float64)
    if name == "divergence":  # its teacher is rounded too
        want = torch.autograd.grad(loss, problem.leaves())
        assert all(torch.equal(a, b) for a, b in zip(inside, want, strict=True))
    else:
        (want_bias,) = torch.autograd.grad(run(truth, BIG), truth.bias)
        assert relative(inside[2], want_bias) < 1e-5


def test_a_frozen_head_inside_autocast() -> None:
    outside, inside = case().to(torch.float32), case().to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        losses = [frozen(outside, SMALL), frozen(inside, SMALL)]
        (got,) = torch.autograd.grad(losses[1], inside.hidden)
    (want,) = torch.autograd.grad(losses[0], outside.hidden)
    assert torch.equal(got, want)


def test_float64_stays_float64_inside_autocast(way: Callable[[Case], Tensor]) -> None:
    plain, cast = case(), case()
    loss = way(plain)
    want = torch.autograd.grad(loss, [t for t in plain.leaves() if t.requires_grad])
    with torch.autocast("cpu", torch.bfloat16):
        inside = way(cast)
        got = torch.autograd.grad(inside, [t for t in cast.leaves() if t.requires_grad])
    assert inside.dtype == torch.float64 and torch.equal(inside, loss)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
