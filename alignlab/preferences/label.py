"""Label: sample two answers to each prompt from a policy, of which raters prefer one.

Judgements are numbered over the whole stage; who judges, in what order the two answers are shown and how the choice
falls are functions of that number and of the texts, so that labels do not depend on batch size or process. Several
judgements of a pair are made into one label by an aggregate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

from alignlab.artifact import Artifact, Kind
from alignlab.data import preferences
from alignlab.data.records import Comparison
from alignlab.data.source import DataSource, Need
from alignlab.errors import DataError
from alignlab.judgements.aggregation import Aggregate, Consensus, Majority
from alignlab.judgements.agreement import krippendorff_alpha
from alignlab.judgements.summary import categories
from alignlab.metrics import Column, Estimate, with_intervals, write_columns
from alignlab.policy import Policy, Sampling
from alignlab.preferences.judging import Judged, agreements, judge, labels, write_judgements
from alignlab.preferences.sampled import SPLITS, answers_to, prompts_of_both
from alignlab.reward import Choice, Pair, Preference, RewardSource, score
from alignlab.stage import Stage, StageContext

MAJORITY: Final = Majority()
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
    Column("raters_agree", "pairs of judgements of the same answers by different raters that agree", share=True),
    Column(
        "krippendorff_alpha",
        "agreement of the raters beyond chance (Krippendorff's alpha): 1 where they always agree, 0 as by chance",
        unit="alpha",
    ),
    Column("tied", "pairs in which neither answer is better, by the label", share=True),
    Column("identical", "sampled pairs that were skipped, because both answers are the same", share=True),
    Column("train_pairs", "judged pairs for training", unit="pairs"),
    Column("validation_pairs", "judged pairs for validation", unit="pairs"),
    Column("chosen_length", "mean length of the preferred answers", unit="words"),
    Column("rejected_length", "mean length of the other answers", unit="words"),
)


@dataclass(frozen=True)
class _Label:
    """The label of a pair: whether its first answer is the better one, or neither is, and its line in the file."""

    first: bool
    tie: bool
    row: dict[str, Any]


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
        reference: scores that labels are compared with (the raters' true taste, if they are simulated); optional.
        judgements_per_pair: by different raters where there are as many; every second one sees the answers in the
            other order.
        aggregate: makes one label of several judgements; by default what most of them say.
        inputs: `policy`, whose answers are judged.
        seed: of sampling, of the prompts' order and of the order in which answers are shown.
    """

    VERSION: ClassVar[str] = "3"
    IS_HELPED: ClassVar[bool] = True
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
        judgements_per_pair: int = 1,
        aggregate: Aggregate = MAJORITY,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs, seed)
        counts = {"pairs": pairs, "validation_pairs": validation_pairs, "judgements_per_pair": judgements_per_pair}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"Label: {name} must be >= 1, got {value}")
        self.data = data
        self.preference = preference
        self.sampling = sampling
        self.pairs = pairs
        self.validation_pairs = validation_pairs
        self.reference = reference
        self.judgements_per_pair = judgements_per_pair
        self.aggregate = aggregate

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Prompts, of both parts."""
        return [(self.data, Need("prompts", held_out=True))]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Sample, judge, write `preferences.jsonl`, `judgements.jsonl` and `judgements.parquet`."""
        policy = Policy.load(inputs["policy"], context.runtime.dtype).to(context.runtime.device)
        pairs = self._sample(policy, context)
        different = [i for i, pair in enumerate(pairs) if pair.first != pair.second]
        if not different:
            raise DataError(
                f"{context.name}: all {len(pairs)} pairs of answers are identical, so there is nothing to prefer; "
                f"raise sampling.temperature"
            )
        shown = [pairs[i] for i in different]
        judged = judge(self.preference, shown, different, self.judgements_per_pair, self.pairs)
        once = self.judgements_per_pair == 1
        found = [_of_one(*made) for made in judged] if once else self._of_several(judged)
        rows = [label.row for label in found]
        preferences.write(context.folder, rows)
        write_judgements(context.folder, (j for made in judged for j in made))
        context.tracker.say(f"{len(rows)} preferences; {len(pairs) - len(rows)} pairs of identical answers skipped")
        told = zip(rows[:TABLE_ROWS], shown, strict=False)
        context.tracker.table("preferences", [{**row, "prompt": pair.prompt.text} for row, pair in told])
        write_columns(context.folder, self._columns())
        metrics = {**_metrics(rows, len(pairs)), **_of_judgements(judged, found), **self._agreement(shown, found)}
        return with_intervals(metrics)

    def _sample(self, policy: Policy, context: StageContext) -> list[Pair]:
        counts = (self.pairs, self.validation_pairs)
        prompts = prompts_of_both(policy, self.data, counts, f"label:{self.seed}", context)
        answers = answers_to(policy, prompts, 2, self.sampling, self.seed, context)
        return [Pair(p, first, second) for p, (first, second) in zip(prompts, answers, strict=True)]

    def _of_several(self, judged: Sequence[Sequence[Judged]]) -> list[_Label]:
        agreed = labels(self.aggregate, judged)
        return [_of_many(made, together) for made, together in zip(judged, agreed, strict=True)]

    def _agreement(self, pairs: Sequence[Pair], found: Sequence[_Label]) -> dict[str, float]:
        """How often the label is the reference's, among pairs between which both see a difference."""
        if self.reference is None:
            return {}
        first, second = (
            score(self.reference, [p.prompt for p in pairs], texts)
            for texts in ([p.first for p in pairs], [p.second for p in pairs])
        )
        gaps = zip((first - second).tolist(), pairs, found, strict=True)
        share = Estimate.share((p.prompt.text, (gap > 0) == y.first) for gap, p, y in gaps if gap != 0 and not y.tie)
        return {} if share is None else {"agreement_with_reference": share}

    def _columns(self) -> list[Column]:
        """Its metrics; the first names the reference."""
        if self.reference is None:
            return list(COLUMNS)
        name = self.reference.describe()
        meaning = f"judgements that choose as the reference would, which is {name}"
        return [replace(COLUMNS[0], meaning=meaning, reference=name), *COLUMNS[1:]]


# ---- labels ----------------------------------------------------------------------------------------------------------
def _of_one(judged: Judged) -> _Label:
    """The label of a pair that was judged once: the judgement as it was made."""
    choice = judged.choice
    logged = {"probability": choice.probability, "first_preferred": choice.first}
    return _label(judged, choice.first, choice.tie, {"tie": 1.0} if choice.tie else {}, rater=choice.rater, **logged)


def _of_many(made: Sequence[Judged], together: Consensus) -> _Label:
    """The label that several judgements of a pair were made into; where it is a tie, the order means nothing."""
    return _label(made[0], together.first >= 0.5, together.tied, together.notes(), judgements=together.count)


def _label(judged: Judged, first: bool, tie: bool, notes: Mapping[str, float], **logged: Any) -> _Label:
    pair = judged.shown
    answers = (pair.first, pair.second) if first else (pair.second, pair.first)
    comparison = Comparison(pair.prompt, *answers, notes=notes)
    return _Label(first, tie, preferences.row(comparison, judged.split, index=judged.item, **logged))


# ---- metrics ---------------------------------------------------------------------------------------------------------
def _metrics(rows: Sequence[Mapping[str, Any]], sampled: int) -> dict[str, float]:
    return {
        **{f"{split}_pairs": float(sum(r["split"] == split for r in rows)) for split in SPLITS},
        "identical": 1 - len(rows) / sampled,
        "chosen_length": _mean([len(r["chosen"].split()) for r in rows]),
        "rejected_length": _mean([len(r["rejected"].split()) for r in rows]),
    }


def _of_judgements(judged: Sequence[Sequence[Judged]], found: Sequence[_Label]) -> dict[str, float]:
    """How often the first is preferred; of one judgement each, the ceilings; of several, how far they agree."""
    flat = [j for made in judged for j in made]
    shares = {"first_preferred": Estimate.share((j.prompt, j.choice.first) for j in flat if not j.choice.tie)}
    several = len(flat) > len(found)
    if several or any(j.choice.tie_probability for j in flat):
        shares["tied"] = Estimate.share((made[0].prompt, y.tie) for made, y in zip(judged, found, strict=True))
    numbers = {} if several else _ceilings([j.choice for j in flat])
    if several:
        shares["raters_agree"] = Estimate.share(agreements(judged))
        alpha = krippendorff_alpha([list(given.values()) for given in categories(j.record() for j in flat).values()])
        numbers = {} if alpha is None else {"krippendorff_alpha": alpha}
    return {**{name: share for name, share in shares.items() if share is not None}, **numbers}


def _ceilings(choices: Sequence[Choice]) -> dict[str, float]:
    """Upper bounds of a reward model's accuracy: asked again, the raters would sometimes choose differently."""
    found = {"accuracy_ceiling_known_rater": _mean([max(c.probability, 1 - c.probability) for c in choices])}
    pooled = [c.pooled_probability for c in choices if c.pooled_probability is not None]
    if len(pooled) == len(choices):
        found["accuracy_ceiling_one_score"] = _mean([max(p, 1 - p) for p in pooled])
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
