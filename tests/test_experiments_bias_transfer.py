"""experiments/bias_transfer: its page says what its table holds, and one row of it is found again."""

from pathlib import Path
from types import ModuleType

import findings
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "bias_transfer"


@pytest.fixture(scope="module")
def run() -> ModuleType:
    return findings.script("bias_transfer", "run.py")


def test_the_page_shows_the_tables(run: ModuleType) -> None:
    rows, page = run.load(FOLDER / "results.csv"), (FOLDER / "README.md").read_text(encoding="utf-8")
    assert len(rows) == len(run.METHODS) * len(run.FEATURES) * len(run.BIASES) * len(run.SEEDS)
    for feature in run.FEATURES:
        assert run.table(rows, feature) in page


def test_what_ends_at_the_exact_tilt_passes_the_bias_on_in_full_and_nothing_else_does(run: ModuleType) -> None:
    rows = [row for row in run.load(FOLDER / "results.csv") if row["bias"]]
    for row in rows:
        tilted = row["method"] in run.TILTED
        assert (abs(row["slope"] - 1) < 1e-3) == tilted, row
        assert (abs(row["transfer"] - 1) < 1e-3 and row["away"] < 1e-6) == tilted, row
        if row["method"] in run.ends_known():
            assert row["own"] < 1e-6, row


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DPO", "IPO"])
def test_a_row_is_found_again(name: str, run: ModuleType) -> None:
    (found,) = (r for r in run.rows_of(name, 0, biases=[1.0], features=["contains a"]))
    (stored,) = (
        r
        for r in run.load(FOLDER / "results.csv")
        if (r["method"], r["feature"], r["bias"], r["seed"]) == (name, "contains a", 1.0, 0.0)
    )
    for column in ("shift", "slope", "transfer", "taste", "regret", "per_taste", "per_bias"):
        assert found[column] == pytest.approx(stored[column], rel=1e-4), column


def test_the_fit_finds_the_weights_that_made_the_log_ratios(run: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, taste, bias = (torch.rand(2, 9, dtype=torch.float64, generator=generator) for _ in range(3))
    ratio = 0.7 * taste - 2 * bias + torch.tensor([[3.0], [-4.0]])
    assert run.fitted(ratio, weight / weight.sum(-1, keepdim=True), taste, bias) == pytest.approx([0.7, -2.0])
