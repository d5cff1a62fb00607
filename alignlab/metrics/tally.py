"""Outcomes by prompt: what an estimate is made of, and what two estimates of the same prompts have in common.

Axes: K prompts.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from alignlab.metrics.intervals import Array, influences

Number: TypeAlias = bool | int | float
LONGEST_KEY = 64
"""Characters of a prompt by which its outcomes are found again; a longer one is known by its digest."""


@dataclass(frozen=True)
class Tally:
    """Outcomes by prompt: their sum and their number.

    Args:
        keys: of the prompts, in sorted order.
        sums: (K,) of the outcomes of each.
        counts: (K,) of its outcomes, > 0.
    """

    keys: tuple[str, ...]
    sums: Array
    counts: Array

    @classmethod
    def of(cls, outcomes: Iterable[tuple[str, Number, Number]]) -> "Tally":
        """Add up (prompt, sum, number of outcomes); a prompt without outcomes is left out."""
        found: dict[str, list[float]] = {}
        for prompt, total, count in outcomes:
            entry = found.setdefault(key_of(prompt), [0.0, 0.0])
            entry[0] += float(total)
            entry[1] += float(count)
        kept = {key: entry for key, entry in sorted(found.items()) if entry[1] > 0}
        sums, counts = (np.array([entry[i] for entry in kept.values()], dtype=np.float64) for i in (0, 1))
        return cls(tuple(kept), sums, counts)

    @property
    def ratio(self) -> float:
        """Sum over number."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def count(self) -> float:
        """Number of outcomes."""
        return float(self.counts.sum())

    def influences(self) -> dict[str, float]:
        """How far each prompt pulls the ratio from its value."""
        return dict(zip(self.keys, influences(self.sums, self.counts).tolist(), strict=True))

    def to_json(self) -> dict[str, Any]:
        """Plain lists."""
        return {"prompts": list(self.keys), "sums": self.sums.tolist(), "counts": self.counts.tolist()}

    @classmethod
    def from_json(cls, node: Mapping[str, Any]) -> "Tally":
        """The tally that `to_json` wrote."""
        return cls.of(zip(node["prompts"], node["sums"], node["counts"], strict=True))


def key_of(prompt: str) -> str:
    """Name of a prompt among the outcomes: itself, or its digest where it is long."""
    return prompt if len(prompt) <= LONGEST_KEY else hashlib.sha256(prompt.encode()).hexdigest()[:32]
