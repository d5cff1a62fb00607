"""experiments/lifecycle: the repository's README shows what its table holds, and its claim holds in every run."""

from pathlib import Path
from types import ModuleType

import findings
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "experiments" / "lifecycle"


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    return findings.script("lifecycle")


def test_the_readme_shows_the_table(collect: ModuleType) -> None:
    assert collect.front(collect.load(FOLDER / "results.csv")) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_both_aligned_models_are_surer_when_wrong_and_earn_more_in_each_of_twelve_runs(collect: ModuleType) -> None:
    rows = collect.load(FOLDER / "results.csv")
    for metric in ("confident_when_wrong", "true_taste"):
        before = collect.values(rows, "sft", metric)
        assert len(before) == 12
        for model in ("dpo", "ppo"):
            assert all(value > before[run] for run, value in collect.values(rows, model, metric).items())
