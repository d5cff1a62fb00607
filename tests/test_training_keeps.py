"""Which weights a training stage publishes: the best, the last, and what a resumed run remembers of them."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import Tensor
from training_cases import Dies, Mortal, parameters, stage_of, train

from alignlab.policy import Policy


class Told(Mortal):
    """Validates as it is told, by step, and keeps the weights of each step; may die before a step."""

    course: ClassVar[dict[int, float]] = {2: 3.0, 4: 1.0, 6: 2.0, 8: 2.0}
    dies_at: int = -1

    def validate_now(self) -> dict[str, float]:
        at = self.steps_made
        # When all is done it is asked once more, of what is published.
        vars(self).setdefault("weights", {}).setdefault(at, parameters(self))
        return {self.MONITOR: self.course[at]}


class Rewarded(Told):
    """Higher is better; the best is at step 4 again, which is the worst to one who looks for the lowest."""

    MONITOR: ClassVar[str] = "reward"
    HIGHER_IS_BETTER: ClassVar[bool] = True
    course: ClassVar[dict[int, float]] = {2: -3.0, 4: 1.0, 6: -2.0, 8: -2.0}


class Level(Told):
    """Always the same."""

    course: ClassVar[dict[int, float]] = dict.fromkeys((2, 4, 6, 8), 1.0)


def told(kind: type[Told] = Told, **loop: Any) -> Told:
    stage = stage_of("dpo", 100_000, **{"steps": 8, "validate_every": 2, **loop})
    stage.__class__ = kind
    assert isinstance(stage, Told)
    return stage


def read(folder: Path) -> dict[str, Tensor]:
    return {k: v.detach() for k, v in Policy.load(folder).named_parameters()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(bool((a[k] == b[k]).all()) for k in a)


@pytest.mark.parametrize("kind", [Told, Rewarded])
@pytest.mark.parametrize(("keep", "root", "other"), [("best", 4, 8), ("last", 8, 4)])
def test_the_kept_weights_are_at_the_root_and_the_others_beside_them(
    keep: str, root: int, other: int, kind: type[Told], tmp_path: Path
) -> None:
    stage = told(kind, keep=keep)
    metrics = train(stage, tmp_path)
    weights = stage.weights  # type: ignore[attr-defined]
    assert not same(weights[4], weights[8])
    assert (metrics["best_step"], metrics["steps"]) == (4, 8)
    name = "last" if keep == "best" else "best"
    assert [f.name for f in (tmp_path / "out" / "checkpoints").iterdir()] == [name]
    assert same(read(tmp_path / "out"), weights[root])
    assert same(read(tmp_path / "out" / "checkpoints" / name), weights[other])
    assert same(parameters(stage), weights[root]), "the metrics are of what is published"


def test_of_equals_the_first_is_the_best_and_patience_runs_out(tmp_path: Path) -> None:
    stage = told(Level)
    assert train(stage, tmp_path / "whole")["best_step"] == 2
    assert same(read(tmp_path / "whole" / "out"), stage.weights[2])  # type: ignore[attr-defined]
    metrics = train(told(Level, patience=2), tmp_path / "impatient")
    assert (metrics["best_step"], metrics["steps"]) == (2, 6)


@pytest.mark.parametrize("kind", [Told, Rewarded])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_killed_after_its_best_remembers_which_it_was_and_how_long_ago(
    keep: str, kind: type[Told], tmp_path: Path
) -> None:
    """Best at 4, worse at 6, killed at 7: with a patience of 2 it stops at 8, of 12 steps, and not later."""

    def make() -> Told:
        return told(kind, keep=keep, steps=12, patience=2, save_every=1)

    whole = make()
    expected = train(whole, tmp_path / "whole")
    killed = make()
    killed.dies_at = 7
    with pytest.raises(Dies):
        train(killed, tmp_path / "killed")
    resumed = make()
    assert train(resumed, tmp_path / "killed") == expected
    assert (expected["best_step"], expected["steps"]) == (4, 8)
    for folder in ("out", "out/checkpoints/last" if keep == "best" else "out/checkpoints/best"):
        assert same(read(tmp_path / "killed" / folder), read(tmp_path / "whole" / folder))
