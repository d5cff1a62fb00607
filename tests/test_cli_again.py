"""Through the command: the folder of a run, its recorded configuration, and running again."""

import json
from pathlib import Path

import pytest

from alignlab.cli.app import main
from alignlab.pipeline.reserve import reserve
from alignlab.pipeline.run_folder import RunFolder, read_status

pytestmark = pytest.mark.usefixtures("fakes_here")


def test_two_runs_in_one_second_get_two_folders() -> None:
    for _ in range(2):
        assert main(["experiment=fake", "hydra.run.dir='runs/${now:%Y}'"]) == 0
    assert [read_status(folder) for folder in sorted(Path("runs").iterdir())] == ["completed", "completed"]


def test_a_folder_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with reserve(Path("run").absolute()):
        RunFolder(Path("run")).status("running")
        assert main(["experiment=fake", "hydra.run.dir=run"]) == 1
    assert "run is in use by another run" in capsys.readouterr().err
    assert [f.name for f in Path("run").iterdir()] == ["status.json"], "nothing was written into it"


@pytest.mark.parametrize("mistake", ["pipeline.tuned.objective.betta=1", "pipeline.base.inputs.policy=nobody", "sed=1"])
def test_a_mistake_is_found_before_the_folder_is_made(mistake: str, tmp_path: Path) -> None:
    assert main(["experiment=fake", mistake]) == 1
    assert main(["-m", "experiment=fake", mistake, "seed=0,1"]) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_of_a_run_can_be_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["experiment=fake", "pipeline.tuned.objective=counting", "seed=3"]
    assert main([*typed, "hydra.run.dir=run"]) == 0
    assert main(["--config", "run/config.yaml", "hydra.run.dir=again"]) == 0
    stages = json.loads(Path("again/manifest.json").read_text())["stages"]
    assert all(stage["cached"] for stage in stages.values())
    assert Path("again/config.yaml").read_text() == Path("run/config.yaml").read_text()
    capsys.readouterr()
    changed = ["pipeline.tuned.objective=weighing", "pipeline.tuned.objective.beta=0.4"]
    assert main(["plan", "--json", "--config=run/config.yaml", *changed]) == 0
    plan = json.loads(capsys.readouterr().out)["stages"]
    assert {s["name"] for s in plan if not s["cached"]} == {"tuned", "evaluate_tuned", "report"}


def test_the_configuration_of_a_single_stage_can_be_run_again() -> None:
    assert main(["experiment=train", "stage=make", "stage.size=5", "tracking=off", "hydra.run.dir=run"]) == 0
    assert main(["--config", "run/config.yaml", "hydra.run.dir=again"]) == 0
    assert json.loads(Path("again/manifest.json").read_text())["stages"]["make"]["cached"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "run/config.yaml", "seed=4"], "seed=4: has no effect on a recorded configuration"),
        (["--config", "nowhere.yaml"], "--config: nowhere.yaml cannot be read"),
        (["--config", "run/metrics.json"], "run/metrics.json is not the config.yaml of a run"),
        (["--config"], "--config takes one file"),
    ],
)
def test_what_cannot_be_run_again_is_one_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment=fake", "hydra.run.dir=run"]) == 0
    assert main(arguments) == 1
    assert message in (error := capsys.readouterr().err) and "Traceback" not in error


def test_a_secret_that_was_left_out_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    secret = "pipeline.trouble.how=hf_" + "a" * 30
    assert main(["experiment=troubled", secret, "hydra.run.dir=run"]) == 0
    assert main(["--config", "run/config.yaml"]) == 1
    assert "pipeline.trouble.how: its value was left out" in capsys.readouterr().err
    assert main(["--config", "run/config.yaml", secret, "hydra.run.dir=again"]) == 0


def test_a_stage_can_be_run_again_with_what_follows_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=fake", "hydra.run.dir=run"]) == 0
    before = {f: f.stat().st_mtime_ns for f in Path(".alignlab/objects").glob("*/manifest.json")}
    capsys.readouterr()
    assert main(["plan", "--json", "experiment=fake", "rerun=tuned"]) == 0
    shown = {s["name"] for s in json.loads(capsys.readouterr().out)["stages"] if not s["cached"]}
    assert shown == {"tuned", "evaluate_tuned", "report"}
    assert main(["experiment=fake", "rerun=[tuned,label]", "hydra.run.dir=again"]) == 0
    stages = json.loads(Path("again/manifest.json").read_text())["stages"]
    assert {n for n, s in stages.items() if not s["cached"]} == {"tuned", "label", "evaluate_tuned", "report"}
    after = {f: f.stat().st_mtime_ns for f in Path(".alignlab/objects").glob("*/manifest.json")}
    assert before.keys() == after.keys() and sum(before[f] != after[f] for f in before) == 4
    assert main(["experiment=fake", "rerun=tunde"]) == 1
    assert "rerun=tunde: no such stage; stages: " in (error := capsys.readouterr().err) and "mean tuned?" in error
    assert "rerun" not in Path("again/config.yaml").read_text(), "or the recorded configuration would do it again"


def test_a_sweep_runs_a_shared_stage_again_once() -> None:
    swept = ["-m", "experiment=fake", "pipeline.tuned.objective=weighing,counting", "rerun=base"]
    for name in ("first", "second"):
        assert main([*swept, f"hydra.sweep.dir={name}"]) == 0
    cached = [
        {n for n, s in json.loads(Path(f"second/{job}/manifest.json").read_text())["stages"].items() if s["cached"]}
        for job in (0, 1)
    ]
    assert cached == [set(), {"base", "label", "evaluate_base"}]
