"""Checks of an objective: what must hold for every loss, whatever it is for.

Rules 1 to 8 are the traps that widely used frameworks fell into: a loss scale that depends on the micro-batch, masks
applied to the numerator only, metrics averaged over batches. The others keep objectives pure.
"""

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch

from alignlab.batch import Batch
from alignlab.objective import Objective
from alignlab.testing import rules
from alignlab.testing.alter import extreme, poisoned, tensors
from alignlab.testing.apply import one_case_each
from alignlab.testing.cases import PER_SEQUENCE, Extra, Subject
from alignlab.testing.compare import Downcasts, close, is_free, same_bits, same_step
from alignlab.testing.paths import fused_and_eager_paths_agree
from alignlab.testing.step import run, statistic
from alignlab.testing.weights import what_has_weight_0_cannot_leak_in

_UNIT_WORDS = re.compile(r"\b(token|sequence|pair|answer|sample|group|prompt|document|turn)s?\b", re.IGNORECASE)


def version_is_a_literal(subject: Subject) -> None:
    """The class states its own VERSION."""
    rules.check_version(subject.make())


def arguments_are_attributes(subject: Subject) -> None:
    """Constructor arguments are attributes, and stay as they are."""
    rules.check_arguments(subject.make())


def declares_what_it_reads(subject: Subject) -> None:
    """`needs` and `reads` name all that it asks of the policy and of the batch."""
    case = subject.case()
    try:
        run(subject.make(), case)
    except KeyError as error:
        raise AssertionError(f"{subject.name}: {error.args[0]}") from error


def same_input_gives_the_same_bits(subject: Subject) -> None:
    """Pure: no randomness, no memory of earlier calls, no input changed in place."""
    objective, case = subject.make(), subject.case()
    before = copy.deepcopy(case)
    with rules.no_randomness(subject.name, seed=1):
        first = run(objective, case)
    run(objective, subject.case(seed=5))
    with rules.no_randomness(subject.name, seed=2):
        second = run(objective, case)
    same_bits(subject.name, first.loss, second.loss, "the loss of the same input, called twice")
    for name, value in tensors(before).items():
        same_bits(subject.name, value, tensors(case)[name], f"{name}, before and after a call")


def aggregation_is_declared(subject: Subject) -> None:
    """Terms are sums over `units`, which are counted from masks and weights alone; the docstring says over what."""
    objective, case = subject.make(), subject.case()
    units = objective.units(case.batch)
    terms = objective(case.stats(), case.batch, statistic(objective, [case])).terms
    assert terms.keys() == units.keys(), (
        f"{subject.name}: terms {sorted(terms)} must be those of units(), {sorted(units)}; each is divided by its own"
    )
    for name in terms:
        assert terms[name].ndim == 0 and units[name].ndim == 0, (
            f"{subject.name}: term and units of {name} must be scalars"
        )
        assert not units[name].requires_grad, f"{subject.name}: units of {name} must not depend on the policy"
    doc = inspect.getdoc(type(objective)) or ""
    assert _UNIT_WORDS.search(doc), (
        f"{subject.name}: its docstring must say what the loss is a mean over (tokens, sequences, pairs, ...)"
    )


def weights_count_as_copies(subject: Subject) -> None:
    """A unit of weight 3 counts as three of weight 1, in terms, units and metrics: oracles feed exact probabilities."""
    objective, case = subject.make(), subject.case()
    context = statistic(objective, [case])
    heavy = replace(case, batch=replace(case.batch, weight=3 * case.batch.weight))
    once, thrice = (objective(c.stats(), c.batch, context) for c in (case, heavy))
    for name, term in once.terms.items():
        close(subject.name, thrice.terms[name], 3 * term, f"term {name}, weights times 3, against 3 times itself")
        counted = objective.units(heavy.batch)[name], 3 * objective.units(case.batch)[name]
        close(subject.name, *counted, f"units of {name} with every weight times 3, against 3 times themselves")
    for name, metric in once.metrics.items():
        close(subject.name, thrice.metrics[name].value(), metric.value(), f"metric {name} with every weight times 3")


def gradient_is_the_same_however_the_batch_is_split(subject: Subject) -> None:
    """A batch of 8 == 4 x 2 == 8 x 1, with unequal lengths: the memory budget must not change what is learnt."""
    whole = subject.case(8)
    expected = run(subject.make(), whole)
    for size in (4, 2, 1):
        found = run(subject.make(), whole, whole.split(size))
        same_step(subject.name, found, expected, f"in parts of {size} against one part of 8")


def gradient_is_the_same_on_two_ranks(subject: Subject) -> None:
    """Two processes with 4 and 3 units, the second running an empty micro-batch, learn what one process does."""
    whole = subject.case(7)
    found = run(subject.make(), whole, whole.ranks(2))
    same_step(subject.name, found, run(subject.make(), whole), "on two ranks against one")


def masked_values_change_nothing(subject: Subject) -> None:
    """100 and NaN in every masked value change nothing, to the bit: not the loss, not a gradient, not a metric."""
    case = subject.case()
    clean = run(subject.make(), case)
    for poison in (100.0, float("nan")):
        found = run(subject.make(), poisoned(case, poison))
        what = (
            f"with {poison} in every masked value (torch.where(batch.response_mask, x, 0) keeps it out) against without"
        )
        same_bits(subject.name, found.loss, clean.loss, f"the loss {what}")
        for name, gradient in clean.gradient.items():
            same_bits(subject.name, found.gradient[name], gradient, f"the gradient of {name} {what}")
        for name, metric in clean.metrics.items():
            same_bits(subject.name, found.metrics[name], metric, f"metric {name} {what}")


def order_and_neighbours_change_nothing(subject: Subject) -> None:
    """Every unit alone, and all of them in another order, cost what they cost together."""
    objective, case = subject.make(), subject.case()
    context = statistic(objective, [case])
    atoms = list(range(case.batch.num_atoms))
    together = objective(case.stats(), case.batch, context).terms
    other = case.select([*atoms[1::2], *reversed(atoms[0::2])])
    permuted = objective(other.stats(), other.batch, context).terms
    alone = [objective(part.stats(), part.batch, context).terms for part in case.split(1)]
    for name, term in together.items():
        close(subject.name, permuted[name], term, f"term {name} in another order against in order")
        added = torch.stack([a[name] for a in alone]).sum()
        close(subject.name, added, term, f"term {name} of every unit alone, added up, against together")


def empty_and_masked_batches_are_free(subject: Subject) -> None:
    """No unit, no weight or no response token: no NaN, zero gradient, and zero loss wherever there are zero units."""
    objective, case = subject.make(), subject.case()
    nothing = case.select([])
    context = statistic(objective, [case])
    for name, term in objective(nothing.stats(), nothing.batch, context).terms.items():
        assert term.requires_grad, (
            f"{subject.name}: term {name} of an empty batch must stay a sum over the statistics, not a constant: a "
            f"process that has run out of micro-batches still takes part in the backward pass"
        )
    weightless = replace(case, batch=replace(case.batch, weight=0 * case.batch.weight))
    for what, free in (("an empty batch", nothing), ("a batch of weight 0", weightless)):
        is_free(subject.make(), free, what, gradients=list(case.now))
    masked = replace(case, batch=replace(case.batch, response_mask=torch.zeros_like(case.batch.response_mask)))
    is_free(subject.make(), masked, "a wholly masked batch", [k for k in case.now if k not in PER_SEQUENCE])


def metrics_are_means_over_units(subject: Subject) -> None:
    """The same 7 units in batches of 1, 2, 3 and 7 and on 2 ranks: the same metrics, without gradient."""
    objective, whole = subject.make(), subject.case(7)
    expected = run(objective, whole).metrics
    for name, mean in objective(whole.stats(), whole.batch, statistic(objective, [whole])).metrics.items():
        tracked = mean.total.requires_grad or mean.weight.requires_grad
        assert not tracked, f"{subject.name}: metric {name} carries a gradient; build it with Mean.of"
    cuts = {f"in batches of {size}": whole.split(size) for size in (1, 2, 3)} | {"on 2 ranks": whole.ranks(2)}
    for what, parts in cuts.items():
        found = run(objective, whole, parts).metrics
        assert found.keys() == expected.keys(), (
            f"{subject.name}: metrics {what} are {sorted(found)}, not {sorted(expected)}"
        )
        for name, value in expected.items():
            close(subject.name, found[name], value, f"metric {name} {what} against in one batch")


def float32_agrees_with_float64(subject: Subject) -> None:
    """Nothing is rounded on the way: float64 stays float64 (oracles need it), float32 loses no more than it must."""
    objective = subject.make()
    exact = subject.case(8).map(lambda x: x.float().double())
    single = exact.map(lambda x: x.float())
    for case in (exact, single):
        with Downcasts() as downcasts:
            terms = objective(case.stats(), case.batch, statistic(objective, [case])).terms
        assert not downcasts.seen, f"{subject.name}: rounds on the way, {sorted(downcasts.seen)}; keep the input's type"
    for name, term in terms.items():
        assert term.dtype == torch.float32, f"{subject.name}: term {name} of float32 input is {term.dtype}"
    expected, found = run(objective, exact), run(objective, single)
    close(subject.name, found.loss.double(), expected.loss, "the loss in float32 against float64", 1e-5)
    for name, gradient in expected.gradient.items():
        what = f"the gradient of {name} in float32 against float64"
        close(subject.name, found.gradient[name].double(), gradient, what, 1e-5)


def far_from_the_reference_stays_finite(subject: Subject) -> None:
    """A policy hundreds of nats away from where it began, either way, has a finite loss and gradient in float32."""
    case = subject.case(8).map(lambda x: x.float())
    for sign in (1, -1):
        extremes = {name: extreme(name, value, case.batch, sign) for name, value in case.now.items()}
        found = run(subject.make(), replace(case, now=extremes))
        for what, value in {"loss": found.loss, **{f"gradient of {k}": g for k, g in found.gradient.items()}}.items():
            assert torch.isfinite(value).all(), (
                f"{subject.name}: {what} is not finite for a policy far from its reference; use logsigmoid and "
                f"softplus, and clamp log-ratios before exp"
            )


CHECKS: tuple[Callable[[Subject], None], ...] = (
    version_is_a_literal,
    arguments_are_attributes,
    declares_what_it_reads,
    same_input_gives_the_same_bits,
    aggregation_is_declared,
    weights_count_as_copies,
    gradient_is_the_same_however_the_batch_is_split,
    gradient_is_the_same_on_two_ranks,
    masked_values_change_nothing,
    order_and_neighbours_change_nothing,
    empty_and_masked_batches_are_free,
    what_has_weight_0_cannot_leak_in,
    metrics_are_means_over_units,
    float32_agrees_with_float64,
    far_from_the_reference_stays_finite,
    fused_and_eager_paths_agree,
)


def conforms_objective(
    make: Callable[[], Objective[Any]],
    *,
    batch: Callable[[int], Batch] | None = None,
    extras: Mapping[str, Extra] | None = None,
    skip: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Put an objective through every check: `@conforms_objective(lambda: DPO(beta=0.1))`.

    The decorated test takes `check` and calls it. Batches follow from the class: its type parameter, `needs`, `reads`.

    Args:
        make: builds the objective; called often.
        batch: makes a batch of so many atoms, for a batch type that the kit cannot make; its tokens are below 24.
        extras: for what `reads` names and the kit does not know: name -> function of (batch, generator) that gives
            a `(T, ...)` or `(S, ...)` tensor.
        skip: name of a check -> why it cannot hold here.
    """
    return one_case_each(CHECKS, Subject(make, batch, dict(extras or {})), skip or {})
