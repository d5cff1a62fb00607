"""`alignlab doctor`: each line says what there is, and what to do about it."""

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignlab.cli import checks, store_checks
from alignlab.cli.app import main
from alignlab.cli.finding import Finding
from alignlab.tracking import wandb_mode


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No torch in another process, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checks, "gpu", lambda: Finding("gpu", "ok", "none was asked for"))
    monkeypatch.setattr(wandb_mode, "reachable", lambda: True)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    capsys.readouterr()
    code = main(["doctor", *arguments, "--json"])
    return code, {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_a_good_machine_has_nothing_to_complain_of(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, found = doctor(capsys)
    wanted = {"alignlab", "versions", "open files", "store", "locks", "disk", "inodes", "temporary", "compiler", "gpu"}
    assert code == 0 and wanted | {"wandb"} <= found.keys()
    assert found["locks"]["state"] == "ok" and "exclusive" in found["locks"]["found"]
    assert all(f["advice"] for f in found.values() if f["state"] != "ok"), "who complains says what to do"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_lines_fit_in_eighty_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert max(len(line.rstrip()) for line in lines if "/" not in line) <= 80
    assert lines[-1].endswith(", 0 fail")


def test_locks_that_exclude_nobody_fail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a network file system grants every lock."""
    monkeypatch.setattr(store_checks, "HOLD", "import sys; print('held', flush=True); sys.stdin.readline()")
    monkeypatch.setattr(store_checks, "python", lambda *_, timeout: SimpleNamespace(stdout="held\n"))
    code, found = doctor(capsys)
    assert code == 1 and found["locks"]["state"] == "fail" and "two processes hold one lock" in found["locks"]["found"]
    assert "flock" in found["locks"]["advice"]


def test_a_file_system_without_locks_fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_checks, "HOLD", "raise OSError('No locks available')")
    code, found = doctor(capsys)
    assert code == 1 and "No locks available" in found["locks"]["found"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_to_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    code, found = doctor(capsys)
    tmp_path.chmod(0o700)
    assert code == 1 and found["store"]["state"] == "fail" and "locks" not in found


def test_a_store_where_nothing_can_be_made_fails(capsys: pytest.CaptureFixture[str]) -> None:
    code, found = doctor(capsys, "--store", "/proc/store")
    assert code == 1 and found["store"]["state"] == "fail" and "choose another store_dir" in found["store"]["advice"]


@pytest.mark.parametrize(("free", "state"), [(1e8, "fail"), (5e9, "warn"), (1e12, "ok")])
def test_room_on_the_disk(free: float, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    assert store_checks.disk(tmp_path).state == state


@pytest.mark.parametrize(
    ("files", "free", "state"), [(0, 0, "ok"), (9, 9, "fail"), (9, 9999, "warn"), (9, 10**7, "ok")]
)
def test_inodes(files: int, free: int, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_files=files, f_favail=free))
    assert store_checks.inodes(tmp_path).state == state


def test_few_open_files_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 8192))
    assert (store_checks.open_files().state, store_checks.open_files().advice) == ("warn", "ulimit -n 4096")


def test_no_compiler_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CC", raising=False)
    assert checks.compiler().state == "warn"


@pytest.mark.parametrize(
    ("version", "bounds", "does"),
    [
        ("2.13.0+cpu", ">=2.11,<2.14", True), ("2.14.0", ">=2.11,<2.14", False), ("2.9.1", ">=2.11,<2.14", False),
        ("5", ">=4.4,<6", True), ("6.0.2", ">=6.0.2,<7", True), ("1.4.0rc3", ">=1.3.8,<1.4", False), ("3.1", "", True),
    ],
)  # fmt: skip
def test_versions_within_and_outside_of_their_bounds(version: str, bounds: str, does: bool) -> None:
    assert checks.fits(version, bounds) is does


def test_a_version_outside_of_what_is_tested_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["torch>=2.11,<2.14", "nothing-of-this-name>=1", "peft>=1; extra == 'lora'"]
    versions = {"torch": "3.0.0"}

    def version(name: str) -> str:
        if name not in versions:
            raise checks.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr("importlib.metadata.requires", lambda _: required)
    monkeypatch.setattr("importlib.metadata.version", version)
    found = {f.name: f for f in checks.versions()}
    assert found["torch"].state == "warn" and found["torch"].advice == "pip install 'torch>=2.11,<2.14'"
    assert found["nothing-of-this-name"].state == "fail" and "peft" not in found


@pytest.mark.parametrize(
    ("answers", "key", "state"), [(True, True, "ok"), (True, False, "warn"), (False, True, "warn")]
)
def test_wandb(answers: bool, key: bool, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_mode, "reachable", lambda: answers)
    monkeypatch.setattr(wandb_mode, "has_key", lambda: key)
    assert checks.wandb(offline=False).state == state and checks.wandb(offline=True).state == "ok"


def test_a_network_that_swallows_everything_is_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(wandb_mode, "PATIENCE", 0.2)
    monkeypatch.setattr(wandb_mode, "_ask", lambda *_: time.sleep(30))
    assert checks.wandb(offline=False).state == "warn"


def test_a_check_that_breaks_is_a_finding(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise RuntimeError("the driver")

    monkeypatch.setattr(checks, "gpu", broken)
    code, found = doctor(capsys)
    assert code == 0 and found["gpu"]["state"] == "warn" and "the driver" in found["gpu"]["found"]


def test_the_gpu_is_asked_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def says(text: str, code: int = 0) -> Callable[..., object]:
        return lambda *_, timeout: SimpleNamespace(
            returncode=code, stdout=text, stderr="Traceback\nImportError: libcuda"
        )

    monkeypatch.setattr(checks, "python", says("2.13.0|13.0|H100 (80 GiB)\n"))
    assert "H100 (80 GiB)" in checks.gpu().found
    monkeypatch.setattr(checks, "python", says("", 1))
    assert checks.gpu().state == "fail" and "ImportError: libcuda" in checks.gpu().found
