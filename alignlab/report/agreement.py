"""Agreement of raters, two by two, as their judgements of the same answers show it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.judgements.records import JUDGEMENTS, Judgement, read
from alignlab.judgements.summary import agreement, categories
from alignlab.report.run import StageView

LIMIT = 12
"""Raters that are shown, at most: those with the most judgements."""
LEVELS = 5
"""Shades of a cell."""


@dataclass(frozen=True)
class Cell:
    """Agreement of two raters.

    Args:
        observed: share of the items on which they agree.
        kappa: agreement beyond chance (Cohen); None where it is not defined.
        items: that both judged.
    """

    observed: float
    kappa: float | None
    items: int

    @property
    def shade(self) -> str:
        """Class of its colour: a0, half of the items or fewer, to a4, all but one in ten or more."""
        return f"a{min(LEVELS - 1, max(0, int((self.observed - 0.5) * 2 * LEVELS)))}"


@dataclass(frozen=True)
class Agreement:
    """The matrix, and the statistics of all raters together.

    Args:
        raters: in the order of the matrix.
        cells: by both raters, either way round; two who judged nothing in common have none.
        left_out: further raters.
        items: that were judged by two or more.
        fleiss: Fleiss' kappa; None where it is not defined.
        krippendorff: Krippendorff's alpha; None where it is not defined.
    """

    raters: Sequence[str]
    cells: Mapping[tuple[str, str], Cell]
    left_out: int
    items: int
    fleiss: float | None
    krippendorff: float | None


def judgements_of(stage: StageView) -> list[Judgement]:
    """The judgements of a stage as they were made; none where it did not keep them."""
    return read(stage.artifact.path) if (stage.artifact.path / JUDGEMENTS).is_file() else []


def agreement_of(judgements: Sequence[Judgement]) -> Agreement | None:
    """The agreement in some judgements; without cells where each item was judged once, None without judgements."""
    if not judgements:
        return None
    found = agreement(categories(judgements))
    counts = Counter(j.rater for j in judgements if j.made)
    most = sorted(name for name, _ in counts.most_common(LIMIT))
    cells = {tuple(pair["raters"]): _cell(pair) for pair in found["pairs"]}
    both = {(a, b): cell for (x, y), cell in cells.items() for a, b in ((x, y), (y, x)) if a in most and b in most}
    shared = [name for name in most if any(name == a for a, _ in both)]
    return Agreement(shared, both, len(counts) - len(most), found["items"], found["fleiss_kappa"],
                     found["krippendorff_alpha"])  # fmt: skip


def _cell(pair: Mapping[str, Any]) -> Cell:
    return Cell(pair["observed"], pair["kappa"], pair["items"])
