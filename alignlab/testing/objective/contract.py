"""Checks that an objective keeps its contract: a version, purity, stated needs and stated means."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from alignlab.batch import Batch, LabelledBatch, PreferenceBatch
from alignlab.objective import Objective
from alignlab.testing import rules
from alignlab.testing.compare import same_bits
from alignlab.testing.objective.cases import Case
from alignlab.testing.objective.step import constants_of, loss_on, run
from alignlab.testing.objective.subject import ObjectiveSubject

_TOKENS = frozenset({"token"})
_ANSWERS = frozenset(
    {
        "answer",
        "completion",
        "conversation",
        "document",
        "example",
        "instruction",
        "response",
        "rollout",
        "sample",
        "sequence",
        "text",
    }
)
_PAIRS = frozenset({"comparison", "group", "list", "pair", "preference", "ranking", "unit"})
_WORDS = _TOKENS | _ANSWERS | _PAIRS
_OVER = re.compile(r"\b(?:mean|average)[^.]{0,60}?\b(?:over|per)\s+((?:[\w'’-]+\s+){0,4}[\w'’-]+)", re.IGNORECASE)


def version_is_a_literal(subject: ObjectiveSubject) -> None:
    """The class states its own VERSION."""
    rules.check_version(subject.make())


def arguments_are_attributes(subject: ObjectiveSubject) -> None:
    """Constructor arguments are attributes that cannot be changed afterwards."""
    rules.check_arguments(subject.make())


def declares_what_it_reads(subject: ObjectiveSubject) -> None:
    """`needs` and `reads` name everything that it takes from the policy and from the batch."""
    case = subject.case()
    try:
        run(subject.make(), case)
    except KeyError as error:
        raise AssertionError(f"{subject.name}: {error.args[0]}") from error


def same_input_gives_the_same_bits(subject: ObjectiveSubject) -> None:
    """Pure: no randomness, no memory of earlier calls, no input changed in place."""
    objective, case, other = subject.make(), subject.case(), subject.case(seed=5)
    before = {name: value.clone() for name, value in case.tensors().items()}
    with rules.no_randomness(subject.name, seed=1):
        first = run(objective, case)
    after_another = run(objective, other)
    with rules.no_randomness(subject.name, seed=2):
        second = run(objective, case)
    same_bits(subject.name, second.loss, first.loss, "the loss of the same input, called twice")
    new = run(subject.make(), other)
    same_bits(subject.name, after_another.loss, new.loss, "the loss after another batch against that of a new object")
    for name, value in before.items():
        same_bits(subject.name, case.tensors()[name], value, f"{name}, before and after a call")


def aggregation_is_declared(subject: ObjectiveSubject) -> None:
    """Units are counted from masks and weights alone, and the docstring names the elements that `per` states."""
    objective, case = subject.make(), subject.case()
    terms = loss_on(objective, case, constants_of(objective, case)).terms
    for name, units in objective.units(case.batch).items():
        assert terms[name].ndim == 0 and units.ndim == 0, (
            f"{subject.name}: term and units of {name} must be scalars, got shapes {tuple(terms[name].shape)} and "
            f"{tuple(units.shape)}"
        )
        assert not units.requires_grad, f"{subject.name}: units of {name} must not depend on the policy"
    named = {word for doc in _docs(objective) for word in named_elements(doc)}
    for name, weights in objective.per.items():
        allowed = _elements(weights(case.batch), case)
        assert named & allowed, (
            f"{subject.name}: `per` makes {name!r} a mean over {_described(allowed)}; its docstring must say so "
            f"('Mean over ...'), and it names {_described(named) if named else 'no element'}"
        )


def named_elements(doc: str) -> set[str]:
    """The elements that a docstring names as those of a mean: nouns after `mean over`, in the singular.

    Of several nouns in a row the last one counts: `over response tokens` are tokens, `over pairs of answers` pairs.
    """
    found = set()
    for match in _OVER.finditer(doc):
        last = ""
        for word in match.group(1).split():
            noun = re.sub(r"['’]?s?['’]?$", "", word.lower())
            if noun in _WORDS:
                last = noun
            elif last or noun in ("of", "in", "for"):
                break
        found.add(last)
    return found - {""}


def _elements(weights: Tensor, case: Case) -> frozenset[str]:
    """Nouns for the elements that a tensor of weights has entries for."""
    batch: Batch = case.batch
    if weights.shape[0] == batch.num_tokens:
        return _TOKENS
    if isinstance(batch, LabelledBatch):
        return _ANSWERS | {"unit"}
    sequences = _ANSWERS if weights.shape[0] == batch.num_sequences else frozenset()
    of_units = _PAIRS if isinstance(batch, PreferenceBatch) else frozenset({"unit", *_ANSWERS})
    return sequences | (of_units if weights.shape[0] == batch.num_units else frozenset())


def _described(nouns: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(f"{noun}s" for noun in nouns))


def _docs(objective: Objective[Any]) -> Iterator[str]:
    """Docstring of an objective, and those of the ones that it is made of."""
    yield inspect.getdoc(type(objective)) or ""
    inner = [getattr(objective, "objective", None), *dict(getattr(objective, "objectives", {})).values()]
    for part in inner:
        if isinstance(part, Objective):
            yield from _docs(part)
