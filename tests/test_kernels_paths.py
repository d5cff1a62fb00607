"""What the fused loss costs (products, memory) and where it must work: frozen and tied heads, LoRA, autocast, …"""

from collections.abc import Callable

import pytest
import torch
from test_kernels_cases import Watch, absolute, case, leaf, products, relative
from torch.utils.checkpoint import checkpoint

from alignlab.kernels import linear_kl, linear_logprobs, linear_loss_streamed

TOKENS, WORDS, WIDTH = 64, 4096, 8
LOGITS = TOKENS * WORDS
SLAB_MB = LOGITS * 4 / 16 / 2**20  # room for a sixteenth of the logits


def big():
    return case(TOKENS, WORDS, WIDTH, bias=False, ignored=0).to(torch.float32)


@pytest.mark.parametrize(
    ("trains", "workspace_mb", "expected"),
    [("all", 256, 3), ("all", SLAB_MB, 4), ("hidden", SLAB_MB, 2), ("weight", SLAB_MB, 3), ("hidden", 256, 2)],
)
def test_matrix_products_are_counted(trains: str, workspace_mb: float, expected: int) -> None:
    """Keeping logits takes 3 products, making them again 4; a frozen side takes its own product away."""
    problem = big()
    for t in problem.leaves():
        t.requires_grad_(trains == "all" or t is getattr(problem, trains))

    def run() -> None:
        problem.run("chunked", workspace_mb=workspace_mb).logp.sum().backward()

    count, largest = products(run, LOGITS * WIDTH)
    assert count == expected
    assert (problem.weight.grad is None) == (trains == "hidden") and (problem.hidden.grad is None) == (
        trains == "weight"
    )
    assert largest <= (LOGITS if workspace_mb == 256 else WORDS * WIDTH)  # the weight's gradient


def test_a_streamed_loss_takes_three_products_and_a_block_of_rows() -> None:
    problem = big()

    def run() -> None:
        out = linear_loss_streamed(
            problem.hidden, problem.weight, problem.targets, lambda s, _: -s.logp, workspace_mb=SLAB_MB
        )
        (out.loss / TOKENS).backward()

    assert products(run, LOGITS * WIDTH) == (3.0, WORDS * WIDTH)  # the largest tensor is the weight's gradient


@pytest.mark.parametrize("workspace_mb", [256, SLAB_MB])
def test_a_streamed_loss_casts_the_head_once(workspace_mb: float) -> None:
    """On a CPU half types are multiplied in float32; the head in that type is as large as anything here."""
    problem, made = big().to(torch.bfloat16), []
    with Watch(lambda out: made.append((out.dtype, out.shape))):
        linear_loss_streamed(
            problem.hidden, problem.weight, problem.targets, lambda s, _: s.logp, workspace_mb=workspace_mb
        )
    whole = [dtype for dtype, shape in made if shape == problem.weight.shape and dtype == torch.float32]
    assert len(whole) == 2  # the head, and the sum that becomes its gradient


def test_ignored_tokens_are_dropped_before_the_product() -> None:
    problem = big()
    problem.targets[: TOKENS // 2] = -100
    count, _ = products(lambda: problem.run("chunked", workspace_mb=SLAB_MB).logp.sum().backward(), LOGITS * WIDTH)
    assert count == 2


@pytest.mark.parametrize("workspace_mb", [0.25, 1, 4])
@pytest.mark.parametrize("options", [{}, {"entropy": True, "softcap": 9.0}])
def test_the_workspace_is_kept(workspace_mb: float, options: dict) -> None:
    """No tensor beyond the inputs' size is larger than the workspace, for many tokens of a small width too."""
    problem = case(3000, 500, 4, ignored=0).to(torch.float32)
    with Watch() as watch:
        problem.pull(problem.run("chunked", workspace_mb=workspace_mb, **options))
    allowed = workspace_mb * 2**20 / 4
    assert watch.largest <= max(allowed, 64 * 3000)  # a slab has 64 columns at least


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_a_frozen_head_gives_the_same_gradient(dtype: torch.dtype, softcap: float | None) -> None:
    problem = case(ignored=2).to(dtype)
    problem.weight.requires_grad_(False)
    problem.bias.requires_grad_(False)
    out = problem.run("chunked", workspace_mb=0.01, softcap=softcap, temperature=0.7)
    truth = problem.to(torch.float64)
    (want, *_) = truth.pull(truth.run("reference", softcap=softcap, temperature=0.7))
    (out.logp * problem.upstream[0] + out.lse * problem.upstream[1]).sum().backward()
    assert relative(problem.hidden.grad, want) < (1e-5 if dtype == torch.float32 else 4e-3)
    assert problem.weight.grad is None and problem.bias.grad is None


def test_a_tied_head_gets_both_gradients() -> None:
    """With h = 2 E[x] and head E, dE is what reaches it as embedding and as head."""
    table, words = leaf(torch.randn(50, 6), torch.float64), torch.tensor([4, 9, 4])

    def gradient(implementation: str) -> torch.Tensor:
        out = linear_logprobs(2 * table[words], table, words.flip(0), implementation=implementation, workspace_mb=0)
        return torch.autograd.grad(out.logp.sum(), table)[0]

    assert absolute(gradient("chunked"), gradient("reference")) < 1e-12


def test_lora_on_the_head() -> None:
    """W + B A with W frozen: gradients reach A and B alone."""
    problem = case(bias=False)
    a, b = leaf(torch.randn(2, 16), torch.float64), leaf(torch.randn(301, 2), torch.float64)

    def gradients(implementation: str) -> tuple[torch.Tensor, ...]:
        head = problem.weight.detach() + b @ a
        out = linear_logprobs(problem.hidden.detach(), head, problem.targets, implementation=implementation)
        return torch.autograd.grad(out.logp.sum(), (a, b))

    assert all(absolute(x, y) < 1e-11 for x, y in zip(gradients("chunked"), gradients("reference"), strict=True))


@pytest.mark.parametrize("workspace_mb", [256, 0.01])
def test_under_autocast_operands_are_cast_and_statistics_are_not(workspace_mb: float) -> None:
    problem = case(bias=False).to(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = problem.run("chunked", entropy=True, workspace_mb=workspace_mb)
        got = problem.pull(out)
    half = problem.to(torch.bfloat16)
    want = half.run("chunked", entropy=True, workspace_mb=workspace_mb)
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(out, want, strict=True))
    assert [g.dtype for g in got] == [torch.float32, torch.float32]
    assert all(torch.equal(a, b.float()) for a, b in zip(got, half.pull(want), strict=True))


def test_under_gradient_checkpointing_and_a_compiled_body() -> None:
    problem = case(bias=False)
    plain = torch.nn.Linear(16, 16, bias=False, dtype=torch.float64)

    def loss(hidden: torch.Tensor, body: Callable[[torch.Tensor], torch.Tensor] = plain) -> torch.Tensor:
        return linear_logprobs(body(hidden), problem.weight, problem.targets, implementation="chunked").logp.sum()

    (want,) = torch.autograd.grad(loss(problem.hidden), problem.hidden)
    (again,) = torch.autograd.grad(checkpoint(loss, problem.hidden, use_reentrant=False), problem.hidden)
    traced_body = torch.compile(plain, backend="eager", fullgraph=True)
    (traced,) = torch.autograd.grad(loss(problem.hidden, traced_body), problem.hidden)
    assert torch.equal(want, again) and torch.equal(want, traced)


@pytest.mark.parametrize("workspace_mb", [256, 0.01])
def test_a_graph_that_is_kept_gives_the_same_gradient_twice(workspace_mb: float) -> None:
    problem = case()
    loss = problem.run("chunked", workspace_mb=workspace_mb).logp.sum()
    first = torch.autograd.grad(loss, problem.leaves(), retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(loss, problem.leaves()), strict=True))


def test_the_divergence_needs_no_logits_either() -> None:
    problem = big()

    def run() -> None:
        linear_kl(
            problem.hidden, problem.weight, problem.hidden.detach() + 1, problem.weight.detach(), workspace_mb=SLAB_MB
        ).sum().backward()

    count, largest = products(run, LOGITS * WIDTH)
    assert count == 6 and largest <= WORDS * WIDTH  # two heads forward, two again, and the student's two gradients
