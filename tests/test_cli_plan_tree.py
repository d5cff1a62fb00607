"""`alignlab plan`: what is cached, missing, stale or made elsewhere; which key changed; what a sweep shares."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from alignlab.artifact import fingerprint
from alignlab.cli.app import main
from alignlab.pipeline.store import Store

pytestmark = pytest.mark.usefixtures("fakes_here")

RUN = ["experiment=fake", "hydra.run.dir=run"]


def plan(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert main(["plan", "experiment=fake", *more, "--json"]) == 0
    return {stage["name"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}


def shown(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    capsys.readouterr()
    assert main(["plan", *more]) == 0
    return capsys.readouterr().out


def states(plan: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: stage["state"] for name, stage in plan.items()}


def why(stage: dict[str, Any]) -> list[str]:
    return [change["text"] for change in stage["why"]]


def test_what_was_never_made_is_missing_and_what_was_made_is_cached(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert set(states(plan(capsys)).values()) == {"missing"}
    assert list(tmp_path.iterdir()) == [], "a plan writes nothing"
    assert main(RUN) == 0
    after = plan(capsys)
    assert set(states(after).values()) == {"cached"} and all(stage["why"] == [] for stage in after.values())


def test_the_key_that_changed_is_named_with_both_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(RUN) == 0
    after = plan(capsys, "pipeline.tuned.objective.beta=0.3")
    assert states(after) == {
        "base": "cached", "label": "cached", "tuned": "stale", "evaluate_tuned": "stale", "evaluate_base": "cached",
        "report": "stale",
    }  # fmt: skip
    assert after["tuned"]["why"] == [
        {"what": "pipeline.tuned.objective.beta", "old": 0.1, "new": 0.3,
         "text": "pipeline.tuned.objective.beta: 0.1 -> 0.3"},
    ]  # fmt: skip
    assert why(after["evaluate_tuned"]) == ["its input policy (tuned) changed"]
    assert why(after["report"]) == ["its inputs evaluate_tuned, tuned changed"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("pipeline.tuned.objective=counting", "pipeline.tuned.objective: lab_fakes.Weighing -> lab_fakes.Counting"),
        ("seed=4", "pipeline.tuned.seed: 0 -> 4"),
        ("~pipeline.tuned.inputs.preferences", "it has no input preferences any more"),
    ],
)
def test_other_changes_are_named(change: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(RUN) == 0
    assert text in why(plan(capsys, change)["tuned"])


def test_a_new_version_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(RUN) == 0
    monkeypatch.setattr("lab_fakes.Prefer.VERSION", "2")
    assert why(plan(capsys)["label"]) == ["VERSION of pipeline.label: 1 -> 2"]


def test_of_several_earlier_ones_the_nearest_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(RUN) == 0
    assert main(["experiment=fake", "hydra.run.dir=other", "seed=7", "pipeline.tuned.size=9"]) == 0
    assert why(plan(capsys, "pipeline.tuned.size=4")["tuned"]) == ["pipeline.tuned.size: 3 -> 4"]


def test_artifacts_from_before_identities_were_recorded_are_compared_by_their_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(RUN) == 0
    for file in Path(".alignlab/objects").glob("*/manifest.json"):
        content = json.loads(file.read_text())
        del content["identity"], content["asked"]
        file.write_text(json.dumps(content))
    assert why(plan(capsys, "pipeline.tuned.size=4")["tuned"]) == ["pipeline.tuned.size: 3 -> 4"]


def test_a_stage_that_another_process_makes_is_named_with_that_process(capsys: pytest.CaptureFixture[str]) -> None:
    key, seen = plan(capsys)["base"]["fingerprint"], list[dict[str, Any]]()

    def build(folder: Path, work: Path) -> dict[str, Any]:
        (work / "last.ckpt").write_text("half")
        seen.append(plan(capsys)["base"])
        seen.append({"text": shown(capsys, "experiment=fake")})
        return {"kind": "other"}

    Store(Path(".alignlab")).get_or_build(key, build)
    held, text = seen[0], seen[1]["text"]
    assert held["state"] == "running" and held["checkpoint"]
    assert (held["running"]["pid"], held["running"]["host"]) == (os.getpid(), socket.gethostname())
    assert f"base: process {os.getpid()} on {socket.gethostname()} makes it, for " in text
    assert not list(Path(".alignlab/locks").glob("*.json")), "nobody holds a lock any more"


def test_a_lock_that_nobody_holds_is_nobodys(tmp_path: Path) -> None:
    """A killed process leaves its file behind."""
    key = fingerprint("x")
    store = Store(tmp_path)
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / f"{key[:32]}.lock").touch()
    (tmp_path / "locks" / f"{key[:32]}.json").write_text('{"pid": 1}')
    assert store.holder(key) is None and store.holder(fingerprint("y")) is None


def test_the_time_is_that_of_earlier_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(capsys)["base"]["seconds"] is None
    assert main(RUN) == 0
    for file in Path(".alignlab/objects").glob("*/manifest.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "seconds": 90.0}))
    after = plan(capsys, "pipeline.tuned.size=4")
    assert after["tuned"]["seconds"] == 90.0 and after["base"]["seconds"] is None, "what is cached takes no time"
    text = shown(capsys, "experiment=fake", "pipeline.tuned.size=4")
    assert "3 of 6 stages would run (~ 4 min)" in text or "3 of 6 stages would run (~ 5 min)" in text


def test_the_tree_has_each_stage_below_the_one_that_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "experiment=fake").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("stage "))
    names = [line[: line.index("missing")].rstrip() for line in lines[first + 1 : first + 7]]
    assert names == ["base", "├─ label", "├─ tuned", "│  └─ evaluate_tuned", "└─ evaluate_base", "report"]


# ---- sweeps ----------------------------------------------------------------------------------------------------------
SWEEP = ["-m", "experiment=fake", "pipeline.tuned.objective.beta=0.1,0.2,0.3", "seed=0,1"]


def test_a_sweep_shows_each_distinct_stage_once_and_what_sharing_saves(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, *SWEEP).splitlines()
    rows = {line.split("─ ")[-1].split()[0]: line.split("─ ")[-1].split() for line in lines}
    assert rows["base"][1:5] == ["2", "3", "each", "missing"] and rows["tuned"][1:5] == ["6", "1", "each", "missing"]
    text = "\n".join(lines)
    assert "36 stages in 6 jobs, 24 of them distinct; 24 would run" in text
    assert "without sharing 36 would run" in text and "alignlab prepare" in text
    assert "pipeline.tuned.objective.beta: 0.1, 0.2, 0.3" in text


def test_json_of_a_sweep_tells_how_many_jobs_need_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SWEEP, "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert [{s["name"]: s["jobs"] for s in p["stages"]}["base"] for p in plans] == [3] * 6
    assert [{s["name"]: s["jobs"] for s in p["stages"]}["tuned"] for p in plans] == [1] * 6


@pytest.mark.parametrize("arguments", [["experiment=fake"], SWEEP, ["experiment=fake", "rerun=base"]])
def test_eighty_columns_are_enough(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(capsys, *arguments).splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("stage ")) :]
    assert max(len(line.rstrip()) for line in table if "store: " not in line) <= 80
