"""The fused loss cut small: several blocks of tokens on every path, and a workspace that is kept whatever the shape."""

from typing import Any

import pytest
import torch
from test_kernels_cases import Case, Watch, absolute, case, relative
from torch import Tensor

from alignlab.kernels import LogProbs, linear_kl, linear_logprobs, linear_loss_streamed, rows, slabs, streamed

TOKENS, WORDS, ROWS = 70, 301, 17
FULL = {"entropy": True, "softcap": 3.0, "temperature": 0.7}
DTYPES = [(torch.float64, 1e-11), (torch.float32, 1e-5), (torch.bfloat16, 4e-3)]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 17 rows in float32 (8 in float64), so that 70 tokens take several, the last one not whole."""
    monkeypatch.setattr(rows, "BLOCK_BYTES", ROWS * 4 * WORDS)
    monkeypatch.setattr(streamed, "BLOCK_BYTES", ROWS * 4 * WORDS)
    monkeypatch.setattr(slabs, "BLOCK_ROWS", ROWS)


def errors(problem: Case, got: LogProbs, want: LogProbs, truth: Case, by: int) -> tuple[float, float]:
    """The largest error of a statistic, and the largest of a gradient (relative)."""
    assert [s is None for s in got] == [s is None for s in want]
    pairs = zip(problem.pull(got, by=by, keep=True), truth.pull(want, by=by, keep=True), strict=True)
    statistics = [absolute(a, b) for a, b in zip(got, want, strict=True) if a is not None]
    return max(statistics), max(relative(a, b) for a, b in pairs)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
@pytest.mark.parametrize("workspace_mb", [256, 0.01], ids=["rows", "slabs"])
@pytest.mark.parametrize("options", [{}, {"entropy": True}, FULL])
def test_blocks_add_up(dtype: torch.dtype, bound: float, workspace_mb: float, options: dict[str, Any]) -> None:
    problem = case(TOKENS, WORDS, masked=9).to(dtype)
    truth = problem.to(torch.float64)
    got = problem.run("chunked", workspace_mb=workspace_mb, **options)
    for by in (1, 3):
        statistic, gradient = errors(problem, got, truth.run("reference", **options), truth, by)
        assert statistic < max(bound / 2, 1e-11) and gradient < bound


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_blocks_under_a_frozen_head(dtype: torch.dtype, bound: float, softcap: float | None) -> None:
    problem = case(TOKENS, WORDS).to(dtype)
    truth = problem.to(torch.float64)
    for t in (*problem.leaves()[1:], *truth.leaves()[1:]):
        t.requires_grad_(False)
    gradients = []
    for own, implementation in ((problem, "chunked"), (truth, "reference")):
        out = own.run(implementation, softcap=softcap, workspace_mb=0.01)
        terms = own.upstream[0] * out.logp + own.upstream[1] * out.lse
        gradients.append(torch.autograd.grad(terms.sum(), own.hidden)[0])
    assert relative(*gradients) < bound


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_blocks_of_a_divergence(dtype: torch.dtype, bound: float, direction: str) -> None:
    problem, teacher = case(TOKENS, WORDS, ignored=0).to(dtype), case(TOKENS, WORDS, 8, seed=1).to(dtype)
    truth, other = problem.to(torch.float64), teacher.to(torch.float64)
    found = []
    for own, of, implementation in ((problem, teacher, "chunked"), (truth, other, "reference")):
        kl = linear_kl(
            own.hidden, own.weight, of.hidden, of.weight, own.bias, of.bias,
            direction=direction, softcap=9.0, workspace_mb=0.01, implementation=implementation,
        )  # fmt: skip
        found.append([kl, *torch.autograd.grad((kl * own.upstream[0]).sum(), own.leaves())])
    assert all(relative(a, b) < bound for a, b in zip(*found, strict=True))


def every_statistic(problem: Case):
    """A loss with its own weight for each token's every statistic."""

    def loss(stats: LogProbs, tokens: Tensor) -> Tensor:
        terms = [u[tokens].to(s.dtype) * s for u, s in zip(problem.upstream, stats, strict=True) if s is not None]
        return torch.stack(terms).sum(0)

    return loss


def stream(problem: Case, implementation: str, **options: Any):
    return linear_loss_streamed(
        problem.hidden, problem.weight, problem.targets, every_statistic(problem), problem.bias,
        implementation=implementation, **options,
    )  # fmt: skip


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
@pytest.mark.parametrize("options", [{}, FULL])
def test_blocks_of_a_streamed_loss(dtype: torch.dtype, bound: float, options: dict[str, Any]) -> None:
    problem = case(TOKENS, WORDS, masked=9).to(dtype)
    truth = problem.to(torch.float64)
    got, want = stream(problem, "chunked", **options), stream(truth, "reference", **options)
    gradients = [torch.autograd.grad(s.loss, p.leaves()) for s, p in ((got, problem), (want, truth))]
    assert all(relative(a, b) < bound for a, b in zip(*gradients, strict=True))


def test_a_streamed_gradient_of_a_half_type_is_scaled_in_every_part() -> None:
    """The backward multiplies 4096 rows of the head at a time; each row arrives once, and at the right size."""
    problem = case(12, 9000, 8).to(torch.bfloat16)
    truth = problem.to(torch.float64)
    (stream(problem, "chunked").loss * 0.25).backward()
    (stream(truth, "reference").loss * 0.25).backward()
    for part in (slice(0, 4096), slice(4096, 8192), slice(8192, 9000)):
        assert relative(problem.weight.grad[part], truth.weight.grad[part]) < 6e-3
    assert relative(problem.hidden.grad, truth.hidden.grad) < 6e-3


# ---- autocast -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("implementation", ["reference", "chunked"])
@pytest.mark.parametrize("streams", [False, True])
def test_under_autocast_a_bias_is_not_rounded(implementation: str, streams: bool) -> None:
    """Hidden states and head are, as by `F.linear`; the result is that of float64 on these numbers."""
    problem = case(TOKENS, WORDS).to(torch.float32)
    rounded = [t.bfloat16().double() for t in (problem.hidden, problem.weight)]
    want = linear_logprobs(*rounded, problem.targets, problem.bias.double(), implementation="reference")
    with torch.autocast("cpu", torch.bfloat16):
        logp = stream(problem, implementation).stats.logp if streams else problem.run(implementation).logp
    assert logp.dtype == torch.float32 and absolute(logp, want.logp) < 2e-6


# ---- workspace ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workspace_mb", [0.25, 2])
def test_the_workspace_is_kept_by_a_few_wide_tokens_of_a_half_type(workspace_mb: float) -> None:
    """On a CPU a slab of the head is cast to float32 too: no such tensor is larger than workspace or hidden states."""
    problem, made = case(8, 1000, 2000, bias=False, ignored=0).to(torch.bfloat16), [0]
    problem.weight.requires_grad_(False)
    with Watch(lambda out: made.append(out.numel() if out.dtype == torch.float32 else 0)):
        problem.run("chunked", workspace_mb=workspace_mb, entropy=True).logp.sum().backward()
    assert 64 * 2000 <= max(made) <= max(workspace_mb * 2**20 / 4, 64 * 2000)  # a slab has 64 columns at least


@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.float32, 4), (torch.bfloat16, 4), (torch.float64, 8)])
@pytest.mark.parametrize("options", [{}, {"entropy": True}, {"softcap": 9.0}, {"entropy": True, "softcap": 9.0}])
def test_the_workspace_is_kept_by_a_streamed_loss(dtype: torch.dtype, itemsize: int, options: dict[str, Any]) -> None:
    """Rows of logits, and what entropy and soft-cap need beside them, fit into it together."""
    problem, made, workspace = case(200, 1000, 4, ignored=0).to(dtype), [0], 2**18
    with Watch(lambda out: made.append(out.shape[0] if out.ndim == 2 and out.shape[1] == 1000 else 0)):
        stream(problem, "chunked", workspace_mb=workspace / 2**20, **options)
    buffers = 1 + len(options)
    assert 0 < max(made) == workspace // (itemsize * 1000 * buffers)
