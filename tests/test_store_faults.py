"""What a kill or a full disk leaves in the store and in a run's folder, and that the next run removes it."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from alignlab.artifact import fingerprint
from alignlab.errors import StoreError
from alignlab.pipeline import run_folder, store
from alignlab.pipeline.run_folder import RunFolder
from alignlab.pipeline.store import Store
from alignlab.tracking.curves import Curves

KEY = fingerprint("something")


class Kill(BaseException):
    """Stands for a kill; no clean-up follows."""


def build(folder: Path, work: Path) -> dict[str, Any]:
    (folder / "made").write_text("whole")
    (work / "last.ckpt").write_bytes(bytes(1000))
    return {"kind": "other"}


def killed_after_publication(root: Path, monkeypatch: pytest.MonkeyPatch, since: float = 0.0) -> Path:
    """The work folder of a process that died when its artifact had its name."""

    def dies(temporary: Path, file: Path) -> None:
        os.replace(temporary, file)
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", dies)
        patch.setattr(store.shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Kill):
            Store(root).get_or_build(KEY, build, since)
    assert Store(root).has(KEY)
    return root / "work" / KEY[:32]


def test_the_next_run_removes_what_a_published_stage_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = killed_after_publication(tmp_path, monkeypatch)
    begun = tmp_path / "objects" / f".{KEY[:12]}-left"
    begun.mkdir()
    assert Store(tmp_path).get_or_build(KEY, build)[1]
    assert not work.exists() and not begun.exists()


def test_it_is_left_alone_while_another_process_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = killed_after_publication(tmp_path, monkeypatch)
    with FileLock(tmp_path / "locks" / f"{KEY[:32]}.lock"):
        assert Store(tmp_path).get_or_build(KEY, build)[1]
        assert work.exists()


def test_an_interrupted_rerun_keeps_its_work_until_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path, work: Path) -> dict[str, Any]:
        (work / "last.ckpt").write_text("resume here")
        raise RuntimeError("power cut")

    Store(tmp_path).get_or_build(KEY, build)
    with pytest.raises(RuntimeError):
        Store(tmp_path).get_or_build(KEY, fails, since=1e12)
    work = tmp_path / "work" / KEY[:32]
    assert Store(tmp_path).get_or_build(KEY, build)[1] and (work / "last.ckpt").exists()
    killed_after_publication(tmp_path, monkeypatch, since=1e12)
    assert Store(tmp_path).get_or_build(KEY, build)[1] and not work.exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        ValueError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_clear_line(error: Exception, tmp_path: Path) -> None:
    def fails(folder: Path, work: Path) -> dict[str, Any]:
        (work / "last.ckpt").write_text("resume here")
        raise error

    with pytest.raises(StoreError, match=r"the disk is full \(.*make space, and the same command continues") as caught:
        Store(tmp_path).get_or_build(KEY, fails)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "objects").iterdir()) == []
    assert (tmp_path / "work" / KEY[:32] / "last.ckpt").exists()


def test_on_a_full_disk_the_status_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    folder.status("running", stage="dpo")

    def full(path: Path, content: Mapping[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "write_json", full)
    folder.status("failed", error="the disk is full " * 100)
    found = json.loads((tmp_path / "status.json").read_text())
    assert found["status"] == "failed" and found["pid"] == os.getpid() and len(found["error"]) == 300


def test_curves_are_whole_up_to_a_flush_and_are_rewritten_in_one_step(tmp_path: Path) -> None:
    curves = Curves(tmp_path, tmp_path)
    for step in (1, 2):
        curves.log(step, {"loss": float(step)})
    curves.flush()
    assert len((tmp_path / "curves.jsonl").read_text().splitlines()) == 2, "the line of the last step, too"
    curves.log(2, {"more": 1.0})
    curves.log(3, {"loss": 3.0})
    curves.close()
    lines = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0, "more": 1.0}, {"step": 3, "loss": 3.0}]
