"""What one optimizer step does, in closed form: clipping, learning rate, and what is logged of it."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import OBJECTIVES, UNITS, Fixed, parameters, stage_of
from training_runs import killed_and_resumed, run_in, with_kind

from alignlab.batch import Batch
from alignlab.runtime import Runtime
from alignlab.training import AdamW, Constant, Cosine, Linear, Loop, ParameterGroup, Schedule

FLAT = 1e8
"""An `eps` that dwarfs every gradient: without moments, AdamW then is gradient descent at the rate lr / eps."""
FIXED_RATE = Constant(warmup_steps=0)
EXACT = Runtime(accelerator="cpu", precision="64-true")


# ---- clipping and learning rate -------------------------------------------------------------------------------------
class TwoGroups(Fixed):
    """The body and the scalar head in groups of their own; remembers all weights before each step."""

    limits: tuple[float | None, float | None] = (None, None)

    def parameter_groups(self) -> list[ParameterGroup]:
        assert self.policy.score_head is not None
        body = [p for p in self.policy.model.parameters() if p.requires_grad]
        head = list(self.policy.score_head.parameters())
        return [
            ParameterGroup("body", body, clip_norm=self.limits[0]),
            ParameterGroup("head", head, clip_norm=self.limits[1]),
        ]

    def batch_at(self, step: int) -> Batch:
        vars(self).setdefault("before", []).append(parameters(self))
        return super().batch_at(step)


def descent(
    steps: int,
    clip_norm: float | None,
    limits: tuple[float | None, float | None],
    schedule: Schedule | None = None,
) -> Fixed:
    """Plain gradient descent on preferences by scores, without weight decay."""
    objective, kind = OBJECTIVES["bradley_terry"]
    optimizer = AdamW(lr=0.3 * FLAT, betas=(0.0, 0.0), eps=FLAT, weight_decay=0.0, schedule=schedule or FIXED_RATE)
    loop = Loop(steps, UNITS, 10_000, clip_norm, validate_every=steps, log_every=1, keep="last")
    stage = TwoGroups(kind, objective=objective, optimizer=optimizer, loop=loop)
    stage.limits = limits
    return stage


def moved(stage: Fixed) -> dict[str, list[float]]:
    """How far each group went in each step: the norm of its change."""
    places = [*stage.before, parameters(stage)]  # type: ignore[attr-defined]
    found: dict[str, list[float]] = {"body": [], "head": []}
    for a, b in itertools.pairwise(places):
        far = {k: (b[k] - a[k]).square().sum() for k in a}
        head = far.pop("score_head.weight")
        found["head"].append(float(head.sqrt()))
        found["body"].append(float(torch.stack(list(far.values())).sum().sqrt()))
    return found


@pytest.fixture(scope="module")
def norms(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, float]:
    """Gradient norms of the first step, body and head, and that an unclipped step goes as far as its gradient."""
    stage = descent(1, None, (None, None))
    _, heard = run_in(tmp_path_factory.mktemp("norms"), stage, EXACT)
    found = (heard.values("train/grad_norm_body")[0], heard.values("train/grad_norm_head")[0])
    assert moved(stage) == {
        "body": pytest.approx([0.3 * found[0]], rel=1e-5),
        "head": pytest.approx([0.3 * found[1]], rel=1e-5),
    }
    assert found[0] > 0 and found[1] > 0
    return found


@pytest.mark.parametrize(
    ("common", "own", "expected"),
    [
        (0.5, (None, None), (0.5, 0.5)),
        (99.0, (None, None), (None, None)),
        (None, (0.25, None), (0.25, None)),
        (None, (None, 0.25), (None, 0.25)),
        (0.5, (0.25, 99.0), (0.25, None)),
        (0.5, (99.0, 0.25), (None, 0.25)),
    ],
)
def test_each_group_goes_as_far_as_its_own_limit_lets_it(
    common: float | None, own: Any, expected: Any, norms: tuple[float, float], tmp_path: Path
) -> None:
    """Limits are fractions of the smaller norm: of the loop's, then of each group's own. None goes all the way."""
    small = min(norms)
    limits = tuple(None if f is None else f * small for f in own)
    stage = descent(1, None if common is None else common * small, limits)
    _, heard = run_in(tmp_path, stage, EXACT)
    wanted = [0.3 * (norm if f is None else f * small) for f, norm in zip(expected, norms, strict=True)]
    far = moved(stage)
    assert (far["body"][0], far["head"][0]) == pytest.approx(tuple(wanted), rel=1e-4)
    logged = heard.values("train/grad_norm_body")[0], heard.values("train/grad_norm_head")[0]
    assert logged == pytest.approx(norms, rel=1e-6), "norms are logged as they were before clipping"


@pytest.mark.parametrize("schedule", [Cosine, Linear, Constant])
def test_every_step_is_taken_at_the_rate_that_its_number_says(schedule: Any, tmp_path: Path) -> None:
    """The gradient is cut to a norm of 1e-3, so that a step goes 1e-3 times the rate that is logged for it."""
    stage = descent(7, 1e-3, (None, None), schedule(warmup_steps=3))
    _, heard = run_in(tmp_path, stage, EXACT)
    expected = [0.3 * FLAT * stage.optimizer.schedule.factor(k, 7) for k in range(7)]
    assert heard.values("train/lr") == pytest.approx(expected)
    assert moved(stage)["body"] == pytest.approx([1e-3 * lr / FLAT for lr in expected], rel=1e-4)


def test_a_resumed_run_goes_on_with_the_schedule(tmp_path: Path) -> None:
    def make() -> Fixed:
        return stage_of("dpo", 10_000, steps=6, save_every=1, log_every=1)

    resumed, heard = killed_and_resumed(tmp_path, make)
    assert heard.values("step")[:3] == [4, 5, 6]
    assert heard.values("train/lr") == pytest.approx(
        [1e-3 * resumed.optimizer.schedule.factor(k, 6) for k in (3, 4, 5)]
    )


def test_a_run_resumed_between_two_logged_points_logs_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    def make() -> Fixed:
        return stage_of("dpo", 10_000, steps=6, save_every=1, log_every=4)

    _, whole = run_in(tmp_path / "whole", make())
    _, again = killed_and_resumed(tmp_path / "killed", make)
    for name in ("train/loss", "train/margin", "train/accuracy"):
        assert again.values(name) == whole.values(name)


def test_a_warm_up_longer_than_the_run_is_said(tmp_path: Path) -> None:
    stage = stage_of("dpo", 10_000, steps=4)
    stage.optimizer = AdamW(schedule=Cosine(warmup_steps=100))
    _, heard = run_in(tmp_path, stage)
    assert [text for text in heard.said if "never reaches its peak" in text and "ends at 4% of it" in text]


# ---- what is logged -------------------------------------------------------------------------------------------------
def lopsided(step: int) -> Sequence[int]:
    """Another number of pairs a step, so that a mean of means is no mean of pairs."""
    return range(UNITS - step % 3)


class Lopsided(Fixed):
    """Steps of 8, 7 and 6 pairs."""

    def batch_at(self, step: int) -> Batch:
        return super().batch_at(step).select_units(list(lopsided(step)))


@pytest.mark.parametrize("name", ["dpo", "bradley_terry"])
def test_logged_means_are_over_pairs_whatever_the_micro_batches(name: str, tmp_path: Path) -> None:
    found = []
    for budget in (1, 60, 100_000):
        stage = with_kind(Lopsided, name)
        stage.loop = Loop(3, UNITS, budget, validate_every=3, log_every=3)
        _, heard = run_in(tmp_path / str(budget), stage)
        assert len(heard.values("train/accuracy")) == 1
        found.append([heard.values(f"train/{k}") for k in ("loss", "accuracy", "margin")])
    for other in found[:2]:
        for one, whole in zip(other, found[2], strict=True):
            assert one == pytest.approx(whole, rel=1e-4, abs=1e-5)


def test_a_logged_point_is_the_mean_of_what_came_since_the_last(tmp_path: Path) -> None:
    every, third = with_kind(Lopsided, "dpo", steps=6), with_kind(Lopsided, "dpo", steps=6, log_every=3)
    each = run_in(tmp_path / "every", every)[1].values("train/margin")
    counts = [len(lopsided(k)) for k in range(6)]
    weighted = [m * n for m, n in zip(each, counts, strict=True)]
    expected = [sum(weighted[i : i + 3]) / sum(counts[i : i + 3]) for i in (0, 3)]
    assert run_in(tmp_path / "third", third)[1].values("train/margin") == pytest.approx(expected, rel=1e-5, abs=1e-6)
