"""EvaluatePreferences: how well a judge agrees with preferences that are known, next to rules that read nothing."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

import numpy as np

from alignlab.artifact import Artifact, Kind
from alignlab.data import preferences
from alignlab.data.records import Comparison
from alignlab.data.source import DataSource, Need, Part, splits_of
from alignlab.errors import DataError
from alignlab.evaluation.base import defined
from alignlab.evaluation.calibration import calibration_estimate, reliability
from alignlab.evaluation.judge import Array, Verdicts, check_judged, judge_of, judged, named
from alignlab.judgements.rulers import preferred
from alignlab.metrics import Column, Estimate, with_intervals, write_columns, write_outcomes, write_panels
from alignlab.metrics.record import ENDS
from alignlab.reward import Pair, Preference, RewardSource
from alignlab.samples import write_samples
from alignlab.stage import Stage, StageContext

BINS: Final = 20
"""Of the calibration error; the winner's probability is above 0.5, so that ten of them are used."""
RULES: Final[Mapping[str, str]] = {
    "longer": "the answer with more words",
    "shorter": "the answer with fewer words",
    "more_list_lines": "the answer with more lines that begin with a bullet or a number",
}
"""Those of `alignlab.judgements.rulers` that see no order, each with what it prefers."""


class EvaluatePreferences(Stage):
    """Measure a reward source or raters on preferences: accuracy, by subset if asked for, and calibration.

    Raters see every pair in both orders. Next to each accuracy stand those of trivial rules on the same pairs: a judge
    that does not beat "the longer one" may have learnt nothing else. Pairs that are noted as ties are left out.

    Args:
        data: gives the preferences, where there is no input `preferences`.
        reward: scores the answers; by default the input `reward` does. The higher score is preferred.
        preference: raters who judge in place of a reward.
        by: name of a fact of each prompt that says which subset it belongs to (`data.facts=[subset]`); null makes none.
        split: the part that is measured; "all" for a benchmark that nothing was trained on.
        limit: at most so many pairs, the first ones; null takes all.
        inputs: `reward`, a reward model; `preferences`; under other names the reward models that `reward` scores with.
        seed: stands in the configuration only; nothing is random.
        table_rows: rows of the table that goes to the tracker.

    Source: Lambert et al. 2024 (RewardBench), arXiv:2403.13787; the rules after Singhal et al. 2023, arXiv:2310.03716.
    """

    VERSION: ClassVar[str] = "3"
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {
        "reward": frozenset({"reward_model"}),
        "preferences": frozenset({"preferences"}),
    }
    FURTHER: ClassVar[frozenset[Kind]] = frozenset({"reward_model"})
    PRODUCES: ClassVar[Kind] = "other"

    def __init__(
        self,
        *,
        data: DataSource | None = None,
        reward: RewardSource | None = None,
        preference: Preference | None = None,
        by: str | None = None,
        split: Part = "validation",
        limit: int | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        table_rows: int = 8,
    ) -> None:
        super().__init__(inputs, seed)
        if limit is not None and limit < 1:
            raise ValueError(f"EvaluatePreferences: limit must be >= 1 or null, got {limit}")
        if table_rows < 0:
            raise ValueError(f"EvaluatePreferences: table_rows must be >= 0, got {table_rows}")
        self.data, self.reward, self.preference = data, reward, preference
        self.by, self.split, self.limit, self.table_rows = by, split, limit, table_rows

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse to measure without a judge, with two, or without preferences."""
        check_judged(self, self.reward, self.preference, names)
        if self.data is None and "preferences" not in names:
            raise ValueError("EvaluatePreferences: has no preferences; set data, or inputs.preferences to a stage")

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Preferences, where no stage gives them."""
        if self.data is None or "preferences" in self.inputs:
            return []
        return [(self.data, Need("comparisons", held_out=self.split == "validation"))]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Judge every pair."""
        self.check_inputs(frozenset(inputs))
        found = [c for c in self._comparisons(inputs) if not c.notes.get("tie")][: self.limit]
        if not found:
            raise DataError(f"{context.name}: there are no preferences of the {self.split} part to measure on")
        judge = judge_of(self.reward, self.preference, inputs, context.runtime)
        pairs = [Pair(c.prompt, c.chosen, c.rejected) for c in found]
        verdicts = judged(judge, pairs, lambda done, total: context.tracker.progress(done, total, {}))
        subsets = [subset_name(c.prompt.fact(self.by)) for c in found] if self.by else []
        metrics = measured(pairs, verdicts, subsets, ordered=self.preference is not None)
        sureness = calibrated(pairs, verdicts)
        rows = [_row(c, float(y)) for c, y in zip(found, verdicts.outcome, strict=True)]
        write_samples(context.folder, rows)
        write_columns(context.folder, columns(named(judge), list(dict.fromkeys(subsets)), list(verdicts.parts)))
        write_panels(context.folder, reliability(*sureness, BINS, "preferred answers"))
        write_outcomes(context.folder, metrics)
        context.tracker.table("preferences", rows[: self.table_rows])
        return with_intervals(metrics)

    def _comparisons(self, inputs: Mapping[str, Artifact]) -> Iterator[Comparison]:
        for split in splits_of(self.split):
            if "preferences" in inputs:
                yield from preferences.read(inputs["preferences"], split)
            else:
                assert self.data is not None, "see check_inputs"
                yield from self.data.comparisons(split)


def subset_name(fact: str) -> str:
    """Name of a subset as metrics have it: without blanks and slashes, and not the end of another metric's name."""
    name = re.sub(r"[\s/]+", "_", fact.strip()) or "unnamed"
    taken = f"_{name}".endswith(ENDS) or name == "of_subsets" or name.startswith("by_")
    return f"{name}_" if taken else name


def columns(judge: str, subsets: Sequence[str] = (), parts: Sequence[str] = ()) -> list[Column]:
    """The metrics, with the name of the judge; those of subsets and of parts of a reward end with their names."""
    whole = [
        Column("accuracy", "pairs whose chosen answer is preferred; a tie counts half", better=1, share=True,
               headline=True, reference=judge),
        Column("accuracy_of_subsets", "mean accuracy of the subsets, each of which counts the same", better=1,
               share=True, headline=True, reference=judge),
        Column("calibration_error", "expected calibration error of the preferred answer's probability, in bins of "
               "0.05; a reward's differences are read as log odds", better=-1, share=True, reference=judge),
        Column("prefers_shown_first", "judgements that prefer what is shown first, of every pair in both orders",
               share=True, reference=judge),
        Column("consistent", "pairs in which both orders prefer the same answer, or tie", better=1, share=True,
               reference=judge),
        *(Column(rule, f"accuracy of a rule that prefers {what}; a tie counts half", share=True, headline=True)
          for rule, what in RULES.items()),
        *(Column(f"accuracy_by_{part}", f"accuracy of {part}, a part of the reward, by itself", share=True,
                 reference=judge) for part in parts),
        Column("pairs", "pairs that were judged", unit="pairs"),
    ]  # fmt: skip
    each = [c for c in whole if c.metric in {"accuracy", *RULES}]
    return whole + [
        Column(f"{c.metric}_{subset}", f"{c.meaning}; subset {subset}", better=c.better, share=True,
               reference=c.reference)
        for subset in subsets for c in each
    ]  # fmt: skip


def measured(
    pairs: Sequence[Pair], verdicts: Verdicts, subsets: Sequence[str] = (), ordered: bool = False
) -> dict[str, float]:
    """The metrics of judged pairs.

    Args:
        pairs: the chosen answer and the rejected one.
        verdicts: on the chosen answers.
        subsets: the subset of each pair; empty for none.
        ordered: whether the judge sees an order.
    """
    prompts = [p.prompt.text for p in pairs]
    outcomes = {"accuracy": verdicts.outcome, **{rule: _by_rule(pairs, rule) for rule in RULES}}

    def shares(where: Sequence[int]) -> dict[str, Estimate | None]:
        return {name: Estimate.share((prompts[i], values[i]) for i in where) for name, values in outcomes.items()}

    by_subset = {s: shares([i for i, own in enumerate(subsets) if own == s]) for s in dict.fromkeys(subsets)}
    orders = {
        "prefers_shown_first": Estimate.share(zip(prompts, verdicts.prefers_shown_first, strict=True)),
        "consistent": Estimate.share(zip(prompts, verdicts.consistent, strict=True)),
    }
    found = {
        **shares(range(len(pairs))),
        "accuracy_of_subsets": Estimate.average(found["accuracy"] for found in by_subset.values()),
        "calibration_error": calibration_estimate(*calibrated(pairs, verdicts), BINS),
        **(orders if ordered else {}),
        **{f"accuracy_by_{k}": Estimate.share(zip(prompts, v, strict=True)) for k, v in verdicts.parts.items()},
        "pairs": float(len(pairs)),
        **{f"{name}_{subset}": value for subset, each in by_subset.items() for name, value in each.items()},
    }
    return defined(found)


def calibrated(pairs: Sequence[Pair], verdicts: Verdicts) -> tuple[list[str], list[float], list[float]]:
    """Prompt and probability of each preferred answer, and 1 where it is the chosen one; a tie is half right."""
    p = verdicts.probability
    prompts = [pair.prompt.text for pair in pairs]
    return prompts, np.maximum(p, 1 - p).tolist(), (0.5 + 0.5 * np.sign(p - 0.5)).tolist()


def _by_rule(pairs: Sequence[Pair], rule: str) -> Array:
    said = (preferred(rule, (p.first, p.second)) for p in pairs)
    return np.array([0.5 if place is None else 1.0 - place for place in said])


def _row(comparison: Comparison, outcome: float) -> dict[str, object]:
    known = {"prompt": comparison.prompt.text, "chosen": comparison.chosen, "rejected": comparison.rejected}
    return {**known, "agrees": outcome}
