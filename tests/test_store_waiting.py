"""Who holds a lock of the store, and what those who wait for it say."""

import multiprocessing
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from alignlab.pipeline import waiting
from alignlab.pipeline.registry import guard, register
from alignlab.pipeline.store import Store
from alignlab.pipeline.waiting import Holder, Wait


def build_slowly(root: Path, started: Any, go_on: Any) -> None:
    """Build an artifact in another process; it ends when it may."""

    def build(folder: Path, work: Path) -> dict[str, Any]:
        started.set()
        go_on.wait(60)
        return {"kind": "other"}

    Store(root).get_or_build("a" * 64, build, wait=Wait("sft"))


def test_a_process_that_waits_says_for_whom_and_at_the_end_for_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "FIRST", 0.2)
    context = multiprocessing.get_context("spawn")
    started, go_on = context.Event(), context.Event()
    other = context.Process(target=build_slowly, args=(tmp_path, started, go_on))
    other.start()
    assert started.wait(60)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            go_on.set()

    artifact, cached = Store(tmp_path).get_or_build("a" * 64, pytest.fail, wait=Wait("sft", say))
    other.join()
    who = f"process {other.pid} on {socket.gethostname()}, which makes sft"
    assert cached and artifact.fingerprint == "a" * 64
    assert [text.rpartition(",")[0] for text in said[:2]] == [f"sft: waits for {who}"] * 2
    assert said[-1].startswith("sft: waited ") and said[-1].endswith(f" s for {who}")
    assert not list((tmp_path / "locks").glob("*.json")), "nobody holds it"


def test_a_lock_that_is_free_is_taken_without_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    with waiting.held(tmp_path / "a.lock", Wait("dpo", said.append)):
        holder = Holder.read(tmp_path / "a.lock")
    assert holder is not None and (holder.pid, holder.what) == (os.getpid(), "dpo") and not said


@pytest.mark.parametrize("content", [None, "", "[]", '{"pid": "x"}', "{"])
def test_a_holder_that_is_not_known_is_another_process(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "FIRST", 0.1)
    said: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with waiting.held(tmp_path / "a.lock", Wait()):
            record = tmp_path / "a.json"
            record.unlink() if content is None else record.write_text(content)
            inside.set()
            go_on.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    inside.wait(60)
    with waiting.held(tmp_path / "a.lock", Wait("dpo", lambda text: (said.append(text), go_on.set())[0])):
        other.join()
    assert said[0].startswith("dpo: waits for another process, since ")


def test_reports_become_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pause is as long as the wait so far, up to five minutes."""
    now, pauses, said = [0.0], list[float](), list[str]()

    def acquire(_: FileLock, timeout: float) -> None:
        now[0] += timeout
        pauses.append(timeout)
        if now[0] < 1000:
            raise Timeout("held")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    waiting._acquire(FileLock(tmp_path / "a.lock"), tmp_path / "a.lock", Wait("dpo", said.append))
    assert pauses == [3, 3, 6, 12, 24, 48, 96, 192, 300, 300, 300][: len(pauses)] and len(said) == len(pauses)


def test_a_run_that_waits_for_a_collection_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST", 0.2)
    said: list[str] = []
    heard = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        heard.set()

    with guard(tmp_path, Wait("the choice of what can be removed")):
        run = threading.Thread(target=register, args=(tmp_path, tmp_path / "run", ["a" * 64], Wait("store", say)))
        run.start()
        assert heard.wait(30)
    run.join()
    who = f"process {os.getpid()} on {socket.gethostname()}, which makes the choice of what can be removed"
    assert said[0].startswith(f"store: waits for {who}, since ")
    assert len(list((tmp_path / "runs").glob("*.json"))) == 1
