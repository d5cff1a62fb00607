"""`alignlab compare`: in what settings differ, over seeds."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep_runs import make

from alignlab.cli.app import main

VALUES = {(0.1, 0): 1.0, (0.1, 1): 3.0, (0.5, 0): 2.0, (0.5, 1): 5.0}
"""dpo/loss by beta and seed."""


def run(folder: Path, config: Mapping[str, Any], metrics: Mapping[str, float], status: str = "completed") -> None:
    make(folder, [], metrics, int(config["seed"]), status)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config)))


def config(beta: float, seed: int, **more: Any) -> dict[str, Any]:
    stages = {"sft": {"seed": seed, "steps": 3}, "dpo": {"seed": seed, "objective": {"beta": beta}, "price": beta}}
    return {"seed": seed, "store_dir": f"somewhere/{beta}/{seed}", "pipeline": stages, **more}


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for (beta, seed), value in VALUES.items():
        metrics = {"dpo/loss": value, "sft/loss": 2.0, "dpo/seconds": beta + seed}
        run(tmp_path / "sweep" / f"{beta}-{seed}", config(beta, seed), metrics)
    monkeypatch.chdir(tmp_path)
    return Path("sweep")


def compared(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["compare", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_seeds_are_averaged_and_differences_paired_by_seed(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(capsys, sweep)
    assert [len(runs) for runs in found["settings"].values()] == [2, 2] and found["paired"]
    assert found["configuration"] == {"pipeline.dpo.price": ["0.1", "0.5"]}
    assert found["changes_along"] == {"pipeline.dpo.price": ["pipeline.dpo.objective.beta"]}
    a, b = found["metrics"]["dpo/loss"]
    assert (a["mean"], a["standard_error"], a["n"]) == (2.0, pytest.approx(math.sqrt(2) / math.sqrt(2)), 2)
    assert (b["mean"], b["standard_error"]) == (3.5, pytest.approx(1.5))
    # Differences by seed are 1 and 2: mean 1.5, standard deviation sqrt(1/2), over sqrt(2).
    assert (b["difference"], b["standard_error_of_difference"]) == (1.5, pytest.approx(0.5))


def test_a_metric_of_one_run_of_each_setting_has_no_error(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for beta in (0.1, 0.5):
        file = sweep / f"{beta}-0" / "metrics.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "dpo/rare": beta}))
    b = compared(capsys, sweep)["metrics"]["dpo/rare"][1]
    assert (b["n"], b["difference"]) == (1, pytest.approx(0.4)) and b["standard_error_of_difference"] is None
    assert main(["compare", str(sweep), "--all"]) == 0 and "+0.4" in capsys.readouterr().out


def test_other_seeds_are_independent(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(sweep / "0.5-2", config(0.5, 2), {"dpo/loss": 5.0})
    found = compared(capsys, sweep)
    b = found["metrics"]["dpo/loss"][1]
    assert not found["paired"] and (b["mean"], b["n"], b["standard_error"]) == (4.0, 3, pytest.approx(1.0))
    assert b["standard_error_of_difference"] == pytest.approx(math.hypot(1.0, 1.0))


def test_two_runs_have_no_standard_error(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    b = compared(capsys, sweep / "0.1-0", sweep / "0.5-0")["metrics"]["dpo/loss"][1]
    assert b["difference"] == 1.0 and b["standard_error"] is b["standard_error_of_difference"] is None


def test_a_run_that_was_repeated_counts_once_and_is_named(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(sweep / "repeated", config(0.1, 0), {"dpo/loss": 1.0})
    found = compared(capsys, sweep)
    assert found["metrics"]["dpo/loss"][0]["n"] == 2 and found["repeated"] == [str(Path.cwd() / "sweep" / "0.1-0")]
    assert main(["compare", str(sweep)]) == 0
    said = "left out: sweep/0.1-0 (a later run has the same configuration, code, data and seed)"
    assert said in capsys.readouterr().out


def test_runs_of_other_code_are_not_repeated_ones(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An objective was edited, or a file of data; neither is in the configuration."""
    for folder in sweep.iterdir():
        about = json.loads((folder / "manifest.json").read_text())
        changed = "0.5" in folder.name
        about["stages"] = {"dpo": {"kind": "policy", "reads": {"code": "b" if changed else "a", "data": "c"}}}
        about["stages"]["report"] = {"kind": "report", "reads": {"code": folder.name}}
        (folder / "manifest.json").write_text(json.dumps(about))
        seed = int(folder.name.rpartition("-")[2])
        (folder / "config.yaml").write_text(yaml.safe_dump(config(0.1, seed)))
    found = compared(capsys, sweep)
    assert found["configuration"] == {"code of dpo": ["a", "b"]} and found["paired"]
    assert [v["mean"] for v in found["metrics"]["dpo/loss"]] == [2.0, 3.5]


def test_a_name_for_each_seed_makes_no_setting(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of which the report has a copy."""
    for folder in sweep.iterdir():
        beta, seed = folder.name.split("-")
        named = config(float(beta), int(seed), name=folder.name)
        named["pipeline"]["report"] = {"experiment": folder.name}
        (folder / "config.yaml").write_text(yaml.safe_dump(named))
    assert [len(runs) for runs in compared(capsys, sweep)["settings"].values()] == [2, 2]


def test_a_stage_with_a_seed_of_its_own_is_another_setting(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = config(0.1, 0)
    other["pipeline"]["sft"]["seed"] = 9
    run(sweep / "own", other, {"dpo/loss": 1.0})
    assert "pipeline.sft.seed" in compared(capsys, sweep / "own", sweep / "0.1-0")["configuration"]


def test_the_tables_name_what_differs_and_nothing_else(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["compare", str(sweep)]) == 0
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "pipeline.dpo.price (+1 with it) 0.1 0.5" in lines
    assert "dpo/loss 2.00 ± 1.00 (2) 3.50 ± 1.50 (2) +1.50 ± 0.50" in lines
    assert "sft/loss" not in shown and "store_dir" not in shown and "steps" not in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80


def test_three_settings_are_compared_with_the_first(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(sweep / "0.9-0", config(0.9, 0), {"dpo/loss": 0.5})
    assert main(["compare", str(sweep), "--metrics", "dpo/loss"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dpo/loss", "A", "0.1", "2.00", "±", "1.00", "(2)"] in lines and ["C", "0.9", "0.50", "−1.50"] in lines
    assert lines[:2] == [["price", "run", "seeds"], ["A", "0.1", "sweep/0.1-0", "...", "0,", "1"]]
    assert ["differ", "in", "pipeline.dpo.price,", "and", "1", "that", "change", "with", "them"] in lines


def test_many_settings_leave_room_for_one_metric(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    for i in range(50):
        run(tmp_path / "many" / str(i), config(i / 10, 0), {"dpo/loss": i, "dpo/kl": 2.0 * i + 1})
    assert main(["compare", "many"]) == 0
    shown = capsys.readouterr().out
    assert "1 more that differ less: --all" in shown and "dpo/kl" not in shown
    assert "AX  4.9" in shown and max(len(line.rstrip()) for line in shown.splitlines()) <= 80


def test_small_standard_errors_have_a_digit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, (beta, seed) in enumerate(VALUES):
        run(tmp_path / str(i), config(beta, seed), {"dpo/loss": 1 + beta + seed / 1000})
    assert main(["compare", *(str(tmp_path / str(i)) for i in range(4))]) == 0
    assert "1.1005 ± 0.0005 (2)" in capsys.readouterr().out


def test_what_is_not_completed_is_left_out_by_name(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(sweep / "bad", config(0.3, 0), {}, status="failed")
    assert compared(capsys, sweep)["left_out"] == {str(Path.cwd() / "sweep" / "bad"): "failed"}
    assert main(["compare", str(sweep)]) == 0
    assert "left out: sweep/bad (failed)" in capsys.readouterr().out.replace(f"{Path.cwd()}/", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run was named"),
        (["nowhere"], "no such folder: nowhere"),
        (["sweep/0.1-0"], "two completed runs are needed, and there is 1"),
        (["sweep", "--metrics", "dpo/los"], "did you mean dpo/loss?"),
        (["sweep", "--al"], "`alignlab compare --help` lists the flags"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[-1:] == ["--al"]:
        arguments = ["sweep", "--alll"]
    assert main(["compare", *arguments]) == 1
    assert message in (error := capsys.readouterr().err) and len(error.splitlines()) == 1
