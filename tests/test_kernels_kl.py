"""`linear_kl`: closed forms, then parity with whole logits."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernels_cases import absolute, case, leaf, relative

from alignlab.kernels import linear_kl

DIRECTIONS = ["forward", "reverse"]
BOTH = ["reference", "chunked"]


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_two_words(implementation: str, direction: str) -> None:
    """Student (σ(1), 1 − σ(1)), teacher (1/2, 1/2): Σ a log(a / b)."""
    words = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    p, q = 1 / (1 + math.exp(-1)), 0.5
    a, b = (q, p) if direction == "forward" else (p, q)
    expected = a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b))
    one = torch.ones(1, 1, dtype=torch.float64)
    kl = linear_kl(one, words, 0 * one, words, direction=direction, implementation=implementation)
    assert kl.item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_head_does_not_diverge_from_itself(direction: str) -> None:
    problem = case(masked=70)
    kl = linear_kl(
        problem.hidden, problem.weight, problem.hidden, problem.weight, problem.bias, problem.bias,
        direction=direction, workspace_mb=0.01,
    )  # fmt: skip
    gradients = torch.autograd.grad(kl.sum(), problem.leaves())
    assert absolute(kl, torch.zeros(23)) < 1e-13 and all(absolute(g, torch.zeros(1)) < 1e-12 for g in gradients)


@settings(deadline=None, max_examples=25)
@given(
    vocabulary=st.integers(2, 150),
    direction=st.sampled_from(DIRECTIONS),
    options=st.sampled_from([{}, {"temperature": 0.5}, {"softcap": 2.0, "teacher_softcap": 3, "temperature": 2}]),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_chunked_is_the_reference(vocabulary, direction, options, masked, seed) -> None:
    hidden_words = seed % (vocabulary - 1) if masked else 0
    problem = case(7, vocabulary, 3, masked=hidden_words, ignored=0, seed=seed)
    teacher = case(7, vocabulary, 5, masked=hidden_words, ignored=0, seed=seed + 100)

    def run(implementation: str) -> list[torch.Tensor]:
        kl = linear_kl(
            problem.hidden, problem.weight, teacher.hidden, teacher.weight, problem.bias, teacher.bias,
            direction=direction, workspace_mb=1e-4, implementation=implementation, mask=torch.arange(7) != seed % 7,
            **options,
        )  # fmt: skip
        return [kl, *torch.autograd.grad((kl * problem.upstream[0]).sum(), problem.leaves())]

    got, want = run("chunked"), run("reference")
    assert got[0][seed % 7] == 0 and (got[0].detach() > -1e-12).all()
    assert all(absolute(a, b) < 1e-10 for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_float32_is_exact_and_the_teacher_is_constant(direction: str) -> None:
    problem, teacher = case(64, 3000, 32, ignored=0).to(torch.float32), case(64, 3000, 16, seed=1).to(torch.float32)
    truth, other = problem.to(torch.float64), teacher.to(torch.float64)
    kl = linear_kl(problem.hidden, problem.weight, teacher.hidden, teacher.weight, direction=direction, workspace_mb=1)
    want = linear_kl(
        truth.hidden, truth.weight, other.hidden, other.weight, direction=direction, implementation="reference"
    )
    kl.sum().backward()
    want.sum().backward()
    assert relative(kl, want) < 1e-6
    assert relative(problem.hidden.grad, truth.hidden.grad) < 1e-5
    assert relative(problem.weight.grad, truth.weight.grad) < 1e-5
    assert teacher.hidden.grad is None and teacher.weight.grad is None


def test_what_the_teacher_rules_out_costs_infinitely_much_in_reverse_only() -> None:
    words = torch.eye(2, dtype=torch.float64)
    bias = torch.tensor([0.0, -torch.inf], dtype=torch.float64)
    kl = [linear_kl(words, words, words, words, None, bias, direction=d, implementation="chunked") for d in DIRECTIONS]
    assert kl[0].isfinite().all() and (kl[1] == torch.inf).all()


def test_vocabularies_and_names_are_checked() -> None:
    h, w = leaf(torch.ones(1, 2), torch.float64), leaf(torch.ones(3, 2), torch.float64)
    with pytest.raises((ValueError, TypeError)):  # the signature's shapes say it first where they are checked
        linear_kl(h, w, h, torch.ones(4, 2, dtype=torch.float64))
