"""Sweeps: which jobs are theirs, where results go, other launchers and sweepers, and how they stop."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from string import ascii_lowercase

import pytest
from fake_plugins import FAKES, python_path

from alignlab.cli.app import main
from alignlab.cli.counting import counted
from alignlab.cli.outcome import metric_for_sweeper
from alignlab.errors import ConfigError
from alignlab.pipeline.run_folder import read_status

pytestmark = pytest.mark.usefixtures("fakes_here")

HYDRA_PLUGINS = '''
"""A launcher that runs each job in a process of its own, and a sweeper that looks at results."""
import json
import multiprocessing
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import open_dict


@dataclass
class ApartConf:
    _target_: str = "hydra_plugins.apart.Apart"


@dataclass
class HalvingConf:
    _target_: str = "hydra_plugins.apart.Halving"


ConfigStore.instance().store(group="hydra/launcher", name="apart", node=ApartConf, provider="apart")
ConfigStore.instance().store(group="hydra/sweeper", name="halving", node=HalvingConf, provider="apart")


class Apart(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        jobs = [(initial_job_idx + i, list(o), self.context, self.task, self.config)
                for i, o in enumerate(job_overrides)]
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            return pool.map(one, jobs, chunksize=1)


def one(job):
    number, overrides, context, task, config = job
    setup_globals()
    cfg = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(cfg):
        cfg.hydra.job.id, cfg.hydra.job.num = str(number), number
    HydraConfig.instance().set_config(cfg)
    done = run_job(hydra_context=context, task_function=task, config=cfg, job_dir_key="hydra.sweep.dir",
                   job_subdir_key="hydra.sweep.subdir")
    done.cfg = done.hydra_cfg = None
    return done


class Halving(Sweeper):
    """Tries both ends of an interval, then their middle; writes down what came back."""

    def setup(self, *, hydra_context, task_function, config):
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments):
        parsed = OverridesParser.create().parse_overrides(arguments)
        swept = next(p for p in parsed if p.is_interval_sweep())
        rest = [p.input_line for p in parsed if p is not swept]
        low, high = swept.value().start, swept.value().end
        found = []
        for number, value in enumerate((low, high, (low + high) / 2)):
            job = [*rest, f"{swept.get_key_element()}={value}"]
            self.validate_batch_is_legal([job])
            (done,) = self.launcher.launch([job], initial_job_idx=number)
            found.append(done.return_value)
        with open("returned.json", "w") as stream:
            json.dump(found, stream)
'''


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plugin of Hydra's; found by processes that have it on their path from the start."""
    folder = tmp_path_factory.mktemp("hydra")
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins" / "apart.py").write_text(HYDRA_PLUGINS)
    return folder


def start(installed: Path, plugins: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": python_path(plugins, installed, FAKES), "COLUMNS": "160"}
    command = [sys.executable, "-m", "alignlab", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and messages."""
    _, errors = process.communicate(timeout=240)
    return process.returncode, errors


# ---- whose jobs ------------------------------------------------------------------------------------------------------
def test_a_sweep_computes_what_is_shared_once() -> None:
    assert main(["-m", "experiment=fake", "pipeline.tuned.objective=weighing,counting", "hydra.sweep.dir=sweep"]) == 0
    cached = [
        {n for n, s in json.loads(Path(f"sweep/{job}/manifest.json").read_text())["stages"].items() if s["cached"]}
        for job in (0, 1)
    ]
    assert cached == [set(), {"base", "label", "evaluate_base"}]


@pytest.mark.slow
def test_jobs_may_have_folders_of_any_depth_next_to_somebody_elses() -> None:
    Path("sweep/somebody/else").mkdir(parents=True)
    where = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir='beta${pipeline.tuned.objective.beta}/seed${seed}'"]
    assert main(["-m", "experiment=fake", "pipeline.tuned.objective.beta=0.1,0.2", "seed=0,1", *where]) == 0
    with Path("sweep/sweep.csv").open(newline="") as file:
        listed = [[row["status"], row["folder"]] for row in csv.DictReader(file)]
    wanted = [str(Path(f"sweep/beta{beta}/seed{seed}").absolute()) for beta in ("0.1", "0.2") for seed in (0, 1)]
    assert listed == [["completed", folder] for folder in wanted]


@pytest.mark.slow
def test_a_second_sweep_in_the_same_folder_looks_at_its_own_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    where = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=${pipeline.trouble.how}"]
    assert main(["-m", "experiment=troubled", "pipeline.trouble.how=user,fine", *where]) == 1
    capsys.readouterr()
    assert main(["-m", "experiment=troubled", "pipeline.trouble.how=fine,good", *where]) == 0
    assert "failed" not in capsys.readouterr().err


def test_two_jobs_with_one_folder_are_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "experiment=fake", "seed=0,1", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=same"]) == 1
    error = capsys.readouterr().err
    assert "jobs 0 and 1 would have the same folder, same" in error and "hydra.job.num" in error
    assert not Path("sweep").exists() and not Path(".alignlab").exists()


def test_a_job_that_fails_ends_neither_the_sweep_nor_silently(capsys: pytest.CaptureFixture[str]) -> None:
    batches = "hydra.sweeper.max_batch_size=1"
    swept = "pipeline.trouble.how=user,fine"
    assert main(["-m", "experiment=troubled", swept, "hydra.sweep.dir=sweep", batches]) == 1
    assert [read_status(Path(f"sweep/{job}")) for job in (0, 1)] == ["failed", "completed"]
    error = capsys.readouterr().err
    assert "failed" in error and "Traceback" not in error


def test_a_mistake_in_one_job_is_found_before_the_first_one_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "experiment=fake", "pipeline.tuned.size=1,many", "hydra.sweep.dir=sweep"]) == 1
    assert "pipeline.tuned.size: Make takes an int, not 'many'" in capsys.readouterr().err
    assert not Path("sweep").exists() and not Path(".alignlab").exists()


def test_sigterm_ends_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "experiment=troubled", "pipeline.trouble.how=sigterm,fine", "hydra.sweep.dir=sweep"]) == 143
    assert not Path("sweep/1").exists()
    assert "preempted" in capsys.readouterr().err


def test_a_secret_in_a_sweep_reaches_no_file() -> None:
    swept = ["-m", "experiment=troubled", "seed=0,1", "+pipeline.trouble.how=hf_" + "a" * 30]
    assert main([*swept, "hydra.sweep.dir=sweep", "store_dir=store"]) == 0
    files = [f for folder in ("sweep", "store") for f in Path(folder).rglob("*") if f.is_file()]
    assert files and not any("hf_aaa" in f.read_text(errors="replace") for f in files)


# ---- a sweep that a file describes -----------------------------------------------------------------------------------
def swept_by_a_file() -> list[str]:
    Path("conf/experiment").mkdir(parents=True)
    params = "      pipeline.tuned.objective: weighing,counting\n      pipeline.tuned.size: 3,4\n"
    hydra = f"hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n{params}"
    text = f"# @package _global_\n# Swept.\ndefaults: [fake, _self_]\nname: swept\n{hydra}"
    Path("conf/experiment/swept.yaml").write_text(text)
    return ["--config-dir", "conf", "experiment=swept"]


@pytest.mark.slow
def test_values_in_a_file_are_read_as_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    swept = swept_by_a_file()
    assert main(["plan", "-m", *swept, "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert [p["overrides"][:2] for p in plans] == [
        [f"pipeline.tuned.objective={objective}", f"pipeline.tuned.size={size}"]
        for objective in ("weighing", "counting")
        for size in (3, 4)
    ]
    assert main([*swept, "hydra.sweep.dir=sweep"]) == 0
    classes = [("Counting" in Path(f"sweep/{job}/config.yaml").read_text()) for job in range(4)]
    assert classes == [False, False, True, True]


@pytest.mark.slow
def test_what_was_typed_is_what_manifests_and_folder_names_show() -> None:
    where = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir='${hydra.job.override_dirname}'"]
    typed = ["pipeline.tuned.objective=counting,weighing", "pipeline.base.size=2"]
    assert main(["-m", "experiment=fake", *typed, *where]) == 0
    name = "experiment=fake,pipeline.base.size=2,pipeline.tuned.objective=counting"
    manifest = json.loads((Path("sweep") / name / "manifest.json").read_text())
    assert manifest["overrides"] == ["experiment=fake", "pipeline.tuned.objective=counting", "pipeline.base.size=2"]


def test_a_glob_selects_options_at_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", "experiment=fake", "pipeline.tuned.objective=glob(*ing)", "--json"]) == 0
    found = [p["overrides"][-1] for p in json.loads(capsys.readouterr().out)]
    assert {"pipeline.tuned.objective=counting", "pipeline.tuned.objective=weighing"} <= set(found)


# ---- other launchers and sweepers ------------------------------------------------------------------------------------
@pytest.mark.slow
def test_jobs_in_other_processes_are_known(installed: Path, plugins: Path) -> None:
    where = ["hydra.sweep.dir=sweep", "hydra.sweep.subdir=how_${pipeline.trouble.how}"]
    swept = ["-m", "experiment=troubled", "pipeline.trouble.how=fine,user", "hydra/launcher=apart", *where]
    code, errors = ended(start(installed, plugins, *swept))
    assert code == 1, errors
    assert [line.split()[1] for line in errors.splitlines() if line[:1].isdigit()] == ["completed", "failed"], errors
    assert read_status(Path("sweep/how_fine")) == "completed" and "Traceback" not in errors


@pytest.mark.slow
def test_a_sweeper_gets_the_metric_that_was_asked_for(installed: Path, plugins: Path) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("# @package _global_\n# Mine.\ndefaults: [fake, _self_]\n")
    swept = ["-m", "-cd", "conf", "experiment=mine", "pipeline.tuned.objective.beta=interval(0.1,0.3)"]
    more = ["hydra/sweeper=halving", "sweep.metric=tuned/loss", "hydra.sweep.dir=sweep"]
    code, errors = ended(start(installed, plugins, *swept, *more))
    assert code == 0, errors
    assert json.loads(Path("returned.json").read_text()) == [3.0, 3.0, 3.0]
    assert [read_status(Path(f"sweep/{job}")) for job in range(3)] == ["completed"] * 3


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("tuned/losss", "the run has no such metric; did you mean tuned/loss?"),
        ("tuned/zzzzzzzzzzzzzz", "the run has no such metric; metrics.json has tuned/fact_recall, tuned/loss"),
        ("tunde/loss", "sweep.metric=tunde/loss: no such stage; stages: "),
        ("loss", "sweep.metric: expected STAGE/METRIC"),
    ],
)
def test_a_metric_that_is_not_there_is_named(metric: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=fake", f"sweep.metric={metric}", "hydra.run.dir=run"]) == 1
    assert message in capsys.readouterr().err
    assert Path("run").exists() is (metric in ("tuned/losss", "tuned/zzzzzzzzzzzzzz")), (
        "only the run itself knows its metrics"
    )


def test_of_many_metrics_some_are_named() -> None:
    metrics = {f"dpo/{name}{end}": 0.0 for name in ascii_lowercase for end in ("", "_low", "_high")}
    with pytest.raises(ConfigError, match=r"metrics.json has dpo/a, (dpo/., ){6}dpo/h, \.\.\.$"):
        metric_for_sweeper("evaluate/true_taste", metrics)


@pytest.mark.parametrize(
    ("number", "is_terminal", "is_shown"), [(10, True, True), (9, True, False), (10, False, False)]
)
def test_many_jobs_are_counted_while_they_are_checked(
    number: int, is_terminal: bool, is_shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: is_terminal)
    monkeypatch.setattr("sys.stderr", screen)
    assert list(counted(range(number))) == list(range(number))
    assert screen.getvalue().startswith("\rchecking job 1 of 10\rchecking job 2 of 10") is is_shown
    assert screen.getvalue().endswith("\r\x1b[K") is is_shown and (is_shown or not screen.getvalue())


def test_a_plan_of_an_interval_shows_its_lower_end(capsys: pytest.CaptureFixture[str]) -> None:
    swept = "pipeline.tuned.objective.beta=interval(0.2,0.9)"
    assert main(["plan", "-m", "experiment=fake", swept, "--json"]) == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert plan["overrides"][-1] == "pipeline.tuned.objective.beta=0.2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "everybody", "code"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143), (signal.SIGHUP, True, 129)],
)
def test_jobs_in_other_processes_save_their_work_when_the_sweep_is_stopped(
    number: signal.Signals, everybody: bool, code: int, installed: Path, plugins: Path
) -> None:
    """Ctrl-C and a closed terminal reach every process of its group; a scheduler's SIGTERM the first one only."""
    swept = ["-m", "experiment=troubled", "pipeline.trouble.how=slow", "seed=0,1,2", "hydra/launcher=apart"]
    process = start(installed, plugins, *swept, "hydra.sweep.dir=sweep")
    until = time.monotonic() + 120
    while len(list(Path(".alignlab").glob("work/*/began"))) < 2:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.2)
    (os.killpg if everybody else os.kill)(process.pid, number)
    ended_with, errors = ended(process)
    assert ended_with == code, errors
    assert [read_status(Path(f"sweep/{job}")) for job in (0, 1)] == ["preempted", "preempted"]
    assert read_status(Path("sweep/2")) == "missing", "no further job began"
