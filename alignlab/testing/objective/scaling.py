"""Checks that a loss means the same however its batch is weighted, cut, ordered and shared out."""

import torch

from alignlab.testing.compare import close
from alignlab.testing.objective.cases import PER_SEQUENCE, Case
from alignlab.testing.objective.step import Outcome, constants_of, loss_on, run, same_step, whole
from alignlab.testing.objective.subject import ObjectiveSubject

ONE_UNIT = 1
"""A budget of tokens that makes every unit a micro-batch of its own."""


def weights_count_as_copies(subject: ObjectiveSubject) -> None:
    """A unit of weight 3 counts as three of weight 1, in terms, units and metrics: oracles give exact probabilities."""
    objective, case = subject.make(), subject.case()
    constants = constants_of(objective, case)
    heavy = case.with_weight(3 * case.batch.weight)
    once, thrice = (loss_on(objective, c, constants) for c in (case, heavy))
    for name, term in once.terms.items():
        close(subject.name, thrice.terms[name], 3 * term, f"term {name}, weights times 3, against 3 times itself")
        counted = objective.units(heavy.batch)[name], 3 * objective.units(case.batch)[name]
        close(subject.name, *counted, f"units of {name} with every weight times 3, against 3 times themselves")
    for name, metric in once.metrics.items():
        close(subject.name, thrice.metrics[name].value(), metric.value(), f"metric {name} with every weight times 3")
    _copies(subject, case)


def _copies(subject: ObjectiveSubject, case: Case) -> None:
    """A unit of weight 2 among others has the loss and gradient of two copies of it."""
    units = list(range(case.batch.num_units))
    double = case.batch.weight.clone()
    double[0] *= 2
    heavy, copied = run(subject.make(), case.with_weight(double)), run(subject.make(), case.select([0, *units]).fresh())
    close(subject.name, heavy.loss, copied.loss, "the loss with one unit's weight doubled against the unit given twice")
    for name, metric in copied.metrics.items():
        what = f"metric {name} with one unit's weight doubled against the unit given twice"
        close(subject.name, heavy.metrics[name], metric, what)


def gradient_is_the_same_however_the_batch_is_split(subject: ObjectiveSubject) -> None:
    """One batch == a few micro-batches == one per unit, with unequal lengths: memory must not change what is learnt."""
    case = subject.case(8)
    expected = run(subject.make(), case)
    for budget in (case.batch.num_tokens // 2, case.batch.num_tokens // 4, ONE_UNIT):
        found = run(subject.make(), case, budget)
        parts = len(whole(subject.make(), case, budget).parts)
        same_step(subject.name, found, expected, f"in {parts} micro-batches against one")


def gradient_is_the_same_on_two_ranks(subject: ObjectiveSubject) -> None:
    """Two processes with 4 and 3 units, the second with an empty micro-batch, learn what one process does."""
    case = subject.case(7)
    found = run(subject.make(), case, ONE_UNIT, ranks=2)
    same_step(subject.name, found, run(subject.make(), case), "on two ranks against one")


def order_and_neighbours_change_nothing(subject: ObjectiveSubject) -> None:
    """The losses of the units alone add up to the loss of the batch, in any order of the units."""
    objective, case = subject.make(), subject.case()
    constants = constants_of(objective, case)
    units = list(range(case.batch.num_units))
    together = loss_on(objective, case, constants).terms
    permuted = loss_on(objective, case.select([*units[1::2], *reversed(units[0::2])]), constants).terms
    alone = [loss_on(objective, case.select([unit]), constants).terms for unit in units]
    for name, term in together.items():
        close(subject.name, permuted[name], term, f"term {name} in another order against in order")
        added = torch.stack([a[name] for a in alone]).sum()
        close(subject.name, added, term, f"term {name} of every unit alone, added up, against together")


def empty_and_masked_batches_are_free(subject: ObjectiveSubject) -> None:
    """No unit, no weight or no response token: no NaN, zero gradient, and zero loss wherever there are zero units."""
    objective, case = subject.make(), subject.case()
    nothing = case.select([])
    for name, term in loss_on(objective, nothing, constants_of(objective, case)).terms.items():
        assert term.requires_grad, (
            f"{subject.name}: term {name} of an empty batch must stay a sum over the statistics, not a constant: a "
            f"process that has run out of micro-batches still takes part in the backward pass"
        )
    _is_free(subject, nothing.fresh(), "an empty batch", gradients=list(case.stats))
    weightless = case.with_weight(0 * case.batch.weight)
    _is_free(subject, weightless, "a batch of weight 0", gradients=list(case.stats))
    masked = case.with_mask(torch.zeros_like(case.batch.response_mask))
    _is_free(subject, masked, "a wholly masked batch", [k for k in case.stats if k not in PER_SEQUENCE], units=True)


def _is_free(subject: ObjectiveSubject, case: Case, what: str, gradients: list[str], units: bool = False) -> None:
    """No NaN, no gradient of the named statistics, and no loss where there are no units.

    Args:
        units: whether the case may have units.
    """
    found = run(subject.make(), case)
    counted = torch.stack(list(found.units.values()))
    assert torch.isfinite(found.loss), f"{subject.name}: the loss of {what} is {float(found.loss)}"
    assert counted.any() or found.loss == 0, f"{subject.name}: the loss of {what} is {float(found.loss)}, not 0"
    assert units or not counted.any(), f"{subject.name}: {what} has units {dict(found.units)}, not 0"
    for name in gradients:
        gradient = found.gradient[name]
        assert not gradient.any(), (
            f"{subject.name}: {what} has a gradient of {name}, up to {float(gradient.abs().max())}"
        )
    for name, metric in found.metrics.items():
        assert torch.isfinite(metric), f"{subject.name}: metric {name} of {what} is {float(metric)}"


def metrics_are_means_over_units(subject: ObjectiveSubject) -> None:
    """The same 7 units in one batch, in several and on 2 ranks: the same metrics, without gradient."""
    objective, case = subject.make(), subject.case(7)
    for name, mean in loss_on(objective, case, constants_of(objective, case)).metrics.items():
        tracked = mean.total.requires_grad or mean.weight.requires_grad
        assert not tracked, f"{subject.name}: metric {name} carries a gradient; pass values, or build it with Mean.of"
    expected = run(objective, case)
    tokens = case.batch.num_tokens
    for what, budget, ranks in (("in parts", tokens // 3, 1), ("unit by unit", 1, 1), ("on 2 ranks", 1, 2)):
        _same_metrics(subject, run(subject.make(), case, budget, ranks), expected, what)


def _same_metrics(subject: ObjectiveSubject, found: Outcome, expected: Outcome, what: str) -> None:
    assert found.metrics.keys() == expected.metrics.keys(), (
        f"{subject.name}: metrics {what} are {sorted(found.metrics)}, not {sorted(expected.metrics)}"
    )
    for name, value in expected.metrics.items():
        close(subject.name, found.metrics[name], value, f"metric {name} {what} against in one batch")
