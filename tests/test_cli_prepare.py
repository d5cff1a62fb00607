"""`alignlab prepare`: what jobs share is made before they start, and found by them."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignlab.cli.app import main
from alignlab.pipeline.run_folder import read_status

pytestmark = pytest.mark.usefixtures("fakes_here")

SWEEP = ["-m", "experiment=fake", "pipeline.tuned.objective.beta=0.1,0.2", "seed=0,1"]


def prepared(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["prepare", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def names(found: dict[str, Any], made: bool = True) -> list[str]:
    return [stage["name"] for stage in found["stages"] if stage["made"] == made]


def test_a_sweep_finds_what_was_prepared(capsys: pytest.CaptureFixture[str]) -> None:
    found = prepared(capsys, *SWEEP)
    assert found["jobs"] == 4 and names(found) == ["base", "label", "evaluate_base"] * 2, "of each seed"
    again = prepared(capsys, *SWEEP)
    assert names(again) == [] and again["folder"] is None and len(again["stages"]) == 6
    assert main([*SWEEP, "hydra.sweep.dir=sweep"]) == 0
    for job in range(4):
        stages = json.loads(Path(f"sweep/{job}/manifest.json").read_text())["stages"]
        assert {n for n, s in stages.items() if s["cached"]} == {"base", "label", "evaluate_base"}


def test_of_stages_that_differ_it_makes_the_part_that_they_share(capsys: pytest.CaptureFixture[str]) -> None:
    """One run has nothing to share, and `--until` leaves the stage itself out."""
    one = ["experiment=fake", "pipeline.tuned=scored", "pipeline.tuned.inputs.policy=base"]
    swept = ["-m", *one, "pipeline.tuned.size=3,4"]
    assert prepared(capsys, *one)["parts"] == prepared(capsys, *swept, "--until", "tuned")["parts"] == []
    found = prepared(capsys, *swept)
    assert found["parts"] == ["tuned/look"] and names(found) == ["label", "evaluate_base"]
    assert len(list(Path(".alignlab/objects").glob("*/look.txt"))) == 1
    assert not list(Path(".alignlab/work").iterdir()), "the stage itself has not begun"
    assert prepared(capsys, *swept)["parts"] == []
    assert main(["plan", *swept, "--json"]) == 0
    jobs = json.loads(capsys.readouterr().out)
    tuned = [stage for job in jobs for stage in job["stages"] if stage["name"] == "tuned"]
    assert [(stage["cached"], stage["shares"]["cached"]) for stage in tuned] == [(False, True)] * 2


def test_of_one_run_it_makes_what_comes_before_the_last_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert names(prepared(capsys, "experiment=fake")) == ["base", "label"]


def test_until_a_stage_that_one_is_not_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert names(prepared(capsys, "experiment=fake", "--until", "label")) == ["base"]
    found = prepared(capsys, "experiment=fake", "--until", "evaluate_tuned")
    assert names(found) == ["label", "tuned"] and names(found, made=False) == ["base"]
    assert prepared(capsys, *SWEEP, "--until", "base")["stages"] == [], "it comes from nothing"


def test_it_is_recorded_as_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(prepared(capsys, "experiment=fake")["folder"])
    assert folder.name.endswith("-prepare") and read_status(folder) == "completed"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["prepares"] == list(manifest["stages"]) == ["base", "label"]
    assert (folder / "stages" / "base" / "model.json").is_file()


def test_its_record_holds_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    key = "ghp_" + "a1B2" * 9
    folder = Path(prepared(capsys, "experiment=fake", f"name='key {key}'")["folder"])
    assert "<redacted>" in (folder / "manifest.json").read_text()
    assert [str(f) for f in folder.rglob("*") if f.is_file() and key in f.read_text(errors="ignore")] == []


def test_what_fails_is_recorded_and_the_rest_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "-m", "experiment=troubled", "pipeline.trouble.how=user", "seed=0,0"]) == 1
    assert "corpus.jsonl:3: text is missing" in capsys.readouterr().err
    (folder,) = Path("runs").glob("*/*-prepare")
    assert read_status(folder) == "failed"
    assert names(
        prepared(capsys, "-m", "experiment=troubled", "pipeline.trouble.how=fine", "seed=0,0"), made=False
    ) == ["base"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=fake", "--until", "tunde"], "--until tunde: no such stage; stages: base, label, tuned"),
        (["experiment=fake", "--untill", "tuned"], "did you mean --until?"),
        (["experiment=fake", "pipeline.base.sise=1"], "Make takes size, not sise"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert not Path("runs").exists() and not Path(".alignlab").exists()
