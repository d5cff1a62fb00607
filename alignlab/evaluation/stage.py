"""Evaluate: the stage that measures one policy.

One stage for each policy, not one for all: a new beta re-evaluates only its own model.
"""

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab.artifact import SAMPLES, Artifact, Kind, write_lines
from alignlab.data.source import DataSource, Need
from alignlab.errors import ConfigError
from alignlab.evaluation.base import Evaluation
from alignlab.policy import Policy, Progress, Sampling
from alignlab.stage import Stage, StageContext

Row = Mapping[str, object]


class Evaluate(Stage):
    """Runs evaluations on one policy; writes `samples.jsonl` and returns all their metrics.

    Args:
        evaluations: by a name of one's own; no two may report the same metric.
        sampling: how the policy answers.
        inputs: `policy`.
        seed: of the sampling.
        table_rows: rows of each kind of prompt in the table that goes to the tracker.
    """

    VERSION: ClassVar[str] = "1"
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

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """What its evaluations read."""
        return [need for evaluation in self.evaluations.values() for need in evaluation.data_needs()]

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Measure the policy."""
        policy = Policy.load(inputs["policy"], context.runtime.dtype).to(context.runtime.device)
        metrics: dict[str, float] = {}
        rows: list[Row] = []
        for number, (name, evaluation) in enumerate(self.evaluations.items()):
            result = evaluation(policy, self.sampling, self.seed, self._progress(context, number))
            self._check(name, result.metrics, metrics)
            metrics |= result.metrics
            rows += [{**row, "evaluation": name} for row in result.samples]
        write_lines(context.folder / SAMPLES, rows)
        context.tracker.table("samples", first_of_each_kind(rows, self.table_rows))
        return metrics

    def _progress(self, context: StageContext, number: int) -> Progress:
        """Answers sampled, each evaluation counted as an equal part of the whole."""
        parts = len(self.evaluations)

        def report(done: int, total: int) -> None:
            context.tracker.progress(number * total + done, parts * total, {})

        return report

    @staticmethod
    def _check(name: str, found: Mapping[str, float], known: Mapping[str, float]) -> None:
        twice = sorted(found.keys() & known.keys())
        if twice:
            raise ConfigError(f"Evaluate: {name} reports {', '.join(twice)}, as another evaluation does; rename one")
        bad = {k: v for k, v in found.items() if not math.isfinite(v)}
        if bad:
            raise ValueError(f"Evaluate: {name} found {bad}; an evaluation leaves out what is undefined")


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
