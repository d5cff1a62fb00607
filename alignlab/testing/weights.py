"""The check that what has weight 0 takes no part, whatever is said of it."""

from dataclasses import replace

import torch
from torch import Tensor

from alignlab.testing.cases import PER_SEQUENCE, Case, Subject
from alignlab.testing.compare import same_bits
from alignlab.testing.step import run


def what_has_weight_0_cannot_leak_in(subject: Subject) -> None:
    """Oracles weigh what cannot happen with 0 and call it -inf: the others cost and teach what they did, to the bit.

    Its own gradient is looked at where it is finite: a curved loss makes 0 * inf of it, and no model says -inf.
    """
    case = _every_second_weightless(subject.case(8))
    clean = run(subject.make(), case)
    for value in (100.0, -float("inf"), float("nan")):
        found = run(subject.make(), _said_of_the_weightless(case, value))
        what = f"with {value} in every unit of weight 0 (build terms with Loss.over_..., metrics with Mean.of)"
        same_bits(subject.name, found.loss, clean.loss, f"the loss {what}")
        for name, metric in clean.metrics.items():
            same_bits(subject.name, found.metrics[name], metric, f"metric {name} {what}")
        for name, gradient in clean.gradient.items():
            counts = ~_weightless(case, name) if value != 100 else torch.ones_like(gradient, dtype=torch.bool)
            same_bits(subject.name, found.gradient[name][counts], gradient[counts], f"the gradient of {name} {what}")


def _every_second_weightless(case: Case) -> Case:
    weight = case.batch.weight.clone()
    weight[1::2] = 0
    return replace(case, batch=replace(case.batch, weight=weight))


def _weightless(case: Case, name: str) -> Tensor:
    """Where a statistic belongs to a unit of weight 0."""
    sequences: Tensor = case.batch.weight_by_sequence() == 0
    return sequences if name in PER_SEQUENCE else sequences[case.batch.sequence_id]


def _said_of_the_weightless(case: Case, value: float) -> Case:
    """The case with `value` in every statistic and extra of the units that weigh nothing."""
    sequences = case.batch.weight_by_sequence() == 0
    masks = {len(m): m for m in (sequences, sequences[case.batch.sequence_id])}
    weight = case.batch.weight
    said = case.map(lambda x: x.masked_fill(masks[len(x)], value) if x.ndim == 1 and len(x) in masks else x)
    return replace(said, batch=replace(said.batch, weight=weight))
