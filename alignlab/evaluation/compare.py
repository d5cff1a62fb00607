"""Compare: how often one policy's answers are preferred to another's, as they are and at equal length."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab.artifact import Artifact, Kind
from alignlab.data.source import DataSource, Need, Split
from alignlab.errors import DataError
from alignlab.evaluation.base import answer_row, defined
from alignlab.evaluation.judge import Verdicts, check_judged, judge_of, judged, named
from alignlab.evaluation.length_control import length_controlled
from alignlab.evaluation.stage import first_of_each_kind
from alignlab.metrics import Column, Estimate, with_intervals, write_columns, write_outcomes
from alignlab.policy import Policy, Sample, Sampling, generate
from alignlab.reward import Pair, Preference, RewardSource
from alignlab.samples import write_samples
from alignlab.stage import Stage, StageContext

KIND = "compare"
"""Kind of the samples."""
VERDICTS: Mapping[float, str] = {1.0: "preferred", 0.0: "not preferred"}


class Compare(Stage):
    """Answer the same prompts by two policies, and have a judge prefer one answer of each pair, shown in both orders.

    Both policies sample by the same random numbers: a policy against itself gives equal answers, which are tied.

    Args:
        data: gives the prompts.
        sampling: how both policies answer.
        preference: raters who judge.
        reward: scores the answers in place of raters; by default the input `reward` does. The higher score wins.
        split: whose prompts; those of "validation" were not trained on.
        samples_per_prompt: answers of each policy to a prompt; the first is compared with the first, and so on.
        limit: at most so many prompts, the first ones; null takes all.
        inputs: `policy`; `baseline`, another policy; `reward`, a reward model; under other names the reward models that
            `reward` scores with.
        seed: of the sampling.
        table_rows: rows of the table that goes to the tracker.

    Source: Dubois et al. 2024 (AlpacaEval 2), arXiv:2404.04475; both orders as in Zheng et al. 2023, arXiv:2306.05685.
    """

    VERSION: ClassVar[str] = "2"
    IS_HELPED: ClassVar[bool] = True
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {
        "policy": frozenset({"policy"}),
        "baseline": frozenset({"policy"}),
    }
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {"reward": frozenset({"reward_model"})}
    FURTHER: ClassVar[frozenset[Kind]] = frozenset({"reward_model"})
    PRODUCES: ClassVar[Kind] = "evaluation"

    def __init__(
        self,
        *,
        data: DataSource,
        sampling: Sampling,
        preference: Preference | None = None,
        reward: RewardSource | None = None,
        split: Split = "validation",
        samples_per_prompt: int = 1,
        limit: int | None = None,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        table_rows: int = 8,
    ) -> None:
        super().__init__(inputs, seed)
        least = {"samples_per_prompt": 1, "table_rows": 0, "limit": 1}
        given = {"samples_per_prompt": samples_per_prompt, "table_rows": table_rows, "limit": limit}
        for name, value in given.items():
            if value is not None and value < least[name]:
                raise ValueError(f"Compare: {name} must be >= {least[name]}, got {value}")
        self.data, self.sampling, self.split = data, sampling, split
        self.preference, self.reward = preference, reward
        self.samples_per_prompt, self.limit, self.table_rows = samples_per_prompt, limit, table_rows

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse to compare without a judge, or with two."""
        check_judged(self, self.reward, self.preference, names)

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Prompts."""
        return [(self.data, Need("prompts", held_out=self.split == "validation"))]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Answer by both, and judge."""
        self.check_inputs(frozenset(inputs))
        prompts = list(self.data.prompts(self.split))[: self.limit]
        asked = [p for p in prompts for _ in range(self.samples_per_prompt)]
        if not asked:
            raise DataError(f"{context.name}: {type(self.data).__name__} has no {self.split} prompts")

        def answers(number: int, name: str) -> list[Sample]:
            policy = Policy.load(inputs[name], context.runtime.dtype).to(context.runtime.device)
            report = lambda done, total: context.tracker.progress(number * total + done, 3 * total, {})  # noqa: E731
            return generate(policy, asked, self.sampling, self.seed, progress=report)

        samples, others = answers(0, "policy"), answers(1, "baseline")
        pairs = [Pair(s.prompt, s.text, o.text) for s, o in zip(samples, others, strict=True)]
        judge = judge_of(self.reward, self.preference, inputs, context.runtime)
        verdicts = judged(judge, pairs, lambda d, n: context.tracker.progress(2 * n + d, 3 * n, {}))
        metrics = measured(pairs, verdicts, ordered=self.preference is not None)
        if "length_controlled_win_rate" not in metrics:
            one = len({p.text for p in prompts}) == 1
            why = "there is one prompt only" if one else "one policy always gives the longer answer"
            context.tracker.say(f"{why}: there is no win rate at equal length")
        rows = [_row(s, p, float(y)) for s, p, y in zip(samples, pairs, verdicts.outcome, strict=True)]
        write_samples(context.folder, rows)
        write_columns(context.folder, columns(named(judge)), KIND)
        write_outcomes(context.folder, metrics)
        context.tracker.table("samples", first_of_each_kind(rows, self.table_rows))
        return with_intervals(metrics)


def columns(judge: str) -> list[Column]:
    """The metrics, with the name of the judge."""
    ordered = "of answers that are shown"
    return [
        Column(
            "win_rate", "answers that are preferred to the baseline's, a mean over both orders; a tie counts half",
            better=1, share=True, headline=True, reference=judge,
        ),
        Column(
            "length_controlled_win_rate",
            "win rate that a logistic regression gives for answers of the baseline's length",
            better=1, share=True, headline=True, reference=judge,
        ),
        Column("win_rate_shown_first", f"win rate {ordered} before the baseline's", share=True, reference=judge),
        Column("win_rate_shown_second", f"win rate {ordered} after the baseline's", share=True, reference=judge),
        Column("consistent", "pairs in which both orders prefer the same answer, or tie", share=True, reference=judge),
        Column("same_answer", "answers that are the same as the baseline's", share=True),
        Column("longer", "answers with more words than the baseline's; a tie counts half", share=True),
        Column("length_gap", "mean length of the answers minus that of the baseline's", unit="words"),
    ]  # fmt: skip


def measured(pairs: Sequence[Pair], verdicts: Verdicts, ordered: bool) -> dict[str, float]:
    """The metrics of judged pairs.

    Args:
        pairs: the policy's answer and the baseline's.
        verdicts: on the policy's answers.
        ordered: whether the judge sees an order.
    """
    prompts = [p.prompt.text for p in pairs]
    gaps = [float(len(p.first.split()) - len(p.second.split())) for p in pairs]
    orders = {
        "win_rate_shown_first": Estimate.share(zip(prompts, verdicts.shown_first, strict=True)),
        "win_rate_shown_second": Estimate.share(zip(prompts, verdicts.shown_second, strict=True)),
        "consistent": Estimate.share(zip(prompts, verdicts.consistent, strict=True)),
    }
    found = {
        "win_rate": Estimate.share(zip(prompts, verdicts.outcome, strict=True)),
        "length_controlled_win_rate": length_controlled(prompts, verdicts.outcome.tolist(), gaps),
        **(orders if ordered else {}),
        "same_answer": Estimate.share((p.prompt.text, p.first == p.second) for p in pairs),
        "longer": Estimate.share((p, (gap > 0) + (gap == 0) / 2) for p, gap in zip(prompts, gaps, strict=True)),
        "length_gap": Estimate.mean(zip(prompts, gaps, strict=True)),
    }
    return defined(found)


def _row(sample: Sample, pair: Pair, outcome: float) -> dict[str, object]:
    tone = {1.0: "good", 0.0: "bad"}.get(outcome, "")
    known = {"verdict": VERDICTS.get(outcome, "undecided"), "tone": tone}
    return answer_row(sample, KIND, **known, baseline=pair.second, win=outcome)
