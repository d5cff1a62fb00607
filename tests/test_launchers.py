"""Launchers: jobs in processes of their own, what one that is killed takes with it, and how all of them stop."""

import contextlib
import importlib.util
import io
import json
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_plugins import FAKES, python_path

from alignlab.cli.app import main
from alignlab.cli.launchers import machine
from alignlab.cli.launchers.base import Order
from alignlab.cli.launchers.processes import ProcessLauncher
from alignlab.cli.launchers.workers import Prefixed
from alignlab.errors import ConfigError
from alignlab.pipeline.run_folder import read_status, status_of

pytestmark = pytest.mark.usefixtures("fakes_here")
WHERE = "hydra.sweep.dir=sweep"


@pytest.fixture
def start(installed: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command in a session of its own."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **more: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": python_path(installed, FAKES), "COLUMNS": "80", **more}
        command = [sys.executable, "-m", "alignlab", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=environment, start_new_session=True, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output."""
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def until(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that a sweep does."""
    limit = time.monotonic() + 180
    while not found():
        assert time.monotonic() < limit and process.poll() is None, process.communicate()[0]
        time.sleep(0.2)


def made(sweep: Path, jobs: int) -> Counter[str]:
    """How many jobs have computed each stage."""
    manifests = [json.loads((sweep / str(job) / "manifest.json").read_text()) for job in range(jobs)]
    return Counter(name for m in manifests for name, stage in m["stages"].items() if not stage["cached"])


# ---- several processes -----------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_jobs_at_the_same_time_compute_what_they_share_once(start: Callable[..., subprocess.Popen[str]]) -> None:
    swept = "pipeline.tuned.objective.beta=0.1,0.2,0.3"
    code, output = ended(
        start("-m", "experiment=fake", swept, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", WHERE)
    )
    assert code == 0, output
    shared = {"base": 1, "label": 1, "evaluate_base": 1}
    assert made(Path("sweep"), 3) == {**shared, "tuned": 3, "evaluate_tuned": 3, "report": 3}
    assert all(f"[{job}] ✓ " in output or f"[{job}] base" in output for job in range(3)), output


def with_one_killed(process: "subprocess.Popen[str]", job: int) -> str:
    """The output of a sweep that failed because the process of its slow job was killed."""
    until(lambda: bool(list(Path(".alignlab").glob("work/*/began"))), process)
    os.kill(int(status_of(Path(f"sweep/{job}"))["pid"]), signal.SIGKILL)
    code, output = ended(process)
    assert code == 1
    return output


@pytest.mark.slow
def test_a_process_that_is_killed_takes_no_other_job_with_it(start: Callable[..., subprocess.Popen[str]]) -> None:
    """Its own job is marked as dead; one that waited for a place still gets it."""
    swept = ["experiment=troubled", "pipeline.trouble.how=slow,fine,good", "hydra/launcher=joblib"]
    output = with_one_killed(start("-m", *swept, "hydra.launcher.n_jobs=1", WHERE), job=0)
    assert [read_status(Path(f"sweep/{job}")) for job in range(3)] == ["dead", "completed", "completed"], output
    assert "job 0: its process" in output and "SIGKILL" in output and "Traceback" not in output


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.slow
def test_a_request_to_stop_ends_all_jobs_and_they_save_their_work(
    launcher: str, number: signal.Signals, start: Callable[..., subprocess.Popen[str]]
) -> None:
    if launcher.startswith("submitit"):
        pytest.importorskip("submitit", reason="alignlab[sweep] is not installed")
    places = "hydra.launcher.n_jobs=2" if launcher == "joblib" else "hydra.launcher.array_parallelism=2"
    swept = ["experiment=troubled", "pipeline.trouble.how=slow", "seed=0,1,2", f"hydra/launcher={launcher}", places]
    process = start("-m", *swept, WHERE)
    until(lambda: len(list(Path(".alignlab").glob("work/*/began"))) == 2, process)
    os.killpg(process.pid, number)  # as a terminal does
    code, output = ended(process)
    assert code == 128 + number, output
    assert [read_status(Path(f"sweep/{job}")) for job in range(2)] == ["preempted"] * 2, output
    assert read_status(Path("sweep/2")) == "missing" and "not run" in output


@pytest.mark.slow
def test_a_sweep_that_is_killed_leaves_no_jobs_behind(start: Callable[..., subprocess.Popen[str]]) -> None:
    swept = ["experiment=troubled", "pipeline.trouble.how=slow", "seed=0,1", "hydra/launcher=joblib"]
    process = start("-m", *swept, "hydra.launcher.n_jobs=2", WHERE)
    until(lambda: len(list(Path(".alignlab").glob("work/*/began"))) == 2, process)
    process.kill()
    limit = time.monotonic() + 60
    while [read_status(Path(f"sweep/{job}")) for job in range(2)] != ["preempted"] * 2:
        assert time.monotonic() < limit
        time.sleep(0.2)


@pytest.mark.slow
def test_two_people_who_start_one_sweep_compute_everything_once(start: Callable[..., subprocess.Popen[str]]) -> None:
    swept = ["-m", "experiment=fake", "pipeline.tuned.objective.beta=0.1,0.2,0.3", "hydra/launcher=joblib"]
    both = [start(*swept, "hydra.launcher.n_jobs=2", f"hydra.sweep.dir={name}") for name in ("one", "two")]
    for process in both:
        code, output = ended(process)
        assert code == 0, output
    together = made(Path("one"), 3) + made(Path("two"), 3)
    assert together == {"base": 1, "label": 1, "evaluate_base": 1, "tuned": 3, "evaluate_tuned": 3, "report": 3}


# ---- submitit --------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_jobs_that_submitit_starts(start: Callable[..., subprocess.Popen[str]]) -> None:
    pytest.importorskip("submitit", reason="alignlab[sweep] is not installed")
    swept = ["experiment=troubled", "pipeline.trouble.how=fine,user,slow", "hydra/launcher=submitit_local"]
    output = with_one_killed(start("-m", *swept, "hydra.launcher.array_parallelism=3", WHERE), job=2)
    assert [read_status(Path(f"sweep/{job}")) for job in range(3)] == ["completed", "failed", "dead"], output
    assert "job 1: corpus.jsonl:3: text is missing" in output and "job 2: submitit's job" in output
    assert list(Path("sweep/.submitit").glob("*_log.out"))


@pytest.mark.slow
def test_a_job_that_is_preempted_saves_its_work_and_is_started_again(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    """SIGUSR2 is how SLURM warns a job; submitit's local executor starts it again as SLURM would."""
    pytest.importorskip("submitit", reason="alignlab[sweep] is not installed")
    swept = ["experiment=troubled", "pipeline.trouble.how=slow", "seed=0", "hydra/launcher=submitit_local"]
    process = start("-m", *swept, WHERE)
    until(lambda: bool(list(Path(".alignlab").glob("work/*/began"))), process)
    first = status_of(Path("sweep/0"))["pid"]
    os.kill(int(first), signal.SIGUSR2)

    def again() -> bool:
        found = status_of(Path("sweep/0"))
        return found.get("status") == "running" and found["pid"] != first

    until(again, process)
    os.kill(process.pid, signal.SIGTERM)
    code, output = ended(process)
    assert code == 143 and read_status(Path("sweep/0")) == "preempted", output


SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
last = int((re.search(r"--array=0-(\\d+)", text) or [0, 0])[1])
tasks = re.search(r"--ntasks-per-node=(\\d+)", text).group(1)
print("Submitted batch job 100")
for task in range(last + 1):
    slurm = dict(SLURM_JOB_ID=str({job} + task), SLURM_ARRAY_JOB_ID="100", SLURM_ARRAY_TASK_ID=str(task),
                 SLURM_NTASKS=tasks, SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0")
    subprocess.Popen(["bash", sys.argv[1]], env=dict(os.environ, **slurm), start_new_session=True,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""
SRUN = """#!{python}
import os, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("-"):
    words = words[2:] if words[0] in ("--output", "--error") else words[1:]
tasks = [subprocess.Popen(words, env=dict(os.environ, SLURM_PROCID=str(i), SLURM_LOCALID=str(i)))
         for i in range(int(os.environ["SLURM_NTASKS"]))]
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SACCT = """#!{python}
print("JobID|State|NodeList")
for task in range(9):
    print(f"100_{{task}}|RUNNING|here")
"""


@pytest.fixture
def with_slurm(tmp_path: Path) -> str:
    """PATH with commands that stand in for SLURM's; the script, the pickles and the waiting are real."""
    commands = tmp_path / "slurm"
    commands.mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": "#!/bin/sh\n"}.items():
        # SLURM's number of a job decides at which port its processes meet.
        (commands / name).write_text(text.format(python=sys.executable, job=1000 + os.getpid() % 8000))
        (commands / name).chmod((commands / name).stat().st_mode | stat.S_IXUSR)
    return f"{commands}:{os.environ['PATH']}"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "submitit_slurm"])
def test_a_job_of_several_processes(
    launcher: str, start: Callable[..., subprocess.Popen[str]], with_slurm: str
) -> None:
    """Each job of the sweep trains in two processes that the launcher has started."""
    pytest.importorskip("submitit", reason="alignlab[sweep] is not installed")
    further = ("sft", "label", "reward_model", "dpo", "ppo", "report")
    further += tuple(f"evaluate_{name}" for name in ("pretrain", "sft", "dpo", "ppo"))
    swept = ["experiment=smoke", *(f"~pipeline.{name}" for name in further), "pipeline.pretrain.loop.steps=3"]
    swept += ["tracking=off", "runtime=ddp", "runtime.accelerator=cpu", "seed=0,1", f"hydra/launcher={launcher}"]
    asked = ["tasks_per_node=2", "array_parallelism=1"]
    code, output = ended(start("-m", *swept, WHERE, *(f"hydra.launcher.{word}" for word in asked), PATH=with_slurm))
    assert code == 0, output
    assert [read_status(Path(f"sweep/{job}")) for job in range(2)] == ["completed", "completed"], output
    assert len(list(Path("sweep/.submitit").glob("*_[01]_result.pkl"))) == 4, "two processes for each of two jobs"


@pytest.mark.slow
def test_an_array_of_slurm(start: Callable[..., subprocess.Popen[str]], with_slurm: str) -> None:
    pytest.importorskip("submitit", reason="alignlab[sweep] is not installed")
    swept = ["experiment=troubled", "pipeline.trouble.how=fine,user", "hydra/launcher=submitit_slurm"]
    asked = ["partition=gpu", "account=lab", "gpus_per_node=2", "mem_gb=1.5", "array_parallelism=7"]
    asked += ["timeout_min=60", "additional_parameters={nice: 100}", "setup=['echo ready']"]
    code, output = ended(start("-m", *swept, WHERE, *(f"hydra.launcher.{word}" for word in asked), PATH=with_slurm))
    assert code == 1, output
    assert [read_status(Path(f"sweep/{job}")) for job in range(2)] == ["completed", "failed"], output
    script = min(Path("sweep/.submitit").glob("*submission*.sh"))  # submitit names the same one for each job
    lines = script.read_text().splitlines()
    wanted = ["partition=gpu", "account=lab", "gpus-per-node=2", "mem=1536M", "cpus-per-task=4", "time=60", "nice=100"]
    assert {f"#SBATCH --{word}" for word in [*wanted, "array=0-1%2", "signal=USR2@120"]} <= set(lines)
    assert "echo ready" in lines


# ---- ray -------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_jobs_of_ray(start: Callable[..., subprocess.Popen[str]]) -> None:
    pytest.importorskip("ray", reason="alignlab[ray] is not installed")
    code, output = ended(
        start("-m", "experiment=troubled", "pipeline.trouble.how=fine,user", "hydra/launcher=ray", WHERE)
    )
    assert code == 1
    assert [read_status(Path(f"sweep/{job}")) for job in range(2)] == ["completed", "failed"], output


def test_a_job_keeps_the_configuration_with_which_its_sweep_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody edits the experiment for the next sweep while jobs of this one wait."""
    file = Path("own/experiment/mine.yaml")
    file.parent.mkdir(parents=True)
    text = "# @package _global_\ndefaults: [fake, _self_]\npipeline: {base: {size: 5}}\n"
    file.write_text(text)

    def later(_: ProcessLauncher, orders: Sequence[Order]) -> dict[int, Any]:
        file.write_text(text.replace("5", "6"))
        sent: list[Order] = pickle.loads(pickle.dumps(orders))
        return {order.number: order.run() for order in sent}

    monkeypatch.setattr(ProcessLauncher, "run", later)
    assert main(["-m", "--config-dir", "own", "experiment=mine", "seed=0,1", "hydra/launcher=joblib", WHERE]) == 0
    sizes = [yaml.safe_load(Path(f"sweep/{job}/config.yaml").read_text())["pipeline"]["base"]["size"] for job in (0, 1)]
    assert sizes == [5, 5]


# ---- before anything trains ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("launcher", "extra"), [("submitit_local", "sweep"), ("submitit_slurm", "sweep"), ("ray", "ray")]
)
def test_a_launcher_without_its_package_says_what_to_install(
    launcher: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    without = ("submitit", "ray")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in without else found(name, *a))
    assert main(["-m", "experiment=fake", "seed=0,1", f"hydra/launcher={launcher}", WHERE]) == 1
    assert f'pip install "alignlab[{extra}]"' in capsys.readouterr().err
    assert not Path("sweep").exists() and not Path(".alignlab").exists()


@pytest.mark.parametrize(
    ("launcher", "argument", "message"),
    [
        ("joblib", "n_jobs=0", "hydra.launcher.n_jobs: must be a whole number other than 0"),
        ("joblib", "gpus=-1", "hydra.launcher.gpus: must be a whole number of at least 0"),
        ("joblib", "cpus=4", "cpus"),
        ("submitit_slurm", "setup=[true]", "hydra.launcher.setup: takes shell commands"),
        (
            "submitit_slurm",
            "qos=x",
            "sbatch and srun cannot be found; start the sweep where",
        ),
        ("joblib", "njobs=2", "hydra/launcher=joblib does not take njobs; it takes n_jobs, gpus; did you mean n_jobs?"),
        ("basic", "n_jobs=2", "the chosen launcher does not take it; it belongs to hydra/launcher=joblib"),
        ("jobib", "n_jobs=2", "hydra/launcher=jobib: no such option; hydra/launcher has "),
        ("", "n_jobs=2", "hydra.launcher.n_jobs=2: the chosen launcher does not take it"),
        ("", "none=2", "hydra.launcher.none"),
        ("", "", "hydra.launcher=null: choose one by hydra/launcher=NAME; there are basic, joblib, "),
    ],
)
def test_a_wrong_argument_of_a_launcher_is_found_before_anything_runs(
    launcher: str, argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sign = "+" if argument.startswith("cpus") else ""
    chosen = [f"hydra/launcher={launcher}"] if launcher else []
    key = f"{sign}hydra.launcher.{argument}" if argument else "hydra.launcher=null"
    assert main(["-m", "experiment=fake", "seed=0,1", *chosen, key, WHERE]) == 1
    assert message in capsys.readouterr().err
    assert not Path("sweep").exists()


def test_each_place_gets_its_own_gpus_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpus", lambda: 8)
    assert machine.part(1, 4, 0, {}) == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    known = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    assert machine.part(1, 2, 2, known) == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert machine.part(1, 2, 1, {**known, "CUDA_VISIBLE_DEVICES": "4,7"}) == {"CUDA_VISIBLE_DEVICES": "7"}
    with pytest.raises(ConfigError, match="each need 3, but CUDA_VISIBLE_DEVICES names 2"):
        machine.part(0, 3, 1, {"CUDA_VISIBLE_DEVICES": "4,7"})


def test_lines_of_a_job_begin_with_its_number() -> None:
    stream = io.StringIO()
    found = Prefixed(stream, "[3] ")
    print("one\ntw", end="", file=found)
    assert stream.getvalue() == "[3] one\n"
    print("o", file=found)
    found.write("end")
    found.flush()
    assert stream.getvalue() == "[3] one\n[3] two\n[3] end\n"


# ---- twenty values ---------------------------------------------------------------------------------------------------
SMALL = (
    "experiment=smoke", "~pipeline.ppo", "~pipeline.reward_model", "~pipeline.report",
    *(f"~pipeline.evaluate_{name}" for name in ("pretrain", "sft", "dpo", "ppo")),
    "pipeline.pretrain.loop.steps=4", "pipeline.sft.loop.steps=4", "pipeline.dpo.loop.steps=2",
    "pipeline.pretrain.loop.validate_every=4", "pipeline.sft.loop.validate_every=4",
    "pipeline.dpo.loop.validate_every=2", "pipeline.label.pairs=16", "pipeline.label.validation_pairs=4",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_twenty_values_of_beta_compute_what_they_share_once(
    launcher: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    if launcher.startswith("submitit"):
        pytest.importorskip("submitit", reason="alignlab[sweep] is not installed")
    values = ",".join(f"{0.05 * i:.2f}" for i in range(1, 21))
    swept = ["-m", *SMALL, f"pipeline.dpo.objective.beta={values}", f"hydra/launcher={launcher}", WHERE]
    process = start(*swept)
    output, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, output
    found = made(Path("sweep"), 20)
    assert found == {"pretrain": 1, "sft": 1, "label": 1, "dpo": 20}
    logs = output + "".join(f.read_text() for f in Path("sweep").glob(".submitit/*_log.out"))
    assert logs.count("reference_logp: found in the store (") == 2 * 19, "one pass for all, of either split"
