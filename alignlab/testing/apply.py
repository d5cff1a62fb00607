"""Running a list of checks: as the cases of a test, or as a table without pytest."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    import pytest

S = TypeVar("S")
Check: TypeAlias = Callable[[], None]
"""Argument of a decorated test: returns, or raises an AssertionError that names the broken rule."""
Checks: TypeAlias = Sequence[Callable[[S], None]]
"""Functions of a subject under test; their names are the names of the checks."""


class DoesNotApply(Exception):
    """Raised by a check that does not apply to its subject, with the reason; it counts as skipped."""


@dataclass(frozen=True)
class Result:
    """Outcome of one check.

    Args:
        check: its name.
        outcome: whether the rule holds.
        reason: why it failed or was skipped.
    """

    check: str
    outcome: Literal["ok", "FAILED", "skipped"]
    reason: str = ""


def one_case_each(checks: Checks[S], subject: S, skip: Mapping[str, str]) -> "pytest.MarkDecorator":
    """The decorator that calls a test once for each check of `subject`.

    Args:
        checks: see `Checks`.
        subject: what is checked.
        skip: why a check cannot hold here, by its name.

    Raises:
        ValueError: `skip` names a check that does not exist.
        ImportError: pytest is not installed.
    """
    check_names(checks, skip)
    framework = _pytest()

    def marks(name: str) -> list[Any]:
        return [framework.mark.skip(reason=skip[name])] if name in skip else []

    cases = [framework.param(partial(_or_skip, c, subject), id=c.__name__, marks=marks(c.__name__)) for c in checks]
    decorator: pytest.MarkDecorator = framework.mark.parametrize("check", cases)
    return decorator


def _pytest() -> Any:
    try:
        import pytest
    except ImportError as error:
        raise ImportError(
            "the conforms_... decorators need pytest: pip install alignlab[testing]; check_... do without"
        ) from error
    return pytest


def _or_skip(check: Callable[[S], None], subject: S) -> None:
    try:
        check(subject)
    except DoesNotApply as reason:
        _pytest().skip(str(reason))


def print_checks(title: str, checks: Checks[S], subject: S, skip: Mapping[str, str]) -> bool:
    """Run every check, print a table of check, outcome and reason; returns whether no check failed.

    Raises:
        ValueError: `skip` names a check that does not exist.
    """
    check_names(checks, skip)
    results = [outcome_of(check, subject, skip) for check in checks]
    failed = sum(r.outcome == "FAILED" for r in results)
    print(f"{title}: {failed} of {len(results)} checks failed" if failed else f"{title}: no check failed")
    print(table(results))
    return not failed


def outcome_of(check: Callable[[S], None], subject: S, skip: Mapping[str, str]) -> Result:
    """Run one check; an error of any kind is a failure."""
    name = check.__name__
    if name in skip:
        return Result(name, "skipped", skip[name])
    try:
        check(subject)
    except DoesNotApply as reason:
        return Result(name, "skipped", str(reason))
    except AssertionError as error:
        return Result(name, "FAILED", str(error))
    except Exception as error:
        return Result(name, "FAILED", f"{type(error).__name__}: {error}")
    return Result(name, "ok")


def table(results: Sequence[Result], width: int = 120) -> str:
    """Check, outcome and reason of each result in three columns; long reasons are wrapped."""
    longest = max((len(r.check) for r in results), default=0)
    lines = []
    for result in results:
        start = f"  {result.check:{longest}}  {result.outcome:7}  "
        wrapped = textwrap.wrap(result.reason, max(width - len(start), 40)) or [""]
        lines += [f"{start}{wrapped[0]}".rstrip(), *(" " * len(start) + line for line in wrapped[1:])]
    return "\n".join(lines)


def check_names(checks: Checks[S], skip: Mapping[str, str]) -> None:
    """Refuse a `skip` that names a check that does not exist.

    Raises:
        ValueError: names it, and the checks that exist.
    """
    names = [check.__name__ for check in checks]
    if unknown := set(skip) - set(names):
        raise ValueError(f"skip: there is no check {sorted(unknown)}; there are {names}")
