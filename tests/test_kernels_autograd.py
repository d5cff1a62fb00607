"""What autograd may ask of the fused losses: one derivative and no second, in any thread, under any autocast."""

from collections.abc import Callable, Iterator

import pytest
import torch
from test_kernels_cases import Case, case
from torch import Tensor

from alignlab.kernels import linear_kl, linear_loss_streamed

Way = Callable[[Case, float], Tensor]
BIG, SMALL = 256, 0.005
"""Workspaces, in MiB: all logits of a case are kept, or made again slab by slab."""


def linear(problem: Case, workspace_mb: float) -> Tensor:
    out = problem.run("chunked", entropy=True, workspace_mb=workspace_mb)
    return sum((s.sum() for s in out), torch.zeros(()))


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
