"""`linear_loss_streamed`: the same gradients as through `linear_logprobs`, for the losses that objectives use."""

import pytest
import torch
from test_kernels_cases import Case, absolute, case, leaf, relative
from torch import Tensor

from alignlab.kernels import LogProbs, linear_loss_streamed

EVERY = {"chunked": 0.005, "chunked, one block": 256}


def ppo(case: Case):
    """The clipped surrogate with an entropy bonus and a z-loss, every token with a weight of its own."""
    old, advantage = case.upstream[0] - 5, case.upstream[1]

    def loss(stats: LogProbs, tokens: Tensor) -> Tensor:
        ratio = torch.exp(stats.logp - old[tokens].to(stats.logp.dtype))
        a = advantage[tokens].to(ratio.dtype)
        clipped = torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)
        return -clipped + 1e-2 * stats.lse**2 - 0.1 * (0.0 if stats.entropy is None else stats.entropy)

    return loss


def stream(problem: Case, implementation: str, **kwargs):
    return linear_loss_streamed(
        problem.hidden, problem.weight, problem.targets, ppo(problem), problem.bias,
        implementation=implementation, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize("path", EVERY)
@pytest.mark.parametrize("options", [{}, {"entropy": True}, {"softcap": 4.0, "temperature": 0.7, "entropy": True}])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 4e-3)])
def test_gradients_are_those_of_whole_logits(path: str, options: dict, dtype: torch.dtype, bound: float) -> None:
    problem = case(masked=9).to(dtype)
    truth = problem.to(torch.float64)
    got = stream(problem, "chunked", workspace_mb=EVERY[path], **options)
    want = stream(truth, "reference", **options)
    assert relative(got.loss, want.loss) < bound and absolute(got.stats.logp, want.stats.logp) < max(bound, 1e-12) * 10
    (got.loss / 7).backward()
    (want.loss / 7).backward()
    for value, expected in zip(problem.leaves(), truth.leaves(), strict=True):
        assert relative(value.grad, expected.grad) < bound


def test_the_loss_sees_positions_in_the_batch() -> None:
    problem, seen = case(10, 50, 4, ignored=4), []

    def loss(stats: LogProbs, tokens: Tensor) -> Tensor:
        seen.extend(tokens.tolist())
        return stats.logp

    out = linear_loss_streamed(problem.hidden, problem.weight, problem.targets, loss, workspace_mb=1e-3)
    assert seen == list(range(4, 10)) and out.loss.item() == pytest.approx(out.stats.logp.sum().item())


@pytest.mark.parametrize("implementation", ["reference", "chunked"])
def test_no_token_no_loss(implementation: str) -> None:
    problem = case(5, ignored=5)
    out = stream(problem, implementation, entropy=True)
    assert out.loss.item() == 0
    out.loss.backward()
    assert not any(t.grad.any() for t in problem.leaves())


def test_what_could_go_wrong_in_silence_is_refused() -> None:
    problem, other = case(), leaf(torch.ones(()), torch.float64)
    args = problem.hidden, problem.weight, problem.targets
    with pytest.raises(ValueError, match="depends on a tensor of shape"):
        linear_loss_streamed(*args, lambda s, _: s.logp * other)
    with pytest.raises((ValueError, TypeError)):
        linear_loss_streamed(*args, lambda s, _: s.logp.sum())
    out = stream(problem, "chunked")
    out.loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward a second time"):
        out.loss.backward()
    assert not out.stats.logp.requires_grad


def test_without_gradients_nothing_is_multiplied_twice() -> None:
    problem = case()
    with torch.no_grad():
        out = stream(problem, "chunked")
    assert not out.loss.requires_grad and absolute(out.loss, stream(problem, "reference").loss) < 1e-12
