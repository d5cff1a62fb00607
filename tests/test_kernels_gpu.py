"""The fused loss on a GPU, at sizes that training has: `pytest -m gpu`."""

import shutil
import subprocess
import sys

import pytest
import torch
from test_kernels_cases import relative

from alignlab.kernels import LogProbs, linear_logprobs, linear_loss_streamed
from alignlab.kernels.linear import choose

pytestmark = pytest.mark.gpu

SIZES = [(1000, 32003, 1024), (2048, 50257, 768), (4096, 128256, 2048), (333, 4096, 250)]
OPTIONS = [{}, {"entropy": True}, {"entropy": True, "softcap": 30.0, "temperature": 0.7}]


def problem(tokens: int, words: int, width: int, dtype: torch.dtype, bias: bool = False) -> list[torch.Tensor]:
    g = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(tokens, width, device="cuda", generator=g).to(dtype)
    weight = (2 * torch.randn(words, width, device="cuda", generator=g) / width**0.5).to(dtype)
    shift = torch.randn(words, device="cuda", generator=g).to(dtype) if bias else None
    targets = torch.randint(0, words, (tokens,), device="cuda", generator=g)
    targets[::7] = -100
    return [hidden, weight, targets, shift]


def run(arguments: list[torch.Tensor], dtype: torch.dtype, implementation: str | None, **options):
    """Statistics, and gradients of a weighted sum of them."""
    hidden, weight, targets, shift = arguments
    leaves = [None if t is None else t.detach().to(dtype).requires_grad_() for t in (hidden, weight, shift)]
    out = linear_logprobs(leaves[0], leaves[1], targets, leaves[2], implementation=implementation, **options)
    wave = torch.cos(torch.arange(len(targets), device=targets.device)).to(out.logp.dtype)
    terms = [(scale * wave * s).sum() for scale, s in zip((1.0, 0.3, -0.5), out, strict=True) if s is not None]
    present = [t for t in leaves if t is not None]
    return out, torch.autograd.grad(torch.stack(terms).sum(), present)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_bfloat16_against_float32(size: tuple[int, int, int], options: dict, bias: bool) -> None:
    """Same bfloat16 inputs, float32 arithmetic without TF32: logp within 1e-3, gradients within their rounding."""
    torch.backends.cuda.matmul.allow_tf32 = False
    arguments = problem(*size, torch.bfloat16, bias)
    assert choose(None, arguments[0]) == "triton"
    got, gradients = run(arguments, torch.bfloat16, "triton", **options)
    want, expected = run(arguments, torch.float32, "chunked", **options)
    for a, b in zip(got, want, strict=True):
        assert a is None or float((a - b).detach().abs().max()) < 1e-3
    assert all(relative(a.cpu(), b.cpu()) < 6e-3 for a, b in zip(gradients, expected, strict=True))


def test_float32_by_name() -> None:
    arguments = problem(500, 5000, 320, torch.float32)
    got, gradients = run(arguments, torch.float32, "triton", entropy=True)
    want, expected = run(arguments, torch.float64, "reference", entropy=True)
    assert float((got.logp - want.logp).detach().abs().max()) < 5e-6
    assert all(relative(a.cpu(), b.cpu()) < 1e-5 for a, b in zip(gradients, expected, strict=True))


def test_same_inputs_same_bits() -> None:
    arguments = problem(2048, 50257, 768, torch.bfloat16)
    one, two = (run(arguments, torch.bfloat16, "triton", entropy=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip((*one[0], *one[1]), (*two[0], *two[1]), strict=True))


def test_tensors_of_another_gpu_than_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    arguments = problem(500, 5000, 320, torch.bfloat16)
    want, expected = run(arguments, torch.bfloat16, "triton")
    got, gradients = run([None if t is None else t.to("cuda:1") for t in arguments], torch.bfloat16, "triton")
    assert got.logp.device.index == 1 and torch.equal(got.logp.cpu(), want.logp.cpu())
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(gradients, expected, strict=True))


def test_offsets_beyond_two_to_the_thirty_one() -> None:
    """N·V = 2.6e9 in the streamed path's store, V·d = 2.2e9 in the head."""
    hidden, weight, targets, _ = problem(2048, 1_100_000, 2000, torch.bfloat16)
    targets[-1] = 1_099_999
    out = linear_logprobs(hidden[-8:], weight, targets[-8:], implementation="triton")
    want = linear_logprobs(hidden[-8:].float(), weight.float(), targets[-8:], implementation="chunked")
    assert float((out.logp - want.logp).abs().max()) < 1e-3
    streamed = linear_loss_streamed(hidden, weight, targets, lambda s, _: s.logp, workspace_mb=8192)
    assert float((streamed.stats.logp[-8:] - want.logp).abs().max()) < 1e-3


@pytest.mark.parametrize("options", OPTIONS)
def test_streamed_is_general(options: dict) -> None:
    hidden, weight, targets, _ = problem(3000, 32003, 1024, torch.bfloat16)

    def loss(stats: LogProbs, _: torch.Tensor) -> torch.Tensor:
        return -stats.logp + 1e-2 * stats.lse**2 - (0 if stats.entropy is None else 0.1 * stats.entropy)

    def gradients(streamed: bool) -> tuple[torch.Tensor, ...]:
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if streamed:
            total = linear_loss_streamed(h, w, targets, loss, workspace_mb=64, **options).loss
        else:
            stats = linear_logprobs(h, w, targets, **options)
            total = (loss(stats, targets) * (targets != -100)).sum()
        return torch.autograd.grad(total / 100, (h, w))

    assert all(relative(a.cpu(), b.cpu()) < 6e-3 for a, b in zip(gradients(True), gradients(False), strict=True))


@pytest.mark.parametrize("factor", [1.0, 1 / 300])
def test_a_streamed_gradient_is_scaled_once(factor: float) -> None:
    """The upstream gradient is multiplied in float32 and rounded once; 1 leaves every bit as it is."""
    hidden, weight, targets, _ = problem(700, 9001, 328, torch.bfloat16)
    leaves = hidden.requires_grad_(), weight.requires_grad_()

    def gradients(by: float) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(linear_loss_streamed(*leaves, targets, lambda s, _: s.logp).loss * by, leaves)

    exact = torch.tensor(factor, device="cuda")
    for got, whole in zip(gradients(factor), gradients(1.0), strict=True):
        assert torch.equal(got, (whole.float() * exact).bfloat16())


@pytest.mark.parametrize(("tokens", "blocks"), [(2 * 320, 1), (20 * 320, 10)])
def test_a_streamed_loss_in_one_block_where_its_gradient_needs_no_sum(tokens: int, blocks: int) -> None:
    """Up to twice the width in tokens, exponentials take what a float32 sum of the weight's gradient would."""
    hidden, weight, targets, _ = problem(tokens, 32000, 320, torch.bfloat16)
    targets, seen = targets.clamp(min=0), []
    leaves = hidden.requires_grad_(), weight.requires_grad_()

    def loss(stats: LogProbs, positions: torch.Tensor) -> torch.Tensor:
        seen.append(len(positions))
        return stats.logp

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear_loss_streamed(*leaves, targets, loss, workspace_mb=40).loss.backward()
    returned = 2 * (hidden.numel() + weight.numel()) + 4 * hidden.numel()
    assert len(seen) == blocks and sum(seen) == tokens
    assert torch.cuda.max_memory_allocated() - before - returned < 42 * 2**20 + 4 * weight.numel()


def test_memory_stays_within_the_workspace() -> None:
    """Beyond inputs and gradients: 256 MiB and the hidden states' gradient in float32."""
    hidden, weight, targets, _ = problem(8192, 128256, 1024, torch.bfloat16)
    targets = targets.clamp(min=0)  # all valid: packing would copy the hidden states
    h, w = hidden.requires_grad_(), weight.requires_grad_()
    linear_logprobs(h[:256], w, targets[:256]).logp.sum().backward()  # kernels and cuBLAS loaded
    h.grad = w.grad = None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    linear_logprobs(h, w, targets).logp.sum().backward()
    gradients = (h.numel() + w.numel()) * 2 + h.numel() * 4
    assert torch.cuda.max_memory_allocated() - before - gradients < 272 * 2**20


@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="compute-sanitizer is not installed")
def test_memcheck_finds_nothing() -> None:
    code = (
        "import torch\nfrom alignlab.kernels import linear_logprobs\n"
        "h = torch.randn(133, 72, device='cuda').bfloat16().requires_grad_()\n"
        "w = torch.randn(517, 72, device='cuda').bfloat16().requires_grad_()\n"
        "out = linear_logprobs(h, w, torch.randint(0, 517, (133,), device='cuda'), entropy=True)\n"
        "(out.logp + out.entropy).sum().backward()\ntorch.cuda.synchronize()\n"
    )
    command = ["compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
