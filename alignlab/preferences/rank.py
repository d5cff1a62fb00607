"""Rank: sample several answers to each prompt from a policy, which raters rank."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, ClassVar, Final

from alignlab.artifact import Artifact, Kind, write_lines
from alignlab.data import rankings
from alignlab.data.records import Ranking
from alignlab.data.source import DataSource, Need
from alignlab.errors import DataError
from alignlab.judgements.records import JUDGEMENTS, Judgement
from alignlab.metrics import Column, Estimate, with_intervals, write_columns
from alignlab.policy import Policy, Sampling
from alignlab.preferences.sampled import SPLITS, answers_to, prompts_of_both
from alignlab.reward import Candidates, Order, Ranker, RewardSource, score
from alignlab.stage import Stage, StageContext

TABLE_ROWS = 16
"""Rankings in the table that goes to the tracker."""

COLUMNS: Final = (
    Column(
        "agreement_with_reference",
        "pairs of answers within rankings that are in the order of the reference",
        share=True,
        headline=True,
    ),
    Column("identical", "sampled lists that were skipped, because all answers are the same", share=True),
    Column("answers_per_ranking", "mean number of different answers that are ranked", unit="answers"),
    Column("train_rankings", "rankings for training", unit="rankings"),
    Column("validation_rankings", "rankings for validation", unit="rankings"),
    Column("best_length", "mean length of the answers ranked first", unit="words"),
    Column("worst_length", "mean length of the answers ranked last", unit="words"),
)


class Rank(Stage):
    """Make rankings: several sampled answers to a prompt, in the order of a rater.

    Prompts are repeated in a shuffled order until there are enough lists; those of the validation split are the data
    source's validation prompts. An answer that was sampled twice is ranked once; lists of one answer are skipped and
    counted.

    Args:
        data: gives the prompts.
        preference: ranks (a panel of raters).
        sampling: how the policy answers.
        answers: sampled to each prompt; fewer are ranked when some are identical.
        lists: sampled for training.
        validation_lists: sampled for validation.
        reference: scores that the rankings are compared with (the raters' true taste, if they are simulated); optional.
        inputs: `policy`, whose answers are ranked.
        seed: of sampling, of the prompts' order and of the order in which answers are shown.
    """

    VERSION: ClassVar[str] = "2"
    IS_HELPED: ClassVar[bool] = True
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    PRODUCES: ClassVar[Kind] = "rankings"

    def __init__(
        self,
        *,
        data: DataSource,
        preference: Ranker,
        sampling: Sampling,
        answers: int = 4,
        lists: int = 2000,
        validation_lists: int = 200,
        reference: RewardSource | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs, seed)
        for name, value, least in (
            ("answers", answers, 2),
            ("lists", lists, 1),
            ("validation_lists", validation_lists, 1),
        ):
            if value < least:
                raise ValueError(f"Rank: {name} must be >= {least}, got {value}")
        self.data = data
        self.preference = preference
        self.sampling = sampling
        self.answers = answers
        self.lists = lists
        self.validation_lists = validation_lists
        self.reference = reference

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Prompts, of both parts."""
        return [(self.data, Need("prompts", held_out=True))]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Sample, judge, write `rankings.jsonl`, and the judgements in their own format into `judgements.jsonl`."""
        policy = Policy.load(inputs["policy"], context.runtime.dtype).to(context.runtime.device)
        sampled = self._sample(policy, context)
        index = [i for i, shown in enumerate(sampled) if len(shown.answers) > 1]
        if not index:
            raise DataError(
                f"{context.name}: all answers of each of {len(sampled)} lists are identical, so there is nothing to "
                f"rank; raise sampling.temperature"
            )
        lists = [sampled[i] for i in index]
        orders = self.preference.rank(lists, index)
        rows = [self._row(i, shown, order) for i, shown, order in zip(index, lists, orders, strict=True)]
        rankings.write(context.folder, rows)
        made = (_judgement(shown, order, row) for shown, order, row in zip(lists, orders, rows, strict=True))
        write_lines(context.folder / JUDGEMENTS, (judgement.to_json() for judgement in made))
        context.tracker.say(f"{len(rows)} rankings; {len(sampled) - len(rows)} lists of identical answers skipped")
        texts = zip(rows[:TABLE_ROWS], lists, strict=False)
        context.tracker.table("rankings", [{**row, "prompt": shown.prompt.text} for row, shown in texts])
        write_columns(context.folder, self._columns())
        return with_intervals({**_metrics(rows, len(sampled)), **self._agreement(lists, orders)})

    def _sample(self, policy: Policy, context: StageContext) -> list[Candidates]:
        counts = (self.lists, self.validation_lists)
        prompts = prompts_of_both(policy, self.data, counts, f"rank:{self.seed}", context)
        answers = answers_to(policy, prompts, self.answers, self.sampling, self.seed, context)
        return [Candidates(p, tuple(dict.fromkeys(texts))) for p, texts in zip(prompts, answers, strict=True)]

    def _row(self, index: int, shown: Candidates, order: Order) -> dict[str, Any]:
        return rankings.row(
            Ranking(shown.prompt, tuple(shown.answers[i] for i in order.places)),
            "train" if index < self.lists else "validation",
            index=index,
            rater=order.rater,
            probability=order.probability,
            places=list(order.places),
        )

    def _agreement(self, lists: Sequence[Candidates], orders: Sequence[Order]) -> dict[str, float]:
        """How many pairs are in the reference's order, among those between which it sees a difference."""
        if self.reference is None:
            return {}
        flat = [(shown.prompt, answer) for shown in lists for answer in shown.answers]
        scores = iter(score(self.reference, [p for p, _ in flat], [a for _, a in flat]).tolist())
        found = Estimate.share(_in_order(lists, orders, scores))
        return {} if found is None else {"agreement_with_reference": found}

    def _columns(self) -> list[Column]:
        """Its metrics; the first names the reference."""
        if self.reference is None:
            return list(COLUMNS)
        name = self.reference.describe()
        return [replace(COLUMNS[0], meaning=f"{COLUMNS[0].meaning}, which is {name}", reference=name), *COLUMNS[1:]]


def _judgement(shown: Candidates, order: Order, row: Mapping[str, Any]) -> Judgement:
    """The ranking as a person's would be written: of the answers as they were shown."""
    facts = dict(shown.prompt.facts)
    about = (str(row["index"]), row["prompt"], shown.answers, order.rater)
    return Judgement(*about, order.places[0], ranking=order.places, split=row["split"], facts=facts)


def _in_order(
    lists: Sequence[Candidates], orders: Sequence[Order], scores: Iterator[float]
) -> Iterator[tuple[str, bool]]:
    """For every pair of ranked answers with different scores, its prompt and whether the better one is ahead."""
    for shown, order in zip(lists, orders, strict=True):
        own = [next(scores) for _ in shown.answers]
        for ahead, behind in combinations(order.places, 2):
            if own[ahead] != own[behind]:
                yield shown.prompt.text, own[ahead] > own[behind]


def _metrics(rows: Sequence[Mapping[str, Any]], sampled: int) -> dict[str, float]:
    return {
        **{f"{split}_rankings": float(sum(r["split"] == split for r in rows)) for split in SPLITS},
        "identical": 1 - len(rows) / sampled,
        "answers_per_ranking": sum(len(r["answers"]) for r in rows) / len(rows),
        "best_length": sum(len(r["answers"][0].split()) for r in rows) / len(rows),
        "worst_length": sum(len(r["answers"][-1].split()) for r in rows) / len(rows),
    }
