"""Frontier: reward against the KL to a reference, of every model of a run for which both are known.

Both are known of policies that `stage=drift` measured, of online stages while they train, and of the best of several
samples. Each judge has a drawing of its own, as rewards have units of their own; the horizontal axis is the
root of the KL, as in Gao, Schulman and Hilton 2022 (arXiv:2210.10760).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markupsafe import Markup

from alignlab.metrics import Column, Point
from alignlab.report.chart import value_range
from alignlab.report.numbers import interval_of
from alignlab.report.plot import Plot, Series
from alignlab.report.run import RunView, StageView

REWARD_UNITS = "reward units"
ACROSS = "root of the KL, in √nats per answer"
COLOURS = 8
STEPS = 24
"""Points of a training's path, at most."""


@dataclass(frozen=True)
class Judge:
    """A source of rewards.

    Args:
        name: for the title.
        meaning: one sentence, where it is known.
    """

    name: str
    meaning: str = ""


@dataclass(frozen=True)
class Found:
    """A model, or a path of it, with its reward by one judge.

    Args:
        reference: stage of the policy that the KL is to.
        judge: of the rewards.
        name: of the model.
        points: root of the KL and reward; of a path one after the other.
        path: whether they are steps of a training.
        metric: that the rewards were measured as; "" where it is the stage's own reward.
        made: configuration of the judge; None where it is not known.
    """

    reference: str
    judge: Judge
    name: str
    points: Sequence[Point]
    path: bool = False
    metric: str = ""
    made: Any = None


@dataclass(frozen=True)
class Facet:
    """One judge's drawing."""

    judge: Judge
    drawing: Markup


@dataclass(frozen=True)
class Frontier:
    """The drawings of all judges, for one reference.

    Args:
        reference: stage of the policy that the KL is to.
        facets: by judge.
        legend: class of each model's colour.
        paths: whether trainings are drawn as lines.
    """

    reference: str
    facets: Sequence[Facet]
    legend: Mapping[str, str]
    paths: bool


def frontiers(run: RunView, colour: Mapping[str, str]) -> list[Frontier]:
    """The frontiers of a run, by reference; nothing where no judge has two models and two different KLs.

    Args:
        colour: class of each model's colour.
    """
    order = list(run.stages)
    drifts = [found for stage in run.stages.values() for found in _drift(stage)]
    found = [f for stage in run.stages.values() for f in (*_online(stage, drifts), *_best(stage))]
    found += drifts
    found.sort(key=lambda f: order.index(f.name) if f.name in order else len(order))
    by_reference = {f.reference: [g for g in found if g.reference == f.reference] for f in found}
    made = [_frontier(reference, those, colour) for reference, those in by_reference.items()]
    return [frontier for frontier in made if frontier.facets]


# ---- where both are known --------------------------------------------------------------------------------------------
def _drift(stage: StageView) -> Iterator[Found]:
    """A stage that measured the KL and rewards of a policy."""
    if "kl" not in stage.metrics or not {"policy", "reference"} <= stage.parents.keys():
        return
    for column in (c for columns in stage.columns.values() for c in columns):
        if column.unit == REWARD_UNITS and column.metric in stage.metrics:
            point = _point(stage.metrics["kl"], stage.metrics[column.metric])
            made = (_config(stage).get("rewards") or {}).get(column.metric)
            yield Found(
                stage.parents["reference"], _judge(column, stage), stage.parents["policy"], [point],
                metric=column.metric, made=made,
            )  # fmt: skip


def _judge(column: Column, stage: StageView) -> Judge:
    """Judge of a column's rewards: its reference where it names one, else the stage's reward model."""
    return Judge(column.title, column.meaning) if column.reference else _taken(stage)


def _taken(stage: StageView) -> Judge:
    """The reward model that a stage takes; a reward source of its own (an ensemble, say) is another judge."""
    model = "" if _config(stage).get("reward") else stage.parents.get("reward", "")
    return Judge(model, "the reward model that is trained on") if model else Judge(f"the reward of {stage.name}")


def _online(stage: StageView, drifts: Sequence[Found]) -> Iterator[Found]:
    """The path of a policy that learns from its own answers, by its reward and by parts of it that others measured.

    Args:
        drifts: of stages that measured both. A part is the judge of one of them where name and configuration are.
    """
    curves = stage.curves() if stage.kind == "policy" and "policy" in stage.parents else {}
    same = [f for f in drifts if f.made is not None and _has(_config(stage), f.metric, f.made)]
    named = {"reward": _taken(stage), **{f"reward_{f.metric}": f.judge for f in same}}
    for name, judge in named.items():
        if points := _path(curves, name):
            yield Found(stage.parents["policy"], judge, stage.name, points, path=True)


def _config(stage: StageView) -> Mapping[str, Any]:
    return stage.artifact.manifest.get("config") or {}


def _has(node: Any, key: str, value: Any) -> bool:
    """Whether a value is under a key, anywhere in a configuration."""
    if isinstance(node, Mapping):
        return node.get(key) == value or any(_has(part, key, value) for part in node.values())
    return isinstance(node, list) and any(_has(part, key, value) for part in node)


def _path(curves: Mapping[str, Sequence[tuple[int, float]]], reward: str) -> list[Point]:
    """Means of both over as many successive steps as leave `STEPS` points; of validation where training logged none."""
    for prefix in ("train", "validation"):
        kl, rewards = (dict(curves.get(f"{prefix}/{name}", ())) for name in ("kl", reward))
        both = [(kl[step], rewards[step]) for step in kl if step in rewards]
        if both:
            size = math.ceil(len(both) / STEPS)
            parts = [both[i : i + size] for i in range(0, len(both), size)]
            return [_point(fmean(k for k, _ in part), fmean(r for _, r in part)) for part in parts]
    return []


def _best(stage: StageView) -> Iterator[Found]:
    """The best of several samples: no training, and a KL in closed form."""
    if stage.kind == "answers" and {"kl_estimate", "reward"} <= stage.metrics.keys() and "policy" in stage.parents:
        point = _point(stage.metrics["kl_estimate"], stage.metrics["reward"])
        yield Found(stage.parents["policy"], _taken(stage), stage.name, [point])


def _point(kl: float, reward: float) -> Point:
    # An estimate of a small KL may lie below 0.
    return Point(math.sqrt(max(0.0, kl)), float(reward), *(interval_of(reward) or ()))


# ---- drawings --------------------------------------------------------------------------------------------------------
def _frontier(reference: str, found: Sequence[Found], colour: Mapping[str, str]) -> Frontier:
    judges = [j for j in dict.fromkeys(f.judge for f in found) if _compares([f for f in found if f.judge == j])]
    shown = [f for f in found if f.judge in judges]
    names = list(dict.fromkeys(f.name for f in shown))
    new = [name for name in names if name not in colour]
    legend = {name: colour.get(name) or f"m{(len(colour) + new.index(name)) % COLOURS}" for name in names}
    across = value_range([p.x for f in shown for p in f.points]) if shown else (0.0, 1.0)
    facets = [Facet(judge, _drawn([f for f in shown if f.judge == judge], legend, across)) for judge in judges]
    return Frontier(reference, facets, legend, any(f.path for f in shown))


def _compares(found: Sequence[Found]) -> bool:
    """Whether there are two models and two KLs; what one training logged is shown with its curves."""
    return min(len({f.name for f in found}), len({round(p.x, 3) for f in found for p in f.points})) > 1


def _drawn(found: Sequence[Found], legend: Mapping[str, str], across: tuple[float, float]) -> Markup:
    around = Plot.around([p for f in found for p in f.points], ACROSS, f"reward by {found[0].judge.name}")
    plot = Plot(around.x, around.y, across, around.up)
    paths_first = sorted(found, key=lambda f: not f.path)
    return plot.drawn([Series(f.name, f.points, legend[f.name], f.path, marked=not f.path) for f in paths_first])
