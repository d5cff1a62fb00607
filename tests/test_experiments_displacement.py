"""experiments/displacement: its page says what its table holds."""

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "displacement"


def test_the_page_shows_the_table_and_its_claim_holds() -> None:
    spec = importlib.util.spec_from_file_location("displacement_collect", FOLDER / "collect.py")
    assert spec is not None and spec.loader is not None
    collect = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(collect)
    rows, page = collect.load(FOLDER / "results.csv"), (FOLDER / "README.md").read_text(encoding="utf-8")
    assert collect.table(rows) in page
    assert f"**The chosen answers became less likely in {len(rows)} of {len(rows)} runs**" in page
    assert all(row["chosen_log_ratio"] < 0 and row["rejected_log_ratio"] < row["chosen_log_ratio"] for row in rows)
