"""experiments/throughput: the page shows its tables, and both sides do the same work."""

import itertools
from pathlib import Path
from types import ModuleType
from typing import Any

import findings
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "throughput"


@pytest.fixture(scope="module")
def work() -> ModuleType:
    return findings.script("throughput", "work.py")


@pytest.fixture(scope="module")
def figure() -> ModuleType:
    return findings.script("throughput", "figure.py")


def test_the_page_shows_the_tables(figure: ModuleType) -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert figure.cpu_table(figure.load(FOLDER / "results.csv")) in page
    assert figure.gpu_table(figure.load(FOLDER / "results-gpu.csv")) in page
    assert figure.profile_table(figure.load(FOLDER / "profile.csv")) in page


def test_every_task_was_measured_on_both_sides_and_has_a_goal(work: ModuleType, figure: ModuleType) -> None:
    rows = figure.load(FOLDER / "results.csv")
    assert set(figure.GOALS) == set(work.TASKS)
    for task, side in itertools.product(work.TASKS, ("alignlab", "trl")):
        (row,) = (r for r in rows if (r["task"], r["side"]) == (task, side))
        assert float(row["steps"]) >= 8, (task, side)


def test_rows_have_the_lengths_that_the_task_says(work: ModuleType, tmp_path: Path) -> None:
    task = work.TASKS["dpo"]
    rows = work.fixed_rows(task)
    rows.write(tmp_path / "rows.json")
    again = work.Rows.read(tmp_path / "rows.json")
    assert again == rows and rows.tokens == 2 * (task.prompt + task.answer)
    assert {len(p) for p in rows.prompts} == {32} and {len(a) for both in rows.answers for a in both} == {64}
    assert {a[-1] for both in rows.answers for a in both} == {work.EOS}


def test_a_clock_leaves_the_first_steps_out(work: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 5.0, 9.0, 10.0, 10.5, 11.5, 12.0])
    monkeypatch.setattr(work.time, "perf_counter", lambda: next(times))
    clock: Any = work.Clock(seconds=100.0)
    assert not any(clock.tick() for _ in range(7))
    found = clock.result(tokens=10)
    assert (found["steps"], found["ms"], found["tokens_per_second"]) == (3, 500.0, 20)
