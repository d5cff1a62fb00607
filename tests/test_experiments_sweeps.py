"""Findings that are Hydra sweeps: their pages show their tables, each over at least three seeds."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from findings import script

FOLDER = Path(__file__).resolve().parents[1] / "experiments"
FINDINGS = ("personas", "verification", "noise", "rounds", "instruct", "refusal", "specialist", "unknown_facts")


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """What the findings share."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("sweeps")
    sys.modules.pop("sweeps", None)


@pytest.mark.parametrize("name", FINDINGS)
def test_the_page_shows_the_table(name: str, sweeps: ModuleType) -> None:
    collect, runs = script(name), sweeps.load(FOLDER / name / "results.csv")
    page = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    table = sweeps.table(runs, collect.SETTINGS, collect.METRICS, page.split("\n| ", 1)[1].split(" |", 1)[0])
    assert table in page and len(table.splitlines()) == 2 + len(collect.SETTINGS)
    for setting in collect.SETTINGS:
        assert {r.seed for r in runs if r.setting == setting} >= {0, 1, 2}, setting


def test_the_second_table_of_refusals_is_shown_too(sweeps: ModuleType) -> None:
    collect, runs = script("refusal"), sweeps.load(FOLDER / "refusal" / "results.csv")
    page = (FOLDER / "refusal" / "README.md").read_text(encoding="utf-8")
    assert sweeps.table(runs, collect.GUARDED_SETTINGS, collect.GUARDED, "refuses requests under") in page


def test_look_alikes_end_over_refusal_in_every_run(sweeps: ModuleType) -> None:
    collect, runs = script("refusal"), sweeps.load(FOLDER / "refusal" / "results.csv")
    for dose in collect.DOSES:
        assert sweeps.of(runs, f"always {dose} 0.05", "refused_safe_same_form") == [0.0, 0.0, 0.0]
        assert max(sweeps.of(runs, f"always {dose} 0.0", "refused_safe_same_form")) > 0.7


def test_rows_are_made_of_complete_runs_alone(sweeps: ModuleType, tmp_path: Path) -> None:
    for number, status in enumerate(("completed", "failed")):
        run = tmp_path / str(number)
        run.mkdir()
        (run / "status.json").write_text(json.dumps({"status": status}))
        (run / "manifest.json").write_text(
            json.dumps({"overrides": ["experiment=x", "+a.b=c=d", "~e", f"seed={number}"]})
        )
        (run / "metrics.json").write_text(json.dumps({"dpo/kl": 0.5}))
    assert list(sweeps.completed(tmp_path)) == [
        ({"experiment": "x", "a.b": "c=d", "~e": "", "seed": "0"}, {"dpo/kl": 0.5})
    ]


def test_a_table_has_means_and_standard_errors(sweeps: ModuleType, tmp_path: Path) -> None:
    runs = [sweeps.Run("s", seed, {"x": value}) for seed, value in enumerate((-1.0, -2.0, -3.0))]
    sweeps.write(runs, ["x", "y"], tmp_path / "r.csv")
    text = sweeps.table(sweeps.load(tmp_path / "r.csv"), {"s": "setting"}, {"x": "number", "y": "other"}, "what")
    assert text.splitlines() == ["| what | number | other |", "|---|---|---|", "| setting | −2.00 ± 0.58 | – |"]
