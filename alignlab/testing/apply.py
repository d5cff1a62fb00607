"""How a list of checks becomes a test: one decorator, one case a check."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import pytest

S = TypeVar("S")
Check: TypeAlias = Callable[[], None]
"""What a decorated test is called with: it returns, or it raises an AssertionError that says what is wrong."""


def one_case_each(checks: Sequence[Callable[[S], None]], subject: S, skip: Mapping[str, str]) -> pytest.MarkDecorator:
    """The decorator that calls a test once for each check of `subject`.

    Args:
        checks: functions of the subject; their names are the cases' names.
        subject: what is checked.
        skip: why a check cannot hold here, by its name.

    Raises:
        ValueError: `skip` names a check that does not exist.
    """
    names = [check.__name__ for check in checks]
    if unknown := set(skip) - set(names):
        raise ValueError(f"skip: there is no check {sorted(unknown)}; there are {names}")
    cases = [pytest.param(partial(c, subject), id=c.__name__, marks=_marks(c.__name__, skip)) for c in checks]
    return pytest.mark.parametrize("check", cases)


def _marks(name: str, skip: Mapping[str, str]) -> list[Any]:
    return [pytest.mark.skip(reason=skip[name])] if name in skip else []
