"""experiments/faults: the page shows its tables, and what it claims of them is so."""

from pathlib import Path
from types import ModuleType

import findings
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "faults"


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    return findings.script("faults", "run.py")


def test_the_page_shows_the_tables(soak: ModuleType) -> None:
    page, rows = (FOLDER / "README.md").read_text(encoding="utf-8"), soak.load()
    assert soak.table(rows) in page and soak.commits(rows) in page


def test_at_least_two_hundred_kills_and_nothing_was_lost(soak: ModuleType) -> None:
    rows = soak.load()
    assert sum(r["ended"] == "killed" for r in rows) >= 200
    assert not [r for r in rows if r["wrong"]] and {r["ended"] for r in rows} == {"killed", "full", "completed"}


def test_every_place_was_tried_twice_and_every_round_was_completed_once(soak: ModuleType) -> None:
    rows = soak.load()
    completed = [(r["round"], r["place"]) for r in rows if r["ended"] == "completed"]
    assert len(completed) == len(set(completed)) and {n for n, _ in completed} == {r["round"] for r in rows}
    assert all(sum(place == one for _, one in completed) >= 2 for place in soak.PLACES)


def test_every_kind_of_fault_struck(soak: ModuleType) -> None:
    struck = {r["kind"] for r in soak.load() if r["ended"] != "completed"}
    assert struck == set(soak.KINDS)
