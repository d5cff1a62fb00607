"""Checks that masked values, units of weight 0 and prompts have no effect."""

from dataclasses import replace

import torch
from torch import Tensor

from alignlab.testing.batches import longer_prompts
from alignlab.testing.compare import close, same_bits
from alignlab.testing.objective.cases import PER_SEQUENCE, Axis, Case
from alignlab.testing.objective.step import Outcome, run, same_step
from alignlab.testing.objective.subject import ObjectiveSubject


def masked_values_change_nothing(subject: ObjectiveSubject) -> None:
    """100 and NaN in every masked value change nothing, to the bit: not the loss, not a gradient, not a metric."""
    case = subject.case()
    clean = run(subject.make(), case)
    for value in (100.0, float("nan")):
        what = f"with {value} in every masked value (batch.scored(x) keeps it out) against without"
        _same_outcome(subject.name, run(subject.make(), poisoned(case, value)), clean, what)


def poisoned(case: Case, value: float) -> Case:
    """The case with `value` in every masked place of every per-token statistic and extra."""
    masked = ~case.batch.response_mask
    return case.map(lambda name, x, axis: x.masked_fill(masked, value) if axis == "token" and x.ndim == 1 else x)


def prompt_length_changes_nothing(subject: ObjectiveSubject) -> None:
    """The same statistics at response tokens after longer prompts give the same loss, gradient and metrics."""
    case = subject.case()
    longer = Case(longer_prompts(case.batch)).fresh()
    expected, found = run(subject.make(), case), run(subject.make(), longer)
    what = "with longer prompts against shorter ones (divide by response_lengths(), not lengths())"
    same_step(subject.name, _at_responses(found, longer), _at_responses(expected, case), what)
    for name, metric in expected.metrics.items():
        close(subject.name, found.metrics[name], metric, f"metric {name} {what}")


def _at_responses(outcome: Outcome, case: Case) -> Outcome:
    """The outcome with the gradients of per-token statistics at response tokens alone."""
    mask = case.batch.response_mask
    return replace(outcome, gradient={k: g if k in PER_SEQUENCE else g[mask] for k, g in outcome.gradient.items()})


def weight_0_changes_nothing(subject: ObjectiveSubject) -> None:
    """Units of weight 0 and log-probability -inf (oracles give them to impossible events) change no bit of the result.

    The gradient of these units is compared where it is finite: a nonlinear loss makes 0 * inf of it, and no model gives
    -inf.
    """
    case = _every_second_weightless(subject.case(8))
    clean = run(subject.make(), case)
    for value in (100.0, -float("inf"), float("nan")):
        found = run(subject.make(), _with_weightless(case, value))
        what = f"with {value} in every unit of weight 0 (return values from self.loss, metrics from Mean.of)"
        counts = {k: ~_weightless(case, k) for k in clean.gradient} if value != 100 else {}
        _same_outcome(subject.name, found, clean, what, counts)


def _same_outcome(
    owner: str, found: Outcome, expected: Outcome, what: str, counts: dict[str, Tensor] | None = None
) -> None:
    """The same bits.

    Args:
        counts: which entries of a statistic's gradient are compared; all where it is not named.
    """
    same_bits(owner, found.loss, expected.loss, f"the loss {what}")
    for name, metric in expected.metrics.items():
        same_bits(owner, found.metrics[name], metric, f"metric {name} {what}")
    for name, gradient in expected.gradient.items():
        at = (counts or {}).get(name, torch.ones_like(gradient, dtype=torch.bool))
        same_bits(owner, found.gradient[name][at], gradient[at], f"the gradient of {name} {what}")


def _every_second_weightless(case: Case) -> Case:
    weight = case.batch.weight.clone()
    weight[1::2] = 0
    return case.with_weight(weight)


def _weightless(case: Case, name: str) -> Tensor:
    """Where a statistic belongs to a unit of weight 0."""
    sequences: Tensor = (case.batch.weight == 0)[case.batch.unit]
    return sequences if name in PER_SEQUENCE else case.along(sequences)


def _with_weightless(case: Case, value: float) -> Case:
    """The case with `value` in every statistic and extra of the units of weight 0."""
    units = case.batch.weight == 0
    sequences = units[case.batch.unit]
    of: dict[Axis, Tensor] = {"unit": units, "sequence": sequences, "token": case.along(sequences)}

    def fill(name: str, x: Tensor, axis: Axis) -> Tensor:
        return x.masked_fill(of[axis], value) if x.ndim == 1 and name != "weight" else x

    return case.map(fill)
