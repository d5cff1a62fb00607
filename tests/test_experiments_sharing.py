"""experiments/sharing: the page shows its tables, and what a sweep shares was computed once."""

from pathlib import Path
from types import ModuleType

import findings
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "sharing"
OWN = {"dpo", "evaluate_dpo", "report"}
"""Stages that know beta."""


@pytest.fixture(scope="module")
def run() -> ModuleType:
    return findings.script("sharing", "run.py")


def test_the_page_shows_the_tables(run: ModuleType) -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = run.load(FOLDER / "results.csv")
    assert run.costs(rows) in page and run.stages(rows) in page


def test_the_page_of_sweeps_says_the_same(run: ModuleType) -> None:
    text = " ".join((FOLDER.parents[1] / "docs" / "sweeps.md").read_text(encoding="utf-8").split())
    rows = run.load(FOLDER / "results.csv")
    sweep, (alone, _) = run.whole(rows, "basic").cpu, run.twenty_alone(rows)
    assert f"cost {sweep:.0f} CPU seconds as one sweep, and {alone:.0f} as twenty runs" in text
    assert f"{sweep / alone:.1%}, where the seconds of the stages promise {run.promised(rows):.1%}" in text.replace(
        " %", "%"
    )


@pytest.mark.parametrize("command", ["basic", "joblib"])
def test_every_stage_that_does_not_know_beta_was_computed_once(run: ModuleType, command: str) -> None:
    rows = run.load(FOLDER / "results.csv")
    assert run.whole(rows, command).runs == len(run.BETAS) == 20
    for stage, times in run.computed(rows, command).items():
        assert times == (20 if stage in OWN else 1), stage


def test_a_sweep_costs_what_sharing_promises(run: ModuleType) -> None:
    """In CPU seconds, which say less about who else used the machine; a start of Python is not in the promise."""
    rows = run.load(FOLDER / "results.csv")
    cpu, _ = run.twenty_alone(rows)
    assert abs(run.whole(rows, "basic").cpu / cpu - run.promised(rows)) < 0.05


def test_the_promise_by_hand(run: ModuleType) -> None:
    """Alone: 3 + 1 seconds. Shared: 3 + 20 x 1 of 20 x 4."""
    rows = [run.Row("alone 0.5", "sft", 1, 0, 3.0), run.Row("alone 0.5", "dpo", 1, 0, 1.0)]
    rows += [run.Row("basic", "sft", 1, 0, 9.0), run.Row("basic", "dpo", 20, 0, 9.0)]
    assert run.promised(rows) == pytest.approx(23 / 80)


def test_rows_are_read_as_they_were_written(run: ModuleType, tmp_path: Path) -> None:
    rows = [run.Row("basic", "", 20, 12.5, 30.1), run.Row("basic", "dpo", 20, 0.0, 0.25)]
    run.write(rows, tmp_path / "r.csv")
    assert run.load(tmp_path / "r.csv") == rows
