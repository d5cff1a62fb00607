"""Runs of several processes: started by alignlab, by torchrun as two machines, by SLURM; one is missing, one dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from together import _free_port

from alignlab.errors import ConfigError
from alignlab.launched import Place, first_host, place
from alignlab.pipeline.follower import typed_timeout
from alignlab.runtime import Runtime

COMMAND = [sys.executable, "-m", "alignlab", "experiment=smoke", "tracking=off", "runtime.accelerator=cpu"]
FURTHER = ["sft", "label", "reward_model", "dpo", "ppo", "report"]
FURTHER += [f"evaluate_{name}" for name in ("pretrain", "sft", "dpo", "ppo")]
SHORT = [f"~pipeline.{name}" for name in FURTHER]
"""Leaves one stage: `pretrain`."""


def environment(**more: str) -> dict[str, str]:
    """As a shell has it, without what a launcher may have set."""
    path = os.pathsep.join(p for p in sys.path if p)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **more}


def begin(folder: Path, *overrides: str, **variables: str) -> "subprocess.Popen[str]":
    command = [*COMMAND, f"hydra.run.dir={folder}/run", f"store_dir={folder}/store", *overrides]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(**variables), cwd=folder, **pipes)


def variables(launcher: str, rank: int, port: int) -> dict[str, str]:
    """What a launcher of two machines sets for one of its two processes."""
    if launcher == "torchrun":
        return Place(rank, 2, 0, 1, "localhost", port).variables()
    own = {
        "SLURM_PROCID": rank,
        "SLURM_NTASKS": 2,
        "SLURM_LOCALID": 0,
        "SLURM_NNODES": 2,
        "SLURM_JOB_ID": port - 20_000,
    }
    return {**{k: str(v) for k, v in own.items()}, "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_NAME": "alignlab"}


def status(folder: Path) -> Mapping[str, Any]:
    file = folder / "run" / "status.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def wait_for(stage: str, folder: Path, seconds: float = 120) -> None:
    """Wait until a stage has made its first checkpoint."""
    end = time.monotonic() + seconds
    while not (status(folder).get("stage") == stage and list(folder.glob("store/work/*/last.ckpt"))):
        assert time.monotonic() < end, status(folder)
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


LONG = [*SHORT, "pipeline.pretrain.loop.steps=2000", "pipeline.pretrain.loop.save_every=5"]


# ---- places ----------------------------------------------------------------------------------------------------------
def test_a_process_that_was_started_alone_has_no_place() -> None:
    assert place({}) is None and place({"WORLD_SIZE": "1"}) is None
    assert place({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash"}) is None


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_launchers_number_their_processes(launcher: str) -> None:
    found = place(variables(launcher, 1, 29_000))
    assert found == Place(1, 2, 0, 1, "localhost", 29_000) and found.nodes == 2


def test_each_process_of_a_machine_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM counts by names of its own: all four would take the first GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Runtime(accelerator="gpu").device.index == 0
    given = {"PROCID": "6", "NTASKS": "8", "LOCALID": "2", "NNODES": "2", "JOB_NODELIST": "gpu[1-2]", "JOB_NAME": "a"}
    for name, value in given.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert Runtime(accelerator="gpu", devices=4, num_nodes=2, strategy="ddp").device.index == 2


def test_submitits_local_executor_numbers_its_tasks() -> None:
    given = {"NTASKS": "2", "GLOBALID": "1", "LOCALID": "1", "JOB_ID": "12345"}
    assert place({f"SUBMITIT_LOCAL_{k}": v for k, v in given.items()}) == Place(1, 2, 1, 2, "127.0.0.1", 22_345)


@pytest.mark.parametrize(
    ("listed", "first"), [("a", "a"), ("a,b", "a"), ("gpu[03-05,9],cpu1", "gpu03"), ("n[1,2]-x", "n1-x")]
)
def test_the_first_host_of_slurms_list(listed: str, first: str) -> None:
    assert first_host(listed) == first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "this is process 2 of 2"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE must be a whole number, got 'two'"),
    ],
)
def test_variables_that_contradict_each_other_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        place(given)


# ---- runs ------------------------------------------------------------------------------------------------------------
def finished(processes: Sequence["subprocess.Popen[str]"], seconds: float = 240) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each."""
    try:
        said = [p.communicate(timeout=seconds) for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(p.returncode, out, error) for p, (out, error) in zip(processes, said, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
def test_one_command_starts_its_processes_and_makes_the_same_models(mode: str, tmp_path: Path) -> None:
    alone, together, again = (tmp_path / name for name in ("alone", "together", "again"))
    learnt = made(alone, "runtime=cpu")
    # From the beginning: once labels are drawn, a difference in the last bits of the policy may draw another word.
    found = made(together, f"runtime={mode}")
    assert found.keys() == learnt.keys()
    for name in ("pretrain/validation_loss", "pretrain/train_loss", "sft/validation_loss", "sft/train_loss"):
        assert found[name] == pytest.approx(learnt[name], abs=1e-4)
    # From the same fine-tuned policy: the same labels to the bit, and all that follows from them.
    shutil.copytree(alone / "store", again / "store", symlinks=True)
    found = made(again, f"runtime={mode}", "rerun=label")
    labels = [folder / "run/stages/label/preferences.jsonl" for folder in (alone, again)]
    assert labels[0].read_bytes() == labels[1].read_bytes()
    assert found == pytest.approx(learnt, rel=1e-3, abs=1e-4)


def made(folder: Path, *overrides: str) -> dict[str, float]:
    """The metrics of a run that completed, but for the length of its page, which shows what took how long."""
    folder.mkdir(exist_ok=True)
    ((code, _, error),) = finished([begin(folder, *overrides)])
    assert code == 0, error
    found: dict[str, float] = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    return {name: value for name, value in found.items() if name != "report/bytes"}


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "mode"), [("torchrun", "ddp"), ("slurm", "fsdp2")])
def test_two_machines_make_one_run(launcher: str, mode: str, tmp_path: Path) -> None:
    port = _free_port()
    first, other = finished(
        [begin(tmp_path, f"runtime={mode}", **variables(launcher, rank, port)) for rank in range(2)]
    )
    assert first[0] == other[0] == 0, first[2] + other[2]
    assert "run folder" in first[1] and other[1] == other[2] == ""
    assert status(tmp_path)["status"] == "completed"


def test_a_process_that_does_not_join_is_named(tmp_path: Path) -> None:
    given = variables("torchrun", 0, _free_port())
    ((code, _, error),) = finished([begin(tmp_path, "runtime=ddp", "runtime.timeout=1", **given)])
    assert code == 1 and "rank 1 of 2 did not join within 1 s" in error
    assert status(tmp_path)["status"] == "failed"


def test_a_process_whose_first_one_is_missing_says_so(tmp_path: Path) -> None:
    given = variables("torchrun", 1, _free_port())
    ((code, _, error),) = finished([begin(tmp_path, "runtime=ddp", "runtime.timeout=1", **given)])
    assert code == 1 and "rank 1 of 2 waited 1 s for rank 0 at localhost" in error and not status(tmp_path)
    assert len(error.splitlines()) == 1, error


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("", 120), ("runtime.timeout=7", 7), ("++runtime.timeout=7 runtime.timeout=9", 9), ("runtime.timeout=abc", 120),
     ("runtime.timeout=-1", 120), ("runtime.timeout=inf", 120), ("data.timeout=3", 120)],
)  # fmt: skip
def test_further_processes_wait_as_long_as_was_typed(words: str, seconds: float) -> None:
    assert typed_timeout(words.split()) == seconds


def test_several_processes_need_a_runtime_of_several(tmp_path: Path) -> None:
    port = _free_port()
    first, other = finished([begin(tmp_path, "runtime=cpu", **variables("torchrun", r, port)) for r in range(2)])
    assert first[0] == other[0] == 1 and other[2] == ""
    assert "the command was started as 2 processes, and runtime.strategy=auto computes with one" in first[2]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
def test_a_process_that_is_killed_ends_the_run_which_names_it(mode: str, tmp_path: Path) -> None:
    run = begin(tmp_path, f"runtime={mode}", *LONG)
    wait_for("pretrain", tmp_path)
    (other,) = children(run.pid)
    os.kill(other, signal.SIGKILL)
    ((code, _, error),) = finished([run], 60)
    assert code == 1 and f"rank 1 of 2 (pid {other} on " in error and "was killed by SIGKILL" in error
    assert status(tmp_path)["status"] == "failed" and "rank 1 of 2" in status(tmp_path)["error"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_machine_that_is_lost_ends_the_other(rank: int, tmp_path: Path) -> None:
    port = _free_port()
    runs = [begin(tmp_path, "runtime=ddp", *LONG, **variables("torchrun", r, port)) for r in range(2)]
    wait_for("pretrain", tmp_path)
    runs[rank].kill()
    found = finished(runs, 60)[1 - rank]
    assert found[0] == 1
    assert ("rank 1 of 2" in found[2] and "was lost" in found[2]) if rank else "has lost rank 0, and ends" in found[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "number"), [("ddp", signal.SIGTERM), ("ddp", signal.SIGHUP), ("fsdp2", signal.SIGTERM)]
)
def test_a_request_to_stop_saves_and_ends_all(mode: str, number: signal.Signals, tmp_path: Path) -> None:
    run = begin(tmp_path, f"runtime={mode}", *LONG)
    wait_for("pretrain", tmp_path)
    other = children(run.pid)
    run.send_signal(number)
    ((code, _, _),) = finished([run], 60)
    assert code == 128 + number and status(tmp_path)["status"] == "preempted"
    assert not any(Path(f"/proc/{pid}").exists() for pid in other)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
def test_a_run_that_is_killed_leaves_nobody_behind_and_goes_on_alone(mode: str, tmp_path: Path) -> None:
    short = [*SHORT, "pipeline.pretrain.loop.steps=60", "pipeline.pretrain.loop.save_every=5"]
    run = begin(tmp_path, f"runtime={mode}", *short)
    wait_for("pretrain", tmp_path)
    (other,) = children(run.pid)
    run.kill()
    end = time.monotonic() + 20
    while Path(f"/proc/{other}").exists():
        assert time.monotonic() < end, "it trains on although nobody is there to keep what it learns"
        time.sleep(0.1)
    assert "rank 1 of 2 has lost rank 0, and ends" in finished([run])[0][2]
    ((code, output, error),) = finished([begin(tmp_path, "runtime=cpu", *short)])
    assert code == 0 and "continues from" in output, output + error
    assert len(list(tmp_path.glob("store/runs/*.json"))) == 1, "one process registers the run"
    (curves,) = tmp_path.glob("store/objects/*/curves.jsonl")
    steps = [json.loads(line)["step"] for line in curves.read_text(encoding="utf-8").splitlines()]
    assert steps == sorted(steps) and set(range(10, 61, 10)) <= set(steps)


@pytest.mark.slow
def test_a_process_that_stands_still_is_named(tmp_path: Path) -> None:
    run = begin(tmp_path, "runtime=ddp", *LONG)
    wait_for("pretrain", tmp_path)
    (other,) = children(run.pid)
    os.kill(other, signal.SIGSTOP)
    ((code, _, error),) = finished([run], 200)
    assert code == 1 and f"rank 1 of 2 (pid {other} on " in error and "no sign of life for 60 s" in error
    assert status(tmp_path)["status"] == "failed" and not Path(f"/proc/{other}").exists()


@pytest.mark.slow
def test_a_sweep_of_torchrun_ends_with_the_job_that_fails(tmp_path: Path) -> None:
    """The others' part of its work may have failed elsewhere, so that they cannot go on together."""
    port, lr = _free_port(), "pipeline.pretrain.optimizer.lr=1e30,1e-3"
    swept = ["-m", "runtime=ddp", *SHORT, lr, f"hydra.sweep.dir={tmp_path}/sweep", "pipeline.pretrain.loop.steps=10"]
    first, other = finished([begin(tmp_path, *swept, **variables("torchrun", r, port)) for r in range(2)])
    assert first[0] == other[0] == 1, first[2] + other[2]
    said = first[1] + first[2]
    assert "cannot continue after a job that failed" in said and "sweep.resume=true" in said and "Traceback" not in said
