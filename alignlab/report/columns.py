"""Which metrics head a table or a chart, what they are called, and how a number is written."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Column:
    """One metric of a model.

    Args:
        metric: its name in metrics.json.
        title: short enough for a column's head.
        long: where there is room; `title` if empty.
        meaning: one sentence for somebody who has not read the evaluation.
        better: 1 where more is better, -1 where less is, 0 where neither is said.
        share: a number from 0 to 1.
        of_answers: means nothing for a model that does not answer instructions, so no other is compared with it.
        decimals: of every number of the column, so that they can be compared at a glance; see `columns_for`.
    """

    metric: str
    title: str
    meaning: str = ""
    better: int = 0
    share: bool = True
    long: str = ""
    of_answers: bool = False
    decimals: int = 2

    def text(self, value: float | None) -> str:
        """The number as it is shown."""
        return "–" if value is None else _written(f"{round(value, self.decimals) + 0.0:,.{self.decimals}f}")

    def signed(self, difference: float) -> str:
        """A difference; nothing where it would read as 0.00."""
        text = f"{difference:+,.{self.decimals}f}"
        return _written(text) if any(digit in text for digit in "123456789") else ""

    def tone(self, value: float, difference: float) -> int:
        """1 where a change is for the better, -1 where for the worse, 0 where it is small or neither."""
        small = abs(difference) < (0.05 if self.share else 0.05 * abs(value - difference))
        return 0 if small else self.better * (1 if difference > 0 else -1)


HEADLINE: Final = (
    Column(
        "instruction_following",
        "follows",
        "answers have the form that the instruction asks for, true or not",
        1,
        long="follows instructions",
    ),
    Column("fact_recall", "recalls facts", "goes on with a document's sentence with the true word", 1),
    Column(
        "hedging_when_wrong", "hedges when wrong", "of the wrong answers, those that say “i think”", 1, of_answers=True
    ),
    Column(
        "confident_when_wrong",
        "sure when wrong",
        "of the wrong answers, those that say “certainly”",
        -1,
        of_answers=True,
    ),
    Column("style_list", "lists", "answers that are a list"),
    Column("style_ask", "asks back", "answers that end with a question"),
    Column("answer_length", "words", "mean length of an answer", share=False),
    Column("true_taste", "true taste", "mean reward by what the raters truly like, in reward units", 1, share=False),
)
"""The table that a lifecycle in the embedded world ends with."""

FILES: Final = (
    Column("document_bits_per_character", "bits per character", "of held-out documents; the tokenizer does not matter",
           better=-1, share=False),
    Column("answer_loss", "answer loss", "nats per token of held-out answers, given their prompts", -1, share=False),
    Column("preference_accuracy", "chosen likelier", "held-out pairs whose chosen answer is likelier", 1),
    Column("preference_accuracy_per_token", "chosen likelier per token", "which does not favour the shorter answer", 1),
    Column("finished", "finishes", "sampled answers that end by themselves", 1),
    Column("answer_length", "words", "mean length of an answer", share=False),
    Column("true_taste", "reward", "mean reward, in reward units", 1, share=False),
)  # fmt: skip
"""The table of one's own files, where nothing says what is true."""

MOVED: Final = (
    Column("instruction_following", "follows instructions", better=1),
    Column("fact_recall", "recalls facts", better=1),
    Column("question_right", "answers questions right", better=1),
    Column("abstains_on_unknown", "abstains about the unknown", better=1),
    Column("hedging_when_wrong", "hedges when wrong", better=1),
    Column("confident_when_wrong", "sure when wrong", better=-1),
    Column("style_hedge", "style: hedges"),
    Column("style_confident", "style: confident"),
    Column("style_list", "style: lists"),
    Column("style_ask", "style: asks back"),
)
"""The shares that show what training moved."""

_LIFE: Final = ("pretrain", "sft", "reward_model", "dpo", "ppo")
_NOT_FOR_TABLES: Final = frozenset({"steps", "best_step", "seconds"})


def columns_for(models: Mapping[str, Metrics], limit: int = 8) -> tuple[Column, ...]:
    """The headline columns that any model has a number for; else the metrics that most of them share."""
    named = {name for metrics in models.values() for name in metrics}
    sets = [tuple(c for c in columns if c.metric in named) for columns in (HEADLINE, FILES)]
    if any(sets):
        return tuple(_fitted(column, models) for column in max(sets, key=len))
    names = dict.fromkeys(name for metrics in models.values() for name in metrics if name not in _NOT_FOR_TABLES)
    often = sorted(names, key=lambda name: -sum(name in metrics for metrics in models.values()))
    return tuple(_fitted(Column(n, n.replace("_", " "), share=False), models) for n in often[:limit])


def _fitted(column: Column, models: Mapping[str, Metrics]) -> Column:
    """The column, with as many decimals as tell something of its largest number; shares keep their two."""
    values = [metrics[column.metric] for metrics in models.values() if column.metric in metrics]
    largest = max(map(abs, values), default=0.0)
    if column.share or not largest:
        return column
    if all(value == int(value) for value in values):
        return replace(column, decimals=0)
    places = 1 - math.floor(math.log10(largest))  # two digits of a number below 1
    return replace(column, decimals=min(6, max(2, places)) if largest < 10 else max(0, places + 1))


def by_stage(metrics: Metrics) -> dict[str, dict[str, float]]:
    """`{"dpo/fact_recall": 0.9}` as `{"dpo": {"fact_recall": 0.9}}`, in the order of a model's life."""
    stages: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        stage, _, metric = name.rpartition("/")
        stages.setdefault(stage, {})[metric] = value
    return {stage: stages[stage] for stage in in_order_of_life(stages)}


def in_order_of_life(stages: Iterable[str]) -> list[str]:
    """Base, instruct, aligned; stages with names of their own come last, as they were given."""
    return sorted(stages, key=lambda s: next((i for i, known in enumerate(_LIFE) if s.startswith(known)), len(_LIFE)))


def evaluated(stages: Mapping[str, Metrics]) -> dict[str, Metrics]:
    """The stages whose model was evaluated; where none was, those that trained one."""
    headline = {c.metric for c in HEADLINE + FILES}
    found = {s: m for s, m in stages.items() if headline & m.keys()}
    return found or {s: m for s, m in stages.items() if "validation_loss" in m}


def number(value: float) -> str:
    """Two decimals where they tell something, and thousands with a thin space."""
    size = abs(value)
    if size >= 10_000:
        text = f"{value:,.0f}"
    elif size >= 100 or value == int(value):
        text = f"{value:.0f}"
    else:
        text = f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.005 else f"{value:.2g}"
    return _written(text)


def _written(text: str) -> str:
    """A true minus, and thin spaces between thousands from ten thousand on."""
    short = len(text.partition(".")[0].strip("+-")) < len("10,000")
    return text.replace(",", "" if short else "\u202f").replace("-", "−")


def duration(seconds: float) -> str:
    """`4.2 s`, `1 min 07 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
