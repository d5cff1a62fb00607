"""Targets as they come: of any integer type, of any stride, with any ignored value."""

import pytest
import torch
from test_kernels_cases import absolute, case

from alignlab.kernels import linear_logprobs, linear_loss_streamed

NARROW = [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32]
PATHS = {"rows": 256, "slabs": 0.002}


@pytest.mark.parametrize("workspace_mb", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("stride", [0, 2])
def test_targets_of_any_stride(workspace_mb: float, stride: int) -> None:
    """A column of a matrix, and one value expanded to all tokens."""
    problem = case(ignored=3 if stride else 0)
    targets = torch.stack([problem.targets, 1 - problem.targets], 1)[:, 0] if stride else torch.tensor(7).expand(23)
    assert targets.stride() == (stride,)
    problem.targets = targets.contiguous()
    want = problem.run("reference", entropy=True)
    problem.targets = targets
    got = problem.run("chunked", entropy=True, workspace_mb=workspace_mb)
    assert all(absolute(a, b) < 1e-12 for a, b in zip(got, want, strict=True))
    for a, b in zip(problem.pull(got), problem.pull(want), strict=True):
        assert absolute(a, b) < 1e-11
    out = linear_loss_streamed(
        problem.hidden, problem.weight, targets, lambda s, _: s.logp, problem.bias, workspace_mb=workspace_mb
    )
    assert absolute(out.loss, want.logp.sum()) < 1e-11


@pytest.mark.parametrize("dtype", NARROW)
def test_narrow_integers_mean_what_they_say(dtype: torch.dtype) -> None:
    """No value of theirs passes for the ignore_index by wrapping around."""
    problem = case(10, 100, 4, ignored=0)
    want = problem.run("chunked").logp
    problem.targets = problem.targets.to(dtype)
    assert torch.equal(problem.run("chunked").logp, want)
    if not dtype.is_signed:
        problem.targets = torch.tensor([156] * 10).to(dtype)  # −100 in eight bits
        with pytest.raises(IndexError, match="target 156 at token 0 is outside the vocabulary of 100"):
            problem.run("chunked")
    else:
        problem.targets = torch.tensor([101, *[-100] * 9]).to(dtype)
        with pytest.raises(IndexError, match="target 101 at token 0"):
            problem.run("chunked")


@pytest.mark.parametrize("implementation", ["reference", "chunked"])
@pytest.mark.parametrize("workspace_mb", PATHS.values(), ids=PATHS)
def test_the_ignored_value_may_be_a_word(implementation: str, workspace_mb: float) -> None:
    """With ignore_index=0, word 0 is scored nowhere, and the other tokens as ever."""
    problem = case(ignored=0)
    problem.targets[::4] = 0
    options = {"entropy": True, "workspace_mb": workspace_mb}
    got = linear_logprobs(
        problem.hidden, problem.weight, problem.targets, problem.bias, ignore_index=0,
        implementation=implementation, **options,
    )  # fmt: skip
    problem.targets = problem.targets.masked_fill(problem.targets == 0, -100)
    want = problem.run("reference", **options)
    assert all(absolute(a, b) < 1e-12 and not a[::4].any() for a, b in zip(got, want, strict=True))
    for a, b in zip(problem.pull(got), problem.pull(want), strict=True):
        assert absolute(a, b) < 1e-11
