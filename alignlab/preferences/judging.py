"""Judgements of sampled answers: each pair shown once or several times, logged in full, and made into one label.

A stage that makes judgements leaves them in two files: `judgements.jsonl`, which is the format of judgements by people
(`alignlab.judgements.records`), and `judgements.parquet`, which also holds what only a simulated rater can tell.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from alignlab.artifact import write_lines
from alignlab.data.artifact_lines import messages
from alignlab.data.source import Split
from alignlab.judgements.aggregation import Aggregate, Consensus, votes
from alignlab.judgements.records import JUDGEMENTS, Judgement
from alignlab.judgements.summary import categories
from alignlab.judgements.weights import LOG
from alignlab.reward import Choice, Pair, Preference


@dataclass(frozen=True)
class Judged:
    """One judgement of a pair.

    Args:
        item: number of the pair in its stage.
        number: of the judgement in its stage.
        split: part that the pair belongs to.
        shown: the pair in the order in which the rater saw it.
        choice: the rater's.
    """

    item: int
    number: int
    split: Split
    shown: Pair
    choice: Choice

    @property
    def prompt(self) -> str:
        """Text of the prompt."""
        return self.shown.prompt.text

    def record(self) -> Judgement:
        """The judgement as a person's would be written."""
        tie = self.choice.tie
        return Judgement(
            str(self.item),
            messages(self.shown.prompt),
            (self.shown.first, self.shown.second),
            self.choice.rater,
            None if tie else int(not self.choice.first),
            tie,
            split=self.split,
            facts=dict(self.shown.prompt.facts),
        )

    def logged(self) -> dict[str, Any]:
        """All that is known of it, in plain columns."""
        seen = {
            f"{place}_{name}": value
            for name, both in self.choice.seen.items()
            for place, value in zip(("first", "second"), both, strict=True)
        }
        return {
            "id": str(self.item),
            "number": self.number,
            "split": self.split,
            "rater": self.choice.rater,
            "prompt": self.prompt,
            "first": self.shown.first,
            "second": self.shown.second,
            "first_preferred": self.choice.first,
            "tie": self.choice.tie,
            "probability": self.choice.probability,
            "pooled_probability": self.choice.pooled_probability,
            "tie_probability": self.choice.tie_probability,
            "draw": self.choice.draw,
            **seen,
            **({"flip": self.choice.flip} if self.choice.weights else {}),
            **{f"weight_{name}": value for name, value in self.choice.weights.items()},
        }


def judge(
    preference: Preference, pairs: Sequence[Pair], index: Sequence[int], times: int, train: int
) -> list[list[Judged]]:
    """So many judgements of each pair; every second one is of the answers in the other order.

    Args:
        preference: judges.
        pairs: in the order in which the answers were sampled, which is the order of the first judgement.
        index: numbers of the pairs in the stage.
        times: judgements of each.
        train: pairs of lower numbers are for training, the others for validation.
    """
    shown = [[Pair(p.prompt, p.second, p.first) if k % 2 else p for k in range(times)] for p in pairs]
    choices = preference.compare_each(shown, index)
    return [
        [
            Judged(i, i * times + k, "train" if i < train else "validation", pair, choice)
            for k, (pair, choice) in enumerate(zip(both, made, strict=True))
        ]
        for i, both, made in zip(index, shown, choices, strict=True)
    ]


def write_judgements(folder: Path, judged: Iterable[Judged]) -> None:
    """Write `judgements.jsonl` and `judgements.parquet` into an artifact's folder."""
    made = list(judged)
    write_lines(folder / JUDGEMENTS, (j.record().to_json() for j in made))
    rows = [j.logged() for j in made]
    # The first row alone would name the columns, and raters may see different features.
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), folder / LOG)


def labels(aggregate: Aggregate, judged: Sequence[Sequence[Judged]]) -> list[Consensus]:
    """One label of each pair, whose first answer is that of its first judgement."""
    return aggregate(votes(j.record() for made in judged for j in made))


def agreements(judged: Sequence[Sequence[Judged]]) -> list[tuple[str, bool]]:
    """Prompt, and whether they agree, for every two judgements of a pair by different raters."""
    table = categories(j.record() for made in judged for j in made)
    prompts = {str(made[0].item): made[0].prompt for made in judged}
    return [(prompts[item], a == b) for item, given in table.items() for a, b in combinations(given.values(), 2)]
