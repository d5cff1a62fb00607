"""Drive a table to where a method ends: exactly weighted, deterministic, through the training step's own code.

Axes: P prompts, K states of a prompt, V words.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.batch import Batch
from alignlab.objective import Objective
from alignlab.testing.oracle.policy import TablePolicy
from alignlab.testing.oracle.rollouts import OnPolicy
from alignlab.training.step import backward, whole_step

Field: TypeAlias = Callable[[Float[Tensor, "P K V"]], Float[Tensor, "P K V"]]
"""Of logits: what would be subtracted from them; with mean 0 in each state."""
PARTS = 4
"""Micro-batches of a step, about: their normalisation is part of what is checked."""


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: with tables as small as these, further ones only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def gradient(
    objective: Objective[Any], batch: Batch, policy: TablePolicy, teacher: TablePolicy | None = None
) -> Tensor:
    """Fill in the gradient of the objective's mean over a batch, as a training step does; returns the loss."""
    for parameter in policy.parameters:
        parameter.grad = None

    def stats(part: Batch) -> Any:
        return policy.token_stats(part, objective.needs, teacher)

    step = whole_step(objective, batch, stats, max_tokens=batch.num_tokens // PARTS + 16)
    loss, _ = backward(objective, step, stats)
    return loss.value()


def minimise(
    objective: Objective[Any], batch: Batch, policy: TablePolicy, teacher: TablePolicy | None = None, rounds: int = 400
) -> None:
    """Minimise an objective over a fixed batch by L-BFGS, first with a line search and then by the gradient alone.

    A line search compares losses, and it is lost where a weight is taken without gradient (WPO's): there the gradient
    is not that of the loss. Both are scaled up, since PyTorch ignores curvature below an absolute 1e-10, which rare
    pairs do not reach.
    """
    gradient(objective, batch, policy, teacher)
    first = sum(float(p.grad.abs().sum()) for p in policy.parameters if p.grad is not None)
    scale = 1e7 / max(first, 1e-7)

    def scaled() -> float:
        loss = gradient(objective, batch, policy, teacher)
        for parameter in policy.parameters:
            if parameter.grad is not None:
                parameter.grad *= scale
        return float(loss) * scale

    for search in ("strong_wolfe", None):
        optimizer = torch.optim.LBFGS(
            policy.parameters,
            max_iter=rounds,
            tolerance_grad=1e-6,
            tolerance_change=1e-18,
            history_size=100,
            line_search_fn=search,
        )
        optimizer.step(scaled)


def natural_gradient(method: OnPolicy, logits: Float[Tensor, "P K V"]) -> Float[Tensor, "P K V"]:
    """The natural gradient of an online method at a policy; 0 exactly where it has nothing left to learn.

    Per state it is the gradient over visits and probabilities, with mean 0. The last prompt is not trained: it keeps a
    spread of rewards in the buffer. A whitened advantage would otherwise keep its size up to the optimum, where it is
    0 / 0, and no Newton step could follow.
    """
    policy = TablePolicy(method.world, logits)
    rollouts = method.rollouts(policy)
    gradient(method.objective, rollouts, policy, method.teacher)
    assert policy.logits.grad is not None
    probability = policy.logits.detach().softmax(-1)
    natural = policy.logits.grad / (method.visits(rollouts)[..., None] * probability).clamp_min(1e-300)
    natural = natural - (natural * probability).sum(-1, keepdim=True)
    return torch.cat([natural[:-1], torch.zeros_like(natural[-1:])])


def fixed_point(
    field: Field, start: Float[Tensor, "P K V"], rounds: int = 50, stop: float = 1e-10
) -> Float[Tensor, "P K V"]:
    """Where a field, such as a natural gradient, is 0: followed in implicit steps that grow as it shrinks.

    Prompts meet only in common denominators, so that all of them are perturbed at once: the Jacobian is block-diagonal
    up to those. What that leaves out costs rounds and no exactness.

    Returns:
        `(P, K, V)` the logits; NaN where it would leave that point again (a maximum of the loss, say).

    Source: Kelley & Keyes 1998, SIAM J. Numer. Anal. 35(2) (pseudo-transient continuation).
    """
    logits = start.clone()
    residual, pace = field(logits), 1.0
    for _ in range(rounds):
        if not float(residual.norm()) > stop:  # NaN ends it too
            break
        jacobian = _jacobian(field, logits, residual)
        for _ in range(8):  # shorter steps, until one does not make it worse
            moved = logits + _implicit_step(jacobian, residual, pace).clamp(-2.0, 2.0)
            new = field(moved)
            smaller = float(residual.norm()) / max(float(new.norm()), 1e-300)
            if smaller > 0.9:
                break
            pace /= 4
        logits, residual, pace = moved, new, pace * min(10.0, max(1.5, smaller))
        if pace < 1e-6:
            break
    jacobian = _jacobian(field, logits, residual)
    trained = jacobian[jacobian.abs().amax((-2, -1)) > 0]  # without a prompt that only keeps a spread of rewards
    stays = bool(trained.isfinite().all()) and bool((torch.linalg.eigvals(trained).real > 0).all())
    return logits if stays else torch.full_like(logits, torch.nan)


def _jacobian(field: Field, logits: Tensor, residual: Tensor, small: float = 1e-3) -> Float[Tensor, "P KW KW"]:
    """How each prompt's residual changes with its logits, both relative to the last word's (W words without it).

    The differences are not tiny: rewards that are equal up to rounding give no advantage, by design.
    """
    _, states, words = logits.shape
    columns = []
    for state in range(states):
        for word in range(words - 1):
            moved = logits.clone()
            moved[:, state, word] += small
            columns.append((_relative(field(moved) - residual) / small).flatten(1))
    return torch.stack(columns, -1)


def _implicit_step(jacobian: Float[Tensor, "P KW KW"], residual: Float[Tensor, "P K V"], pace: float) -> Tensor:
    """`(P, K, V)` an implicit Euler step of the natural gradient's flow; Newton's step where `pace` is large."""
    largest = float(jacobian.diagonal(dim1=-2, dim2=-1).abs().max())
    identity = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype) * max(largest / pace, 1e-12)
    wanted = _relative(residual)
    step = torch.linalg.solve(jacobian + identity, -wanted.flatten(1)).view_as(wanted)
    step = torch.cat([step, torch.zeros_like(step[..., :1])], -1)
    return step - step.mean(-1, keepdim=True)  # the logits of a state may all move together, at no effect


def _relative(x: Float[Tensor, "P K V"]) -> Float[Tensor, "P K W"]:
    """To the last word's entry."""
    return x[..., :-1] - x[..., -1:]
