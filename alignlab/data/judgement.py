"""Numbers on a judgement (`Comparison.notes`), out of the columns of a file or the lines of an artifact.

`probability` always is that the *chosen* answer is chosen. A line that also has `first_preferred` logs a judgement as
a labelling stage made it: there, `probability` is that the answer shown *first* is preferred, and is converted.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

RANGES: Mapping[str, tuple[float, float]] = {
    "margin": (-math.inf, math.inf),
    "agreement": (0.0, 1.0),
    "probability": (0.0, 1.0),
    "tie": (0.0, 1.0),
}
"""The notes that a column can bring, and what they may be."""
DEFAULTS: Mapping[str, float] = {"tie": 0.0}
"""The notes that a judgement has where no column says otherwise."""
SCORES = ("score_chosen", "score_rejected")
"""Columns whose difference is the margin, where both are there."""
FIRST = "first_preferred"

_MEANING = {
    "margin": "how much better the chosen answer is",
    "agreement": "the share of the judges who prefer the chosen answer",
    "probability": "the probability that the chosen answer is chosen",
    "tie": "1 where neither answer was preferred, 0 where the chosen one was",
}


def columns(found: Collection[str]) -> set[str]:
    """Those of a record's columns that become notes."""
    used = {name for name in RANGES if name in found}
    used |= set(SCORES) if set(SCORES) <= set(found) else set()
    return used | ({FIRST} if FIRST in found and "probability" in found else set())


def notes(values: Mapping[str, Any]) -> dict[str, float]:
    """The notes of a record.

    Raises:
        ValueError: a column is not a number or is out of its range, or scores and margin differ.
    """
    found = {name: n for name in RANGES if (n := _number(name, values.get(name))) is not None}
    for name, value in found.items():
        low, high = RANGES[name]
        if not low <= value <= high:
            raise ValueError(
                f"field {name!r} must be from {low:g} to {high:g} ({_MEANING[name]}), got {value:g}; rename the "
                f"column if it means something else"
            )
    better, worse = (_number(name, values.get(name)) for name in SCORES)
    if better is not None and worse is not None:
        margin = found.setdefault("margin", better - worse)
        if not math.isclose(margin, better - worse, rel_tol=1e-4, abs_tol=1e-6):
            raise ValueError(f"field 'margin' is {margin:g}, but {' - '.join(SCORES)} is {better - worse:g}")
    if FIRST in values and values[FIRST] is not None and "probability" in found:
        found["probability"] = of_chosen(found["probability"], _flag(values[FIRST]))
    return found


def of_chosen(probability: float, first_preferred: bool) -> float:
    """Probability that the chosen answer is chosen, from that of the answer shown first.

    Args:
        probability: that the first one is preferred.
        first_preferred: whether it was, and is the chosen one.
    """
    return probability if first_preferred else 1 - probability


def checked(found: object) -> dict[str, float]:
    """Notes that are written as such: numbers by name, those of `RANGES` in their range.

    Raises:
        ValueError: they are not.
    """
    named = numbers("notes", found)
    return {**named, **notes({name: named[name] for name in RANGES if name in named})}


def numbers(owner: str, found: object) -> dict[str, float]:
    """An object of finite numbers, those that are missing left out.

    Raises:
        ValueError: it is not one; the message names `owner`.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"{owner} must be an object of numbers, found {type(found).__name__}")
    return {str(k): n for k, v in found.items() if (n := _number(str(k), v)) is not None}


def _number(name: str, value: object) -> float | None:
    """The value as a number; None where it is missing (null, NaN, an empty cell)."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if name == "tie" and (word := str(value).strip().lower()) in ("true", "false"):
        return float(word == "true")
    try:
        number = float("text") if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # that is the test
    except (TypeError, ValueError):
        raise ValueError(
            f"field {name!r} must be a number, found {value!r:.40}; rename the column if it means something else"
        ) from None
    if math.isinf(number):
        raise ValueError(f"field {name!r} must be a finite number, got {number}")
    return None if math.isnan(number) else number


def _flag(value: object) -> bool:
    word = str(value).strip().lower()
    if word not in ("true", "false", "1", "0"):
        raise ValueError(f"field {FIRST!r} must be true or false, found {value!r:.40}")
    return word in ("true", "1")
