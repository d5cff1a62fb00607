"""Sweeps that choose values by results: `hydra/sweeper=optuna`."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_plugins import FAKES, python_path

from alignlab.cli.app import main
from alignlab.cli.search.trials import seed_of
from alignlab.config.space import Space
from alignlab.errors import ConfigError
from alignlab.pipeline.run_folder import read_status

pytestmark = pytest.mark.usefixtures("fakes_here")
ASKED = ["-m", "experiment=descended", "hydra/sweeper=optuna", "sweep.metric=down/validation_loss"]
X = "pipeline.down.x=interval(-1.0,1.0)"


@pytest.fixture
def optuna() -> Any:
    return pytest.importorskip("optuna", reason="needs alignlab[optuna]")


def sweep(*more: str, folder: str = "sweep", trials: int = 4) -> list[str]:
    return [*ASKED, f"hydra.sweeper.n_trials={trials}", f"hydra.sweep.dir={folder}", *more]


def study(optuna: Any, folder: str = "sweep") -> Any:
    backend = optuna.storages.journal.JournalFileBackend(f"{folder}/study.journal")
    return optuna.load_study(study_name="study", storage=optuna.storages.JournalStorage(backend))


def states(found: Any) -> list[str]:
    return [trial.state.name for trial in found.trials]


# ---- the search space ------------------------------------------------------------------------------------------------
def test_a_space_is_read_in_hydras_grammar() -> None:
    typed = ["seed=1", "a=interval(0.01,0.5)", "b=tag(log,int(interval(1,100)))", "c=sft,dpo", "d=range(2,9,3)"]
    space = Space.read(typed, {"e": "choice(x,y,z)", "a": "1,2", "f": 3})
    assert space.fixed == ("f=3", "seed=1")
    assert [p.key for p in space.parameters] == ["e", "a", "b", "c", "d"]
    _, a, b, c, d = space.parameters
    assert (a.low, a.high, a.is_whole, a.is_log) == (0.01, 0.5, False, False), "what is typed goes before a file"
    assert (b.low, b.high, b.is_whole, b.is_log) == (1, 100, True, True)
    assert c.texts == ("sft", "dpo") and d.numbers == (2, 5, 8)
    ends = ["f=3", "seed=1", "e=z", "a=0.01", "b=1", "c=sft", "d=2"]
    assert list(space.corners())[2] == ends, "the third value of e, and again the first of the others"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a=interval(2,1)", "the interval ends before it begins"),
        ("a=tag(log,interval(0,1))", "a logarithmic scale begins above 0"),
        ("a=tag(log,range(1,9,2))", "takes steps of 1"),
        ("a=1", "nothing to choose"),
    ],
)
def test_a_space_that_is_none_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Space.read([override])


# ---- mistakes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hydra.sweeper.sampler=tpee", "hydra.sweeper.sampler: must be one of tpe, random"),
        ("hydra.sweeper.pruner=mediann", "did you mean median?"),
        ("hydra.sweeper.direction=down", "must be one of minimize, maximize"),
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials: must be a whole number of at least 1"),
        ("hydra.sweeper.sampler_arguments={startup: 3}", "hydra.sweeper.sampler_arguments: TPESampler"),
        ("hydra.sweeper.sampler=grid", "sampler=grid tries values one by one and cannot take an interval"),
        ("hydra.sweeper.n_jobs=2", "hydra/launcher=basic runs one job after the other"),
        ("hydra.sweeper.betta=1", "betta"),
        ("sweep.metric=null", "set sweep.metric=STAGE/METRIC"),
        ("sweep.metric=dwon/validation_loss", "did you mean down?"),
        ("pipeline.down.steps=interval(1,4)", "pipeline.down.steps: Descend takes an int, not 1.0"),
    ],
)
def test_a_mistake_is_named_before_anything_is_made(
    given: str, message: str, optuna: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(sweep(X, given)) == 1
    assert message in capsys.readouterr().err
    assert not Path("sweep").exists() and not Path(".alignlab").exists()


def test_a_pruner_needs_a_metric_of_a_validation(optuna: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(sweep(X, "sweep.metric=base/loss", "hydra.sweeper.pruner=median")) == 1
    assert "base/loss is measured once" in capsys.readouterr().err


def test_without_optuna_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "optuna" else find(name, *more))
    assert main(sweep(X)) == 1
    assert 'pip install "alignlab[optuna]"' in capsys.readouterr().err


# ---- studies ---------------------------------------------------------------------------------------------------------
def test_a_study_is_optunas_own_by_ask_and_tell(optuna: Any, capsys: pytest.CaptureFixture[str]) -> None:
    startup = "hydra.sweeper.sampler_arguments={n_startup_trials: 2}"
    assert main(sweep(X, startup, "hydra.sweeper.seed=7", trials=6)) == 0
    printed = capsys.readouterr().out
    plain = optuna.create_study()
    for number in range(6):
        plain.sampler = optuna.samplers.TPESampler(seed=seed_of(7, number), n_startup_trials=2)
        trial = plain.ask()
        plain.tell(trial, (trial.suggest_float("pipeline.down.x", -1.0, 1.0) - 0.3) ** 2)
    ours = study(optuna)
    assert [t.params for t in ours.trials] == [t.params for t in plain.trials]
    assert [t.value for t in ours.trials] == pytest.approx([t.value for t in plain.trials])
    found = yaml.safe_load(Path("sweep/study.yaml").read_text())
    assert found["best"]["trial"] == plain.best_trial.number and found["trials"]["complete"] == 6
    again = shlex.split(found["best"]["command"])
    assert f"again: {found['best']['command']}" in printed and again[0] == "alignlab"
    assert main([*again[1:], "hydra.run.dir=again"]) == 0
    stages = json.loads(Path("again/manifest.json").read_text())["stages"]
    assert all(stage["cached"] for stage in stages.values()), "the command names what the study has made"


def test_the_same_command_continues_a_study(optuna: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(sweep(X, folder="whole", trials=5)) == 0
    assert main(sweep(X, trials=3)) == 0
    assert main(sweep(X, trials=5)) == 0
    assert main(sweep(X, trials=5)) == 0, "nothing is left to do"
    with Path("sweep/sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["status"]) for row in rows] == [(str(i), "completed") for i in range(5)], "the whole study"
    assert len({row["pipeline.down.x"] for row in rows}) == 5
    assert [t.params for t in study(optuna).trials] == [t.params for t in study(optuna, "whole").trials]
    assert main(sweep(X, "pipeline.down.steps=2,3", "+pipeline.down.seed=1", trials=6)) == 0
    best = yaml.safe_load(Path("sweep/study.yaml").read_text())["best"]
    assert best["trial"] < 5 and "steps" not in best["command"] and "seed" not in best["command"], "as it was run"
    capsys.readouterr()
    assert main(sweep(X, "hydra.sweeper.direction=maximize")) == 1
    assert "minimizes down/validation_loss, not maximizes" in capsys.readouterr().err


def test_a_grid_is_tried_point_by_point(optuna: Any) -> None:
    grid = ["pipeline.down.x=range(0.1,0.4,0.1)", "pipeline.down.steps=2,3", "hydra.sweeper.sampler=grid"]
    assert main(sweep(*grid, trials=99)) == 0
    found = [(t.params["pipeline.down.x"], t.params["pipeline.down.steps"]) for t in study(optuna).trials]
    assert found == [(x, s) for x in (0.1, 0.2, 0.3) for s in ("2", "3")]
    assert "x: 0.3\n" in Path("sweep/4/config.yaml").read_text(), "as it would be typed"


def test_a_failed_trial_is_told_and_the_study_goes_on(optuna: Any, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["pipeline.down.x=-1,0.9,0.3", "hydra.sweeper.sampler=grid", "pipeline.down.fails_above=0.5"]
    assert main(sweep(*grid)) == 1
    assert states(study(optuna)) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "best: trial 2" in capsys.readouterr().out


def test_failures_in_a_row_end_a_study(optuna: Any) -> None:
    assert main(sweep(X, "pipeline.down.fails_above=-2", "hydra.sweeper.max_failures=2")) == 1
    assert states(study(optuna)) == ["FAIL", "FAIL"]


def test_a_poor_trial_is_pruned_and_that_is_no_failure(optuna: Any, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["pipeline.down.x=0.3,0.2,0.9", "hydra.sweeper.sampler=grid", "hydra.sweeper.pruner=median"]
    assert main(sweep(*grid, "hydra.sweeper.pruner_arguments={n_startup_trials: 2}")) == 0
    found = study(optuna)
    assert states(found) == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert list(found.trials[0].intermediate_values) == [1, 2, 3, 4]
    assert list(found.trials[2].intermediate_values) == [1], "at once"
    assert read_status(Path("sweep/2")) == "pruned"
    printed = capsys.readouterr()
    assert "down: pruned at step 1 of 4" in printed.out and "2 complete, 1 pruned" in printed.out
    assert not list(Path(".alignlab/work").glob("*/half.txt")), "nothing half-made is left"


def test_a_plan_shows_the_ends_of_the_space(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *ASKED, "pipeline.down.x=interval(0.2,0.9)", "seed=1,2,3", "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert [p["overrides"][-2:] for p in plans] == [
        ["pipeline.down.x=0.2", "seed=1"],
        ["pipeline.down.x=0.9", "seed=2"],
        ["pipeline.down.x=0.2", "seed=3"],
    ]


def test_a_file_describes_a_study(optuna: Any) -> None:
    Path("conf/experiment").mkdir(parents=True)
    sweeper = "sweeper: {n_trials: 2, sampler: random, params: {pipeline.down.x: 'interval(-1,1)'}}"
    defaults = "defaults: [descended, _self_, override /hydra/sweeper: optuna]"
    text = f"# @package _global_\n# Swept.\n{defaults}\nname: mine\nhydra: {{mode: MULTIRUN, {sweeper}}}\n"
    Path("conf/experiment/mine.yaml").write_text(text + "sweep: {metric: down/validation_loss}\n")
    assert main(["--config-dir", "conf", "experiment=mine", "hydra.sweep.dir=sweep"]) == 0
    assert states(study(optuna)) == ["COMPLETE"] * 2
    command = yaml.safe_load(Path("sweep/study.yaml").read_text())["best"]["command"]
    assert command.startswith("alignlab --config-dir conf experiment=mine pipeline.down.x=")


# ---- processes -------------------------------------------------------------------------------------------------------
def started(installed: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": python_path(installed, FAKES)}
    return subprocess.Popen(
        [sys.executable, "-m", "alignlab", *arguments],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.slow
def test_a_study_that_was_killed_ends_as_one_that_was_left_alone(installed: Path, optuna: Any) -> None:
    assert main(sweep(X, folder="whole", trials=5)) == 0
    process = started(installed, *sweep(X, "pipeline.down.pause=0.5", "store_dir=other", trials=5))
    until = time.monotonic() + 120
    while not Path("sweep/2/status.json").is_file():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(sweep(X, "pipeline.down.pause=0.0", "store_dir=other", trials=5)) == 0
    found = study(optuna)
    assert states(found) == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert found.trials[3].params == found.trials[2].params and found.trials[3].user_attrs["again"] == 2
    kept = [t.params for t in found.trials if t.state.name == "COMPLETE"]
    assert kept == [t.params for t in study(optuna, "whole").trials]


@pytest.mark.slow
def test_several_trials_run_at_the_same_time_and_report(installed: Path, optuna: Any) -> None:
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=2"]
    pruned = ["hydra.sweeper.pruner=threshold", "hydra.sweeper.pruner_arguments={upper: 1.2}"]
    grid = ["pipeline.down.x=0.3,0.2,1.0,0.4", "hydra.sweeper.sampler=grid"]
    process = started(installed, *sweep(*grid, *launcher, *pruned))
    assert process.wait(timeout=240) == 0
    assert states(study(optuna)) == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]


@pytest.mark.slow
def test_the_validations_of_training_prune_it(optuna: Any) -> None:
    """A smaller beta is a larger loss at the same step, in a job of a launcher's process."""
    swept = ["-m", "experiment=smoke", "tracking=off", "~pipeline.ppo", "~pipeline.evaluate_ppo"]
    grid = ["pipeline.dpo.objective.beta=0.3,0.1", "hydra.sweeper.sampler=grid", "pipeline.dpo.loop.validate_every=2"]
    pruner = ["hydra.sweeper.pruner=median", "hydra.sweeper.pruner_arguments={n_startup_trials: 1}"]
    chosen = ["hydra/sweeper=optuna", "sweep.metric=dpo/validation_loss", "hydra.sweep.dir=sweep"]
    assert main([*swept, *grid, *pruner, *chosen, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]) == 0
    found = study(optuna)
    assert states(found) == ["COMPLETE", "PRUNED"]
    assert list(found.trials[0].intermediate_values) == [2, 4, 6, 8, 10, 12, 14, 15]
    assert list(found.trials[1].intermediate_values) == [2]
    assert not [file for file in Path(".alignlab/work").rglob("*") if file.is_file()]
