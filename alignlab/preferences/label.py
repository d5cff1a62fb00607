"""Label: sample two answers to each prompt from a policy, of which raters prefer one.

Judgements are numbered over the whole stage; who judges, in what order the two answers are shown and how the choice
falls are functions of that number and of the texts, so that labels do not depend on batch size or process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

from alignlab.artifact import Artifact, Kind
from alignlab.data import preferences
from alignlab.data.records import Comparison
from alignlab.data.source import DataSource, Need
from alignlab.errors import DataError
from alignlab.metrics import Column, Estimate, with_intervals, write_columns
from alignlab.policy import Policy, Sampling
from alignlab.preferences.sampled import SPLITS, answers_to, prompts_of_both
from alignlab.reward import Choice, Pair, Preference, RewardSource, score
from alignlab.stage import Stage, StageContext

TABLE_ROWS = 16
"""Preferences in the table that goes to the tracker."""

COLUMNS: Final = (
    Column("agreement_with_reference", "judgements that choose as the reference would", share=True, headline=True),
    Column(
        "accuracy_ceiling_known_rater",
        "highest accuracy on these judgements for a model that knows which rater makes each of them",
        share=True,
    ),
    Column(
        "accuracy_ceiling_one_score",
        "highest accuracy on these judgements for a model that does not know which rater makes them: no reward model "
        "with one score for all raters does better",
        share=True,
    ),
    Column("first_preferred", "judgements that prefer the answer shown first; 0.5 without position bias", share=True),
    Column("identical", "sampled pairs that were skipped, because both answers are the same", share=True),
    Column("train_pairs", "judged pairs for training", unit="pairs"),
    Column("validation_pairs", "judged pairs for validation", unit="pairs"),
    Column("chosen_length", "mean length of the preferred answers", unit="words"),
    Column("rejected_length", "mean length of the other answers", unit="words"),
)


class Label(Stage):
    """Make preferences: two sampled answers to a prompt, of which one was preferred.

    Prompts are repeated in a shuffled order until there are enough pairs; those of the validation split are the data
    source's validation prompts, so no prompt is in both. Two identical answers are skipped and counted.

    Args:
        data: gives the prompts.
        preference: judges.
        sampling: how the policy answers.
        pairs: pairs sampled for training; fewer are left when answers are identical.
        validation_pairs: pairs sampled for validation.
        reference: scores that choices are compared with (the raters' true taste, if they are simulated); optional.
        inputs: `policy`, whose answers are judged.
        seed: of sampling, of the prompts' order and of the order in which answers are shown.
    """

    VERSION: ClassVar[str] = "2"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    PRODUCES: ClassVar[Kind] = "preferences"

    def __init__(
        self,
        *,
        data: DataSource,
        preference: Preference,
        sampling: Sampling,
        pairs: int = 4000,
        validation_pairs: int = 400,
        reference: RewardSource | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs, seed)
        for name, value in (("pairs", pairs), ("validation_pairs", validation_pairs)):
            if value < 1:
                raise ValueError(f"Label: {name} must be >= 1, got {value}")
        self.data = data
        self.preference = preference
        self.sampling = sampling
        self.pairs = pairs
        self.validation_pairs = validation_pairs
        self.reference = reference

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Prompts, of both parts."""
        return [(self.data, Need("prompts", held_out=True))]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Sample, judge, write `preferences.jsonl`."""
        policy = Policy.load(inputs["policy"], context.runtime.dtype).to(context.runtime.device)
        pairs = self._sample(policy, context)
        different = [i for i, pair in enumerate(pairs) if pair.first != pair.second]
        judged = [pairs[i] for i in different]
        if not judged:
            raise DataError(
                f"{context.name}: all {len(pairs)} pairs of answers are identical, so there is nothing to prefer; "
                f"raise sampling.temperature"
            )
        choices = self.preference.compare(judged, different)
        rows = [self._row(i, p, c) for i, p, c in zip(different, judged, choices, strict=True)]
        preferences.write(context.folder, rows)
        context.tracker.say(f"{len(rows)} preferences; {len(pairs) - len(rows)} pairs of identical answers skipped")
        shown = zip(rows[:TABLE_ROWS], judged, strict=False)
        context.tracker.table("preferences", [{**row, "prompt": pair.prompt.text} for row, pair in shown])
        write_columns(context.folder, self._columns())
        metrics = {**self._metrics(rows, len(pairs)), **_ceilings(choices), **self._shares(judged, choices)}
        return with_intervals(metrics)

    # ---- sampling -------------------------------------------------------------------------------------------------
    def _sample(self, policy: Policy, context: StageContext) -> list[Pair]:
        counts = (self.pairs, self.validation_pairs)
        prompts = prompts_of_both(policy, self.data, counts, f"label:{self.seed}", context)
        answers = answers_to(policy, prompts, 2, self.sampling, self.seed, context)
        return [Pair(p, first, second) for p, (first, second) in zip(prompts, answers, strict=True)]

    # ---- what is written and measured -----------------------------------------------------------------------------
    def _row(self, index: int, pair: Pair, choice: Choice) -> dict[str, Any]:
        answers = (pair.first, pair.second) if choice.first else (pair.second, pair.first)
        return preferences.row(
            Comparison(pair.prompt, *answers),
            "train" if index < self.pairs else "validation",
            index=index,
            rater=choice.rater,
            probability=choice.probability,
            first_preferred=choice.first,
        )

    def _metrics(self, rows: Sequence[Mapping[str, Any]], sampled: int) -> dict[str, float]:
        counts = {f"{split}_pairs": float(sum(r["split"] == split for r in rows)) for split in SPLITS}
        return {
            **counts,
            "identical": 1 - len(rows) / sampled,
            "chosen_length": _mean([len(r["chosen"].split()) for r in rows]),
            "rejected_length": _mean([len(r["rejected"].split()) for r in rows]),
        }

    def _shares(self, pairs: Sequence[Pair], choices: Sequence[Choice]) -> dict[str, float]:
        """How often the first is preferred, and how often the choice is the reference's, with their intervals.

        The second is among pairs between which the reference sees a difference.
        """
        judged = list(zip(pairs, choices, strict=True))
        found = {"first_preferred": Estimate.share((p.prompt.text, c.first) for p, c in judged)}
        if self.reference is not None:
            first, second = (
                score(self.reference, [p.prompt for p in pairs], texts)
                for texts in ([p.first for p in pairs], [p.second for p in pairs])
            )
            gaps = zip((first - second).tolist(), judged, strict=True)
            agrees = ((p.prompt.text, (gap > 0) == c.first) for gap, (p, c) in gaps if gap != 0)
            found["agreement_with_reference"] = Estimate.share(agrees)
        return {name: share for name, share in found.items() if share is not None}

    def _columns(self) -> list[Column]:
        """Its metrics; the first names the reference."""
        if self.reference is None:
            return list(COLUMNS)
        name = self.reference.describe()
        meaning = f"judgements that choose as the reference would, which is {name}"
        return [replace(COLUMNS[0], meaning=meaning, reference=name), *COLUMNS[1:]]


def _ceilings(choices: Sequence[Choice]) -> dict[str, float]:
    """Upper bounds of a reward model's accuracy: asked again, the raters would sometimes choose differently."""
    found = {"accuracy_ceiling_known_rater": _mean([max(c.probability, 1 - c.probability) for c in choices])}
    pooled = [c.pooled_probability for c in choices if c.pooled_probability is not None]
    if len(pooled) == len(choices):
        found["accuracy_ceiling_one_score"] = _mean([max(p, 1 - p) for p in pooled])
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
