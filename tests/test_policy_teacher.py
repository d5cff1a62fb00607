"""Divergences between a policy and a teacher of another width, against the whole logits of both."""

from typing import Any

import pytest
import torch
from torch import Tensor

from alignlab.batch import TokenBatch
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import ConfigError
from alignlab.policy import Llama, Policy
from alignlab.policy.logits import LogitForm

BOTH = frozenset({"kl_to_teacher", "kl_from_teacher"})
ROWS = [[3, 5, 7, 9, 4], [6, 2], [1, 8, 8, 2, 5, 5, 9, 4, 3, 7, 2]]
MASKS = [[False, False, True, True, True], [False, True], [False] + [True, False] * 5]


def policy(width: int, seed: int, layers: int = 1) -> Policy:
    """A model in double precision, its logits a few units apart."""
    tokenizer = TrainTokenizer(kind="word", vocab_size=64).train(["a b c d e f g h i j k"])
    shape = Llama(layers=layers, width=width, heads=2, feedforward=24, context=32, tie_embeddings=False)
    found = Policy(shape.build(tokenizer, seed).double(), tokenizer)
    with torch.no_grad():
        found.model.get_output_embeddings().weight.mul_(30.0)
    return found


@pytest.fixture
def student() -> Policy:
    return policy(width=16, seed=0)


@pytest.fixture
def teacher() -> Policy:
    return policy(width=24, seed=1, layers=2).requires_grad_(False)


def batch(temperature: float = 1.0) -> TokenBatch:
    return TokenBatch.of(ROWS, MASKS, temperature=temperature)


def log_probabilities(model: Policy, rows: TokenBatch) -> Tensor:
    """`(T, V)` of the distribution that predicts each token, from whole logits, one sequence at a time."""
    parts = []
    for s in range(rows.num_sequences):
        logits = model.model(input_ids=rows.tokens[rows.sequence_id == s][None]).logits[0] / rows.temperature
        parts.append(torch.cat([torch.zeros_like(logits[:1]), logits[:-1].log_softmax(-1)]))
    return torch.cat(parts)


def enumerated(student: Policy, teacher: Policy, rows: TokenBatch) -> dict[str, Tensor]:
    """`(T,)` nats, 0 where nothing is scored."""
    p, q = log_probabilities(student, rows), log_probabilities(teacher, rows)
    found = {"kl_to_teacher": (p.exp() * (p - q)).sum(-1), "kl_from_teacher": (q.exp() * (q - p)).sum(-1)}
    return {k: torch.where(rows.response_mask, v, 0.0) for k, v in found.items()}


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("name", sorted(BOTH))
def test_values_and_gradients_are_those_of_the_enumerated_divergence(
    name: str, temperature: float, student: Policy, teacher: Policy
) -> None:
    rows = batch(temperature)
    found = student.token_stats(rows, frozenset({name}), teacher=teacher).values
    assert found.keys() == {name}
    expected = enumerated(student, teacher, rows)[name]
    assert torch.allclose(found[name], expected, atol=1e-10, rtol=0)
    assert float(expected[rows.response_mask].detach().min()) > 0.01
    weight = torch.linspace(0.5, 1.5, rows.num_tokens, dtype=torch.float64)
    parameters = list(student.model.parameters())
    ours = torch.autograd.grad((weight * found[name]).sum(), parameters)
    theirs = torch.autograd.grad((weight * expected).sum(), parameters)
    assert all(torch.allclose(a, b, atol=1e-9, rtol=0) for a, b in zip(ours, theirs, strict=True))
    assert max(float(g.abs().max()) for g in theirs) > 0.01


def test_both_come_together_and_beside_log_probabilities(student: Policy, teacher: Policy) -> None:
    found = student.token_stats(batch(), BOTH | {"logp"}, teacher=teacher)
    expected = enumerated(student, teacher, batch())
    assert torch.allclose(found.kl_to_teacher, expected["kl_to_teacher"], atol=1e-10, rtol=0)
    assert torch.allclose(found.kl_from_teacher, expected["kl_from_teacher"], atol=1e-10, rtol=0)
    assert torch.equal(found.logp, student.token_stats(batch(), frozenset({"logp"})).logp)


def test_a_model_is_at_distance_0_from_itself(student: Policy) -> None:
    with torch.no_grad():
        found = student.token_stats(batch(), BOTH, teacher=student)
    assert float(found.kl_to_teacher.abs().max()) < 1e-12 and float(found.kl_from_teacher.abs().max()) < 1e-12


def test_the_teacher_gets_no_gradient(student: Policy, teacher: Policy) -> None:
    teacher.requires_grad_(True)
    sum(student.token_stats(batch(), BOTH, teacher=teacher).values.values()).sum().backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None for p in student.parameters())


def test_a_soft_cap_and_a_factor_of_either_model_count(student: Policy, teacher: Policy) -> None:
    """Logits are capped and scaled before they are compared, each as its own model does it."""
    student.logits, teacher.logits = LogitForm(0.5, 5.0), LogitForm(3.0, 2.0)
    found = student.token_stats(batch(), BOTH, teacher=teacher)

    def capped(model: Policy) -> Tensor:
        weight = model.model.get_output_embeddings().weight
        logits = model.logits.of(model.hidden_states(batch()) @ weight.T)
        return torch.cat([logits[:1], logits[:-1]]).log_softmax(-1)

    p, q = capped(student), capped(teacher)
    mask = batch().response_mask
    assert torch.allclose(found.kl_to_teacher[mask], (p.exp() * (p - q)).sum(-1)[mask], atol=1e-10, rtol=0)
    assert torch.allclose(found.kl_from_teacher[mask], (q.exp() * (q - p)).sum(-1)[mask], atol=1e-10, rtol=0)


def test_an_empty_batch_has_no_divergences_and_still_a_graph(student: Policy, teacher: Policy) -> None:
    """A process that ran out of micro-batches takes part in the backward pass."""
    found = student.token_stats(batch().select_units([]), BOTH, teacher=teacher)
    for value in found.values.values():
        assert value.shape == (0,) and value.requires_grad


@pytest.mark.parametrize("name", sorted(BOTH))
def test_without_a_teacher_it_is_an_error_that_names_the_statistic(name: str, student: Policy) -> None:
    with pytest.raises(ConfigError, match=f"Policy: {name} needs a teacher"):
        student.token_stats(batch(), frozenset({name}))


def test_unknown_statistics_are_refused_with_those_there_are(student: Policy, teacher: Policy) -> None:
    wanted: Any = frozenset({"kl_of_teacher"})
    with pytest.raises(ConfigError, match=r"gives entropy, kl_from_teacher, kl_to_teacher, .*, not kl_of_teacher"):
        student.token_stats(batch(), wanted, teacher=teacher)
