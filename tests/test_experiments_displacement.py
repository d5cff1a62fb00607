"""experiments/displacement: its page says what its table holds."""

from pathlib import Path

import findings

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "displacement"


def test_the_page_shows_the_table_and_its_claim_holds() -> None:
    collect = findings.script("displacement")
    rows, page = collect.load(FOLDER / "results.csv"), (FOLDER / "README.md").read_text(encoding="utf-8")
    assert collect.table(rows) in page
    assert f"**The chosen answers became less likely in {len(rows)} of {len(rows)} runs**" in page
    assert all(row["chosen_log_ratio"] < 0 and row["rejected_log_ratio"] < row["chosen_log_ratio"] for row in rows)
