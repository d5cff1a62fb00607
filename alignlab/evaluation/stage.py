"""Evaluate: the stage that measures one policy.

One stage per policy, not one for all: a new beta re-evaluates only its own model.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab.artifact import Artifact, Kind
from alignlab.data.source import DataSource, Need
from alignlab.errors import ConfigError, suggestion
from alignlab.evaluation.base import Evaluation
from alignlab.metrics import check_panels, with_intervals, write_columns, write_outcomes, write_panels
from alignlab.metrics.record import ENDS
from alignlab.policy import Policy, Progress, Sampling
from alignlab.samples import write_samples
from alignlab.stage import Stage, StageContext

Row = Mapping[str, object]


class Evaluate(Stage):
    """Run evaluations on one policy; returns all their metrics, with the ends of their intervals.

    It writes `samples.jsonl` (every answer), `columns.json` (what the metrics are), `by_prompt.jsonl` (outcomes by
    prompt, for comparing models) and, where there are any, `panels.json` (what the evaluations add to the report).

    Args:
        evaluations: by a name of your choice; no two may measure the same metric.
        sampling: how the policy answers.
        inputs: `policy`.
        seed: of the sampling.
        table_rows: rows of each kind of prompt in the table that goes to the tracker.
    """

    VERSION: ClassVar[str] = "2"
    IS_HELPED: ClassVar[bool] = True
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    PRODUCES: ClassVar[Kind] = "evaluation"

    def __init__(
        self,
        *,
        evaluations: Mapping[str, Evaluation],
        sampling: Sampling,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        table_rows: int = 4,
    ) -> None:
        super().__init__(inputs, seed)
        if not evaluations:
            raise ValueError("Evaluate: evaluations is empty; name at least one, or drop the stage")
        if table_rows < 0:
            raise ValueError(f"Evaluate: table_rows must be >= 0, got {table_rows}")
        self.evaluations = dict(evaluations)
        self.sampling = sampling
        self.table_rows = table_rows
        self._check_columns()

    def _check_columns(self) -> None:
        """Refuse metrics of one name before anything is sampled."""
        owners: dict[str, str] = {}
        for name, evaluation in self.evaluations.items():
            for metric in _declared(name, evaluation):
                if metric in owners:
                    others = f"evaluations {owners[metric]} and {name} both measure"
                    raise ValueError(f"Evaluate: {others} {metric}; drop one of them, or rename it there")
                owners[metric] = name
        taken = sorted(f"{m}{end}" for m in owners for end in ENDS if f"{m}{end}" in owners)
        if taken:
            raise ValueError(f"Evaluate: {', '.join(taken)} is the name of an interval's end; rename the metric")

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Records that its evaluations read."""
        return [need for evaluation in self.evaluations.values() for need in evaluation.data_needs()]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Measure the policy."""
        for evaluation in self.evaluations.values():
            evaluation.check_model(inputs["policy"])
        policy = Policy.load(inputs["policy"], context.runtime.dtype).to(context.runtime.device)
        metrics: dict[str, float] = {}
        rows: list[Row] = []
        for number, (name, evaluation) in enumerate(self.evaluations.items()):
            result = evaluation(policy, self.sampling, self.seed, self._progress(context, number))
            self._check(name, evaluation, result.metrics)
            check_panels(f"Evaluate: {name} ({type(evaluation).__name__})", result.panels, evaluation.columns)
            metrics |= result.metrics
            rows += [{**row, "evaluation": name} for row in result.samples]
            write_columns(context.folder, evaluation.columns, name)
            write_panels(context.folder, result.panels, name)
        write_samples(context.folder, rows)
        write_outcomes(context.folder, metrics)
        context.tracker.table("samples", first_of_each_kind(rows, self.table_rows))
        return with_intervals(metrics)

    def _progress(self, context: StageContext, number: int) -> Progress:
        """Answers sampled, each evaluation counted as an equal part of the whole."""
        parts = len(self.evaluations)

        def report(done: int, total: int) -> None:
            context.tracker.progress(number * total + done, parts * total, {})

        return report

    @staticmethod
    def _check(name: str, evaluation: Evaluation, found: Mapping[str, float]) -> None:
        who, declared = f"Evaluate: {name} ({type(evaluation).__name__})", _declared(name, evaluation)
        if unknown := sorted(found.keys() - set(declared)):
            hint = suggestion(unknown[0], declared)
            raise ConfigError(f"{who} measured {', '.join(unknown)}, which its columns do not declare{hint}")
        if bad := {k: float(v) for k, v in found.items() if not math.isfinite(v)}:
            raise ValueError(f"{who} measured {bad}; an evaluation leaves out what is undefined")


def _declared(name: str, evaluation: Evaluation) -> list[str]:
    metrics = [column.metric for column in evaluation.columns]
    if not metrics:
        raise ValueError(f"Evaluate: {name} ({type(evaluation).__name__}) declares no metrics; list them in `columns`")
    if len(set(metrics)) < len(metrics):
        twice = sorted({m for m in metrics if metrics.count(m) > 1})
        raise ValueError(f"Evaluate: {name} ({type(evaluation).__name__}) declares {', '.join(twice)} twice")
    return metrics


def first_of_each_kind(rows: Sequence[Row], count: int) -> list[Row]:
    """The first `count` rows of every kind, in their order."""
    seen: dict[object, int] = {}
    chosen = []
    for row in rows:
        kind = (row.get("evaluation"), row.get("kind"))
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= count:
            chosen.append(row)
    return chosen
