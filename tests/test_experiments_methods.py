"""experiments/methods: its grid composes, its arithmetic is right, and its page says what its table holds."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from alignlab.config.compose import session

POINTS = ((0.0, 1.0), (4.0, 3.0), (9.0, 0.0))
FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "methods"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a file of the experiment."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in ("grid", "run", "collect"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_every_job_composes(script: Callable[[str], ModuleType]) -> None:
    grid, jobs = script("grid"), script("run").jobs
    assert len(jobs(list(grid.METHODS), [0, 1, 2])) == 3 * sum(len(m.values) for m in grid.METHODS.values())
    with session() as composer:
        for name, seed, overrides in jobs(list(grid.METHODS), [1])[: len(grid.METHODS)]:  # one strength of each
            pipeline = composer.compose(["experiment=methods", f"seed={seed}", *overrides])["pipeline"]
            assert pipeline["drift"]["inputs"]["policy"] == "method" and pipeline["method"]["_target_"], name


def test_a_number_between_two_strengths_is_on_the_line_over_the_root_of_the_kl(
    script: Callable[[str], ModuleType],
) -> None:
    collect = script("collect")
    runs = [
        collect.Run("m", kl, 0, {"kl": kl, "true_taste": taste}) for kl, taste in ((0.0, 1.0), (4.0, 3.0), (9.0, 0.0))
    ]
    assert collect.at(runs, 1.0, "true_taste") == pytest.approx(2.0)  # half of the way to sqrt(4)
    assert collect.at(runs, 6.25, "true_taste") == pytest.approx(1.5)
    assert collect.at(runs, 16.0, "true_taste") is None
    assert collect.gains(runs[1:], {0: runs[:1]}, 1.0, "true_taste") == pytest.approx([1.0])
    assert collect.summary([1.0, 2.0, 3.0]) == "2.00 ± 0.58"


def test_the_page_shows_the_table(script: Callable[[str], ModuleType]) -> None:
    collect, methods = script("collect"), script("grid").METHODS
    known = collect.load(FOLDER / "results.csv")
    runs = [r for r in known if r.method == collect.START or r.strength in methods[r.method].values]
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for table in collect.tables(runs):
        assert table in page
    assert {r.seed for r in runs} == {0, 1, 2}
    assert len([r for r in runs if r.method != collect.START]) == 3 * sum(len(m.values) for m in methods.values())
