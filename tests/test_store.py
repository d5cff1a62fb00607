"""The store: each artifact made once, by one of all who ask for it, and published whole or not at all."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignlab.artifact import fingerprint, write_json
from alignlab.errors import PipelineError, StoreError
from alignlab.pipeline import run_folder
from alignlab.pipeline.reserve import reserve
from alignlab.pipeline.run_folder import RunFolder, read_status
from alignlab.pipeline.store import Store

KEY = fingerprint("something")
BUILD = """
import os, sys, time
from pathlib import Path
from alignlab.pipeline.store import Store

def build(folder, work):
    with open(sys.argv[3], "a") as log:
        log.write(f"{os.getpid()}\\n")
    (folder / "made").write_text("whole")
    time.sleep(float(sys.argv[4]))
    return {"kind": "other"}

artifact, cached = Store(Path(sys.argv[1])).get_or_build(sys.argv[2], build)
print((artifact.path / "made").read_text(), cached)
"""


def asker(root: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that asks for `KEY`, and takes so long to make it."""
    script = [sys.executable, "-c", BUILD, str(root / "store"), KEY, str(root / "log"), str(seconds)]
    return subprocess.Popen(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def builders(root: Path) -> list[str]:
    return (root / "log").read_text().split() if (root / "log").exists() else []


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_of_all_who_ask_at_once_one_builds_and_the_others_wait(tmp_path: Path) -> None:
    asking = [asker(tmp_path, 1.0) for _ in range(4)]
    said = [process.communicate(timeout=120) for process in asking]
    assert sorted(out.strip() for out, _ in said) == ["whole False", *["whole True"] * 3], said
    assert len(builders(tmp_path)) == 1


def test_when_the_builder_is_killed_another_one_takes_over(tmp_path: Path) -> None:
    first = asker(tmp_path, 600)
    wait_for(lambda: builders(tmp_path))
    second = asker(tmp_path, 0)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=120)
    assert out.strip() == "whole False", err
    assert len(builders(tmp_path)) == 2
    published = [f.name for f in (tmp_path / "store" / "objects").iterdir()]
    assert published == [KEY[:32]], "what the dead builder had begun must be gone"


def test_what_fails_publishes_nothing_and_keeps_its_work(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fails(folder: Path, work: Path) -> dict[str, Any]:
        (folder / "half").write_text("half")
        (work / "last.ckpt").write_text("resume here")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        store.get_or_build(KEY, fails)
    assert not store.has(KEY) and list((tmp_path / "objects").iterdir()) == []
    assert (tmp_path / "work" / KEY[:32] / "last.ckpt").read_text() == "resume here"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: (f / "sub" / "made").write_bytes(b"wholf"), "has changed"),
        (lambda f: (f / "sub" / "made").unlink(), "is missing"),
        (lambda f: (f / "manifest.json").write_text("{"), "cannot be read"),
    ],
)
def test_an_artifact_that_was_harmed_is_not_handed_out(
    harm: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    def build(folder: Path, _: Path) -> dict[str, Any]:
        (folder / "sub").mkdir()
        (folder / "sub" / "made").write_text("whole")
        return {"kind": "other"}

    store = Store(tmp_path)
    artifact, cached = store.get_or_build(KEY, build)
    assert not cached and artifact.path.stat().st_mode & 0o777 == 0o755
    harm(artifact.path)
    with pytest.raises(StoreError, match=message):
        store.get_or_build(KEY, build)


def test_a_fingerprint_is_of_content_not_of_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 1.5})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


# ---- running again ---------------------------------------------------------------------------------------------------
def counting(made: list[int], fails: bool = False) -> Callable[[Path, Path], dict[str, Any]]:
    """Builds something else each time; leaves a checkpoint behind when it fails."""

    def build(folder: Path, work: Path) -> dict[str, Any]:
        made.append(len(list(work.glob("*.ckpt"))))
        (folder / "made").write_text(str(len(made)))
        if fails:
            (work / "last.ckpt").write_text("resume here")
            raise RuntimeError("power cut")
        return {"kind": "other"}

    return build


def test_an_older_artifact_is_replaced_once_the_new_one_is_whole(tmp_path: Path) -> None:
    store, made = Store(tmp_path), list[int]()
    store.get_or_build(KEY, counting(made))
    began = time.time()
    artifact, cached = store.get_or_build(KEY, counting(made), since=began)
    assert not cached and (artifact.path / "made").read_text() == "2"
    assert store.get_or_build(KEY, counting(made), since=began)[1], "made since then, so it is not made twice"
    assert [f.name for f in (tmp_path / "objects").iterdir()] == [KEY[:32]]


def test_a_rerun_that_fails_leaves_the_old_artifact_and_continues_from_its_own_checkpoint(tmp_path: Path) -> None:
    store, made = Store(tmp_path), list[int]()
    store.get_or_build(KEY, counting(made))
    (tmp_path / "work" / KEY[:32]).mkdir(parents=True)
    (tmp_path / "work" / KEY[:32] / "last.ckpt").write_text("of an earlier attempt")
    for checkpoints in (0, 1):
        with pytest.raises(RuntimeError):
            store.get_or_build(KEY, counting(made, fails=True), since=time.time() + 5)
        assert made[-1] == checkpoints
        assert store.has(KEY) and (store.path(KEY) / "made").read_text() == "1"


def test_the_code_of_a_recipe_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.code_of(KEY) == {}
    store.note_code(KEY, {"a.B": "1"})
    assert Store(tmp_path).code_of(KEY) == {"a.B": "1"}


# ---- the folder of a run ---------------------------------------------------------------------------------------------
def test_a_folder_in_use_is_refused_and_a_free_one_is_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with reserve(folder):
        RunFolder(folder).status("running")
        message = rf"run is in use by another run .*pid {os.getpid()}.*hydra\.run\.dir"
        with pytest.raises(PipelineError, match=message), reserve(folder):
            pass
    with reserve(folder) as again:
        assert again == folder


def test_a_folder_named_after_the_time_is_never_shared(tmp_path: Path) -> None:
    with reserve(tmp_path / "12-00-00", is_fixed=False) as first, reserve(tmp_path / "12-00-00", False) as second:
        assert [first.name, second.name] == ["12-00-00", "12-00-00-2"]
    with reserve(tmp_path / "12-00-00", is_fixed=False) as third:
        assert third.name == "12-00-00-3", "nor is that of a run that has ended"


def test_without_locks_the_status_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr("fcntl.flock", no_locks)
    status = {"status": "running", "pid": os.getpid(), "host": socket.gethostname()}
    write_json(tmp_path / "status.json", status)
    with pytest.raises(PipelineError, match="in use"), reserve(tmp_path):
        pass
    write_json(tmp_path / "status.json", {**status, "pid": dead_process()})
    with reserve(tmp_path):
        pass


def test_a_run_whose_process_is_gone_is_dead(tmp_path: Path) -> None:
    RunFolder(tmp_path).status("running")
    assert read_status(tmp_path) == "running"
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["pid"] == os.getpid() and status["host"] == socket.gethostname()
    write_json(tmp_path / "status.json", {**status, "pid": dead_process()})
    assert read_status(tmp_path) == "dead"
    write_json(tmp_path / "status.json", {**status, "pid": dead_process(), "host": "elsewhere"})
    assert read_status(tmp_path) == "running", "nobody here can tell"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the time at which a process began is read from /proc")
def test_a_process_that_has_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path: Path) -> None:
    RunFolder(tmp_path).status("running")
    status = json.loads((tmp_path / "status.json").read_text())
    write_json(tmp_path / "status.json", {**status, "began": status["began"] - 1})
    assert read_status(tmp_path) == "dead"
    write_json(tmp_path / "status.json", {k: v for k, v in status.items() if k != "began"})
    assert read_status(tmp_path) == "running", "an older record does not say when"
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        while run_folder.began(process.pid) != run_folder.ENDED:
            time.sleep(0.01)
        write_json(tmp_path / "status.json", {**status, "pid": process.pid, "began": None})
        assert read_status(tmp_path) == "dead", "it has ended, though nobody has collected it"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"status": "running"}', '{"status": "running", "pid": {}}']
)
def test_a_record_that_cannot_be_read_is_of_no_living_run(content: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(content)
    assert read_status(tmp_path) in ("unreadable", "dead")


def dead_process() -> int:
    """Id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("content", ["", "{", "5", '["x", []]'])
def test_a_damaged_note_of_what_was_shared_is_no_note(content: str, tmp_path: Path) -> None:
    """A machine without power may leave it empty; a plan reads it."""
    store = Store(tmp_path)
    store.note_shared(KEY, [])
    assert store.has_shared(KEY)
    (tmp_path / "shared" / f"{KEY[:32]}.json").write_text(content)
    assert not store.has_shared(KEY)
