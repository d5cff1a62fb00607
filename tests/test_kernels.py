"""`linear_logprobs`: closed forms, then parity with the float64 reference, then the corners."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernels_cases import Case, absolute, case, leaf, relative

from alignlab.kernels import linear_logprobs
from alignlab.kernels.linear import choose

EXACT = ["reference", "chunked"]
PATHS = {"rows": 256, "slabs": 0.01}
"""Workspaces, in MiB, that lead to each of the two ways of `chunked`."""


@pytest.mark.parametrize("implementation", EXACT)
def test_a_head_of_zeros_is_uniform(implementation: str) -> None:
    """p = 1/V, so logp = −log V, lse = entropy = log V, and d logp / dW = (onehot − 1/V) hᵀ."""
    hidden, weight = leaf(torch.tensor([[1.0, 2.0]]), torch.float64), leaf(torch.zeros(5, 2), torch.float64)
    out = linear_logprobs(hidden, weight, torch.tensor([3]), entropy=True, implementation=implementation)
    assert [s.item() for s in out] == pytest.approx([-math.log(5), math.log(5), math.log(5)], abs=1e-14)
    out.logp.sum().backward()
    expected = torch.full((5,), -0.2, dtype=torch.float64)
    expected[3] += 1
    assert absolute(weight.grad, expected[:, None] * hidden) < 1e-15
    assert absolute(hidden.grad, torch.zeros(1, 2)) < 1e-15


@pytest.mark.parametrize("implementation", EXACT)
@pytest.mark.parametrize(("temperature", "softcap"), [(1.0, None), (0.5, None), (2.0, 3.0)])
def test_two_words_are_a_logistic(implementation: str, temperature: float, softcap: float | None) -> None:
    """Logits (z, 0) give logp = log σ(z), entropy = log(1 + e^z) − z σ(z), and d logp / dx = (1 − σ) dz/dx."""
    x = leaf(torch.tensor([[1.5]]), torch.float64)
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    out = linear_logprobs(
        x, weight, torch.tensor([0]), temperature=temperature, softcap=softcap, entropy=True,
        implementation=implementation,
    )  # fmt: skip
    tanh = math.tanh(1.5 / softcap) if softcap else 0.0
    z = (softcap * tanh if softcap else 1.5) / temperature
    sigma = 1 / (1 + math.exp(-z))
    expected = [math.log(sigma), math.log1p(math.exp(z)), math.log1p(math.exp(z)) - z * sigma]
    assert [s.item() for s in out] == pytest.approx(expected, abs=1e-14)
    (gradient,) = torch.autograd.grad(out.logp.sum(), x)
    assert float(gradient) == pytest.approx((1 - sigma) * (1 - tanh**2) / temperature, abs=1e-14)


@settings(deadline=None, max_examples=40)
@given(
    tokens=st.integers(1, 9),
    vocabulary=st.integers(1, 150),
    width=st.integers(1, 5),
    bias=st.booleans(),
    entropy=st.booleans(),
    temperature=st.sampled_from([1.0, 0.6, 3]),
    softcap=st.sampled_from([None, 1.5, 30]),
    path=st.sampled_from(sorted(PATHS)),
    trains=st.sampled_from(["all", "hidden", "weight"]),
    by=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_chunked_is_the_reference(
    tokens, vocabulary, width, bias, entropy, temperature, softcap, path, trains, by, seed
):
    """All outputs, and the gradients of all of them or of the log-probabilities alone."""
    masked = seed % vocabulary if bias else 0
    problem = case(tokens, vocabulary, width, bias=bias, masked=masked, ignored=seed % (tokens + 1), seed=seed)
    for t in problem.leaves():
        t.requires_grad_(trains == "all" or t is getattr(problem, trains))
    options = {"entropy": entropy, "temperature": temperature, "softcap": softcap}
    want, got = problem.run("reference", **options), problem.run("chunked", workspace_mb=PATHS[path] / 10, **options)
    for a, b in zip(got, want, strict=True):
        assert (a is None and b is None) or absolute(a, b) < 1e-11
    leaves = [t if t is not None and t.requires_grad else None for t in (problem.hidden, problem.weight, problem.bias)]
    learning = Case(*leaves, problem.targets, problem.upstream)
    for a, b in zip(learning.pull(got, by=by), learning.pull(want, by=by), strict=True):
        assert absolute(a, b) < 1e-10


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("options", [{}, {"entropy": True}, {"softcap": 5.0, "temperature": 0.7, "entropy": True}])
def test_float32_is_exact(path: str, options: dict) -> None:
    """Against float64: logp and lse within 2e-6 absolute, entropy (a sum of 3000 products) within 4e-6, gradients
    within 1e-5 relative."""
    truth = case(64, 3000, 64).to(torch.float32).to(torch.float64)
    problem = truth.to(torch.float32)
    got, want = problem.run("chunked", workspace_mb=PATHS[path] * 100, **options), truth.run("reference", **options)
    for value, expected, bound in zip(got, want, (2e-6, 2e-6, 4e-6), strict=True):
        assert value is None or (value.dtype == torch.float32 and absolute(value, expected) < bound)
    for by in (1, 3):
        for value, expected in zip(
            problem.pull(got, by=by, keep=True), truth.pull(want, by=by, keep=True), strict=True
        ):
            assert relative(value, expected) < 1e-5


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("options", [{}, {"entropy": True}, {"softcap": 80.0, "temperature": 0.5, "entropy": True}])
def test_targets_that_have_vanished_are_exact(path: str, options: dict) -> None:
    """Probabilities far below float32's smallest: their logarithms, and their gradients, are still those of float64."""
    truth = case(64, 300, 16, scale=60.0).to(torch.float32).to(torch.float64)
    problem = truth.to(torch.float32)
    got, want = problem.run("chunked", workspace_mb=PATHS[path] / 10, **options), truth.run("reference", **options)
    assert (want.logp < -110).any() and (want.logp > -60).any()
    for value, expected in zip(got, want, strict=True):
        assert value is None or absolute(value, expected) < 2e-7 * float(want.logp.detach().abs().max()) + 2e-6
    for by in (1, 3):
        for value, expected in zip(
            problem.pull(got, by=by, keep=True), truth.pull(want, by=by, keep=True), strict=True
        ):
            assert relative(value, expected) < 1e-4  # float32 logits of 200 are good to 1e-5, and so are probabilities


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("by", [1, 3])
def test_a_second_backward_finds_what_the_first_found(path: str, by: int) -> None:
    problem = case().to(torch.float32)
    stats = problem.run("chunked", workspace_mb=PATHS[path], entropy=True)
    first, second = problem.pull(stats, by=by, keep=True), problem.pull(stats, by=by)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("path", PATHS)
def test_bfloat16_is_no_worse_than_eager(path: str) -> None:
    """Inputs in bfloat16: logp within 1e-3, and gradients at least as close as those of bfloat16 logits."""
    truth = case(64, 3000, 64, bias=False).to(torch.bfloat16).to(torch.float64)
    problem, eager = truth.to(torch.bfloat16), truth.to(torch.bfloat16)
    got, want = problem.run("chunked", workspace_mb=PATHS[path] * 100), truth.run("reference")
    assert got.logp.dtype == torch.float32 and absolute(got.logp, want.logp) < 1e-3
    logp = torch.log_softmax((eager.hidden @ eager.weight.t()).float(), -1)
    lse = torch.logsumexp((eager.hidden @ eager.weight.t()).float(), -1)
    keep = truth.targets != -100
    chosen = logp.gather(1, truth.targets.clamp(min=0)[:, None])[:, 0] * keep
    naive = eager.pull(type(got)(chosen, lse * keep, None))
    for value, worse, expected in zip(problem.pull(got), naive, truth.pull(want), strict=True):
        assert value.dtype == torch.bfloat16 and relative(value, expected) <= relative(worse, expected)


@pytest.mark.parametrize("path", PATHS)
def test_gradients_are_the_slopes(path: str) -> None:
    problem = case(4, 70, 3, ignored=1)

    def outputs(*leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden, weight, bias = leaves
        return linear_logprobs(
            hidden, weight, problem.targets, bias, entropy=True, softcap=4.0, temperature=0.8,
            workspace_mb=PATHS[path] / 10, implementation="chunked",
        )  # fmt: skip

    assert torch.autograd.gradcheck(outputs, problem.leaves(), fast_mode=True)


@pytest.mark.parametrize("implementation", EXACT)
@pytest.mark.parametrize("where", ["bias", "weight"])
@pytest.mark.parametrize("softcap", [None, 4.0])
def test_a_masked_word_does_not_exist(implementation: str, where: str, softcap: float | None) -> None:
    """Words at −inf, by bias or by weight, change nothing against a head without them, and get no gradient."""
    small = case(9, 40, 6, bias=True)
    pad = 64  # a whole slab of nothing, before the words that exist
    weight, bias = torch.cat([torch.ones(pad, 6), small.weight]), torch.cat([torch.zeros(pad), small.bias])
    (weight if where == "weight" else bias)[:pad] = -torch.inf
    targets = torch.where(small.targets < 0, small.targets, small.targets + pad)
    big = Case(small.hidden, leaf(weight, torch.float64), leaf(bias, torch.float64), targets, small.upstream)
    options = {"entropy": True, "softcap": softcap, "workspace_mb": 1e-4}
    got, want = big.run(implementation, **options), small.run(implementation, **options)
    assert all(absolute(a, b) < 1e-13 for a, b in zip(got, want, strict=True))
    hidden, d_weight, d_bias = big.pull(got)
    for value, expected in zip((hidden, d_weight[pad:], d_bias[pad:]), small.pull(want), strict=True):
        assert absolute(value, expected) < 1e-13
    assert not d_weight[:pad].any() and not d_bias[:pad].any()


@pytest.mark.parametrize("implementation", EXACT)
@pytest.mark.parametrize("path", PATHS)
def test_logits_of_ten_thousand(implementation: str, path: str) -> None:
    """Half of the words at +1e4, half at −1e4: the losers vanish, the winners are uniform."""
    weight = leaf(torch.tensor([1e4, -1e4]).repeat(60)[:, None], torch.float32)
    hidden, targets = leaf(torch.ones(3, 1), torch.float32), torch.tensor([0, 1, 2])
    out = linear_logprobs(
        hidden, weight, targets, entropy=True, workspace_mb=PATHS[path] / 100, implementation=implementation
    )
    assert out.logp.tolist() == pytest.approx([-math.log(60), -2e4 - math.log(60), -math.log(60)], rel=1e-6)
    assert out.entropy.tolist() == pytest.approx([math.log(60)] * 3, abs=1e-5)
    (out.logp.sum() + out.entropy.sum()).backward()
    assert weight.grad[2].item() == pytest.approx(1 - 3 / 60, abs=1e-6) and hidden.grad.isfinite().all()


@pytest.mark.parametrize("implementation", EXACT)
@pytest.mark.parametrize(("tokens", "ignored"), [(0, 0), (5, 5)])
@pytest.mark.parametrize("path", PATHS)
def test_nothing_to_score_is_zero(implementation: str, tokens: int, ignored: int, path: str) -> None:
    problem = case(tokens, 70, 4, ignored=ignored)
    out = problem.run(implementation, entropy=True, workspace_mb=PATHS[path] / 100)
    assert all(s.shape == (tokens,) and not s.any() for s in out)
    assert all(gradient is not None and not gradient.any() for gradient in problem.pull(out))


@pytest.mark.parametrize("implementation", EXACT)
def test_ignored_tokens_count_for_nothing(implementation: str) -> None:
    """Whatever stands in an ignored token's hidden state, even NaN, changes no bit elsewhere."""
    problem, other = case(ignored=5), case(ignored=5)
    with torch.no_grad():
        other.hidden[:5] = torch.nan
    got, want = other.run(implementation, entropy=True), problem.run(implementation, entropy=True)
    assert all(torch.equal(a, b) and not a[:5].any() for a, b in zip(got, want, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(other.pull(got), problem.pull(want), strict=True))


@pytest.mark.parametrize("path", PATHS)
def test_upstream_gradients_of_any_stride(path: str) -> None:
    """`.sum()` hands down one value with stride 0; a transposed product hands down one with stride 2."""
    problem = case()
    out = problem.run("chunked", workspace_mb=PATHS[path])
    ones = torch.autograd.grad(out.logp, problem.leaves(), torch.ones(23).double(), retain_graph=True)
    summed = torch.autograd.grad(out.logp.sum(), problem.leaves(), retain_graph=True)
    strided = torch.autograd.grad(out.logp, problem.leaves(), torch.ones(23, 2).double()[:, 0])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(ones, summed, strided, strict=True))


@pytest.mark.parametrize("path", PATHS)
def test_inputs_of_any_stride(path: str) -> None:
    problem = case(bias=False)
    out = linear_logprobs(
        problem.hidden.t().contiguous().t(), problem.weight.t().contiguous().t(), problem.targets,
        workspace_mb=PATHS[path], implementation="chunked",
    )  # fmt: skip
    assert absolute(out.logp, problem.run("reference").logp) < 1e-12


@pytest.mark.parametrize("path", PATHS)
def test_same_inputs_same_bits(path: str) -> None:
    def once() -> list[torch.Tensor]:
        problem = case().to(torch.float32)
        out = problem.run("chunked", entropy=True, workspace_mb=PATHS[path])
        return [*out, *problem.pull(out)]

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


@pytest.mark.parametrize("bad", [-1, 301, -(2**40)])
@pytest.mark.parametrize("implementation", EXACT)
def test_a_target_outside_the_vocabulary_is_named(bad: int, implementation: str) -> None:
    problem = case()
    problem.targets[7] = bad
    with pytest.raises(IndexError, match=rf"target {bad} at token 7 is outside the vocabulary of 301"):
        problem.run(implementation)


def test_arguments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        case().run(None, temperature=0)
    with pytest.raises(ValueError, match="softcap must be > 0 or None, got -1"):
        case().run(None, softcap=-1)


def test_triton_by_name_says_what_it_needs() -> None:
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match="needs an NVIDIA GPU"):
        case().to(torch.float32).run("triton")
    with pytest.raises(ValueError, match="triton takes half types and float32"):
        case().run("triton")


def test_the_default_on_a_cpu_is_chunked() -> None:
    assert {choose(None, torch.zeros(1, 1, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)} == {"chunked"}


def test_importing_the_kernels_leaves_triton_alone() -> None:
    code = "import sys, alignlab.kernels; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
