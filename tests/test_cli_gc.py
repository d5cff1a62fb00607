"""`alignlab gc`: what no run needs goes, whole and at once; nothing else does."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from alignlab.artifact import fingerprint
from alignlab.cli.app import main
from alignlab.pipeline import garbage, registry
from alignlab.pipeline.store import Store

pytestmark = pytest.mark.usefixtures("fakes_here")

STORE = Path(".alignlab")
OLD = 40 * garbage.DAY


def gc(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["gc", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def run(folder: str, *more: str) -> set[str]:
    """Run the pipeline; the names of its artifacts' folders."""
    assert main(["experiment=fake", f"hydra.run.dir={folder}", *more]) == 0
    return artifacts_of(Path(folder))


def artifacts_of(folder: Path) -> set[str]:
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    return {stage["fingerprint"][:32] for stage in stages.values()}


def artifacts() -> set[str]:
    return {f.name for f in (STORE / "objects").iterdir()}


def age(folder: str, seconds: float = OLD) -> None:
    """Let a run be so old."""
    then = time.time() - seconds
    text = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(then))
    file = Path(folder, "status.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "updated": text}))
    for entry in (STORE / "runs").glob("*.json"):
        content = json.loads(entry.read_text())
        if content.get("folder") == str(Path(folder).absolute()):
            entry.write_text(json.dumps({**content, "began": then}))


def going(found: dict[str, Any]) -> set[str]:
    return {Path(entry["path"]).name for entry in found["entries"]}


# ---- what stays ------------------------------------------------------------------------------------------------------
def test_what_a_run_of_the_last_days_names_stays(capsys: pytest.CaptureFixture[str]) -> None:
    run("run")
    found = gc(capsys, "--delete")
    assert found["entries"] == [] and found["artifacts_kept"] == 6 and len(artifacts()) == 6


def test_what_only_an_old_run_names_goes_and_what_it_shares_stays(capsys: pytest.CaptureFixture[str]) -> None:
    old, new = run("old"), run("new", "pipeline.tuned.size=4")
    age("old")
    found = gc(capsys)
    assert going(found) == old - new and len(old - new) == 3 and not found["deleted"]
    assert artifacts() == old | new, "a dry run deletes nothing"
    assert found["bytes"] == sum(entry["bytes"] for entry in found["entries"]) > 0
    assert going(gc(capsys, "--delete")) == old - new and artifacts() == new
    assert gc(capsys)["entries"] == [] and not (STORE / "trash").exists()


def test_ancestors_stay_even_where_no_run_of_the_last_days_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    run("old")
    alone = ["experiment=train", "stage=make", "stage.size=5", "stage.inputs.policy=old/stages/tuned"]
    assert main([*alone, "tracking=off", "hydra.run.dir=new"]) == 0
    age("old")
    gc(capsys, "--delete")
    names = {json.loads((STORE / "objects" / a / "manifest.json").read_text())["name"] for a in artifacts()}
    assert names == {"make", "tuned", "label", "base"}


def test_a_run_that_is_at_work_is_heeded_however_old(capsys: pytest.CaptureFixture[str]) -> None:
    run("run")
    age("run")
    status = json.loads(Path("run/status.json").read_text())
    Path("run/status.json").write_text(json.dumps({**status, "status": "running", "pid": os.getpid()}))
    assert gc(capsys)["entries"] == []
    Path("run/status.json").write_text(json.dumps({**status, "status": "running", "pid": 2**22 + 1}))
    assert len(gc(capsys)["entries"]) == 6, "its process is gone"


def test_a_run_that_was_moved_keeps_what_it_needs_and_one_that_was_removed_can_be_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = run("kept")
    lost = run("lost", "seed=1")
    shutil.move("lost", "archive")
    found = gc(capsys)
    assert found["entries"] == [] and (found["runs_heeded"], found["runs_heeded_without_folder"]) == (2, 1)
    assert main(["gc"]) == 0
    assert "1 of these runs is not where it was, moved or removed, and counts" in capsys.readouterr().out
    assert going(gc(capsys, "--removed")) == lost - kept
    entry = next(f for f in (STORE / "runs").glob("*.json") if json.loads(f.read_text())["folder"].endswith("lost"))
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "host": "elsewhere"}))
    assert gc(capsys, "--removed")["entries"] == [], "the folder may be on another host's own disk"


def test_run_and_store_that_were_moved_together_are_known(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["experiment=fake", "hydra.run.dir=here/run", "store_dir=here/store"]) == 0
    shutil.move(tmp_path / "here", tmp_path / "there")
    found = gc(capsys, "--store", "there/store")
    assert found["entries"] == [] and found["runs_heeded"] == 1


def test_what_is_locked_stays(capsys: pytest.CaptureFixture[str]) -> None:
    old = run("old")
    age("old")
    some = sorted(old)[0]
    with Store(STORE).lock(some):
        assert going(gc(capsys, "--delete")) == old - {some}
    assert artifacts() == {some}


def test_checkpoints_stay_while_they_are_young_or_of_a_run_that_is_heeded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=troubled", "hydra.run.dir=failed", "pipeline.trouble.how=bug"]) == 1
    (work,) = (STORE / "work").iterdir()
    (work / "last.ckpt").write_text("half")
    assert gc(capsys)["entries"] == []
    age("failed")
    assert {entry["kind"] for entry in gc(capsys)["entries"]} == {"artifact"}, "the checkpoint is young"
    for path in (work / "last.ckpt", work):
        os.utime(path, (time.time() - OLD,) * 2)
    with Store(STORE).lock(work.name):
        assert work.name not in going(gc(capsys))
    assert work.name in going(gc(capsys, "--delete")) and not work.exists()


def test_what_a_killed_process_left_half_written_goes_when_it_is_old(capsys: pytest.CaptureFixture[str]) -> None:
    some = sorted(run("run"))[0]
    half = STORE / "objects" / f".{some[:12]}-abcdef"
    half.mkdir()
    assert gc(capsys)["entries"] == []
    os.utime(half, (time.time() - OLD,) * 2)
    with Store(STORE).lock(some):
        assert gc(capsys)["entries"] == [], "its publisher is at work"
    assert going(gc(capsys, "--delete")) == {half.name} and not half.exists()


def test_data_that_was_used_lately_stays(capsys: pytest.CaptureFixture[str]) -> None:
    run("run")
    store = Store(STORE)
    folder = store.keep({"data": 1}, lambda f: None)
    os.utime(folder, (time.time() - OLD,) * 2)
    assert going(gc(capsys)) == {folder.name}
    store.keep({"data": 1}, lambda f: None)
    assert gc(capsys)["entries"] == [], "it was used again"


def test_what_stages_share_stays_with_the_stage_that_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """`StageContext.once` publishes under a key of its own."""
    made = run("run")
    part = fingerprint("a part")
    Store(STORE).get_or_build(part, lambda folder, work: {"kind": "other", "asked_by": "tuned"})
    assert going(gc(capsys)) == {part[:32]}
    file = STORE / "objects" / sorted(made)[0] / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "asked": [part]}))
    assert gc(capsys)["entries"] == []


# ---- what is not known -----------------------------------------------------------------------------------------------
def test_without_a_known_run_nothing_is_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    made = run("elsewhere/run")
    shutil.rmtree(STORE / "runs")  # a store from before the registry
    assert main(["gc", "--days", "0", "--delete"]) == 1
    error = capsys.readouterr().err
    assert "no run is known that used it, so nothing is deleted" in error and len(error.splitlines()) == 1
    assert artifacts() == made
    assert gc(capsys, "elsewhere", "--delete")["entries"] == []
    assert going(gc(capsys, "elsewhere", "--days", "0", "--delete")) == made


def test_artifacts_from_before_the_registry_stay_unless_all_runs_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    old = run("elsewhere/old")
    shutil.rmtree(STORE / "runs")
    time.sleep(0.05)
    new = run("new", "seed=1")
    found = gc(capsys)
    assert found["entries"] == [] and found["artifacts_from_before_the_registry"] == len(old)
    assert main(["gc"]) == 0
    assert "6 artifacts are older than the store's list of runs and stay" in capsys.readouterr().out
    assert going(gc(capsys, "new")) == old - new, "the folders of all runs were named"


def test_runs_below_runs_are_known_without_being_named(capsys: pytest.CaptureFixture[str]) -> None:
    run("runs/x")
    shutil.rmtree(STORE / "runs")
    assert gc(capsys)["runs"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--store", "nowhere"], "--store: there is no store"),
        (["--days", "-1"], "--days -1.0: must be 0 or more"),
        (["--dleete"], "did you mean --delete?"),
        (["nowhere"], "no such folder: nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    STORE.mkdir()
    assert main(["gc", *arguments]) == 1
    assert message in (error := capsys.readouterr().err) and len(error.splitlines()) == 1


def test_a_damaged_entry_of_the_registry_stops_it(capsys: pytest.CaptureFixture[str]) -> None:
    made = run("run")
    (STORE / "runs" / "0.json").write_text("{")
    assert main(["gc", "--days", "0", "--delete"]) == 1
    assert "0.json cannot be read" in capsys.readouterr().err and artifacts() == made


# ---- at the same time ------------------------------------------------------------------------------------------------
USER = """
import sys, time
from pathlib import Path
from alignlab.artifact import Artifact, fingerprint
from alignlab.pipeline.registry import register
from alignlab.pipeline.run_folder import RunFolder
from alignlab.pipeline.store import Store

root, home, key = Path(sys.argv[1]), Path(sys.argv[2]), fingerprint("shared by all")
store, made = Store(root), 0

def build(folder, work):
    (folder / "half").write_text("half")
    time.sleep(0.002)
    (folder / "whole").write_text("whole")
    return {"kind": "other", "name": "shared"}

print("ready", flush=True)
for number in range(30):
    run = RunFolder(home / str(number))
    run.status("running")
    register(root, run.path, [key])
    artifact, cached = store.get_or_build(key, build)
    made += not cached
    for _ in range(3):  # it relies on what it was given for as long as it is at work
        assert (artifact.path / "whole").read_text() == "whole"
        Artifact.open(artifact.path)
        time.sleep(0.001)
    run.status("completed")
print(made)
"""


def test_runs_that_begin_while_it_deletes_see_whole_artifacts_only(tmp_path: Path) -> None:
    """The user is one run after the other; whenever none is at work, everything goes."""
    store = Store(tmp_path / "store")
    command = [sys.executable, "-c", USER, str(store.root), str(tmp_path / "runs")]
    users = [
        subprocess.Popen([*command[:-1], str(tmp_path / f"runs{i}")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         text=True)
        for i in range(2)
    ]  # fmt: skip
    for user in users:
        assert user.stdout is not None and user.stdout.readline() == "ready\n"
    while not registry.known_runs(store.root):
        time.sleep(0.005)
    deleted = 0
    while any(user.poll() is None for user in users):
        deleted += len(garbage.delete(store, 0.0, [])[1])
        time.sleep(0.01)
    told = [user.communicate(timeout=60) for user in users]
    assert [user.returncode for user in users] == [0, 0], told
    made = sum(int(out) for out, _ in told)
    assert deleted >= 2 and made in (deleted, deleted + 1), "each was made again after it went"


def test_a_collection_that_was_killed_is_finished_by_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    run("run")
    (STORE / "trash" / "abc").mkdir(parents=True)
    assert [entry["kind"] for entry in gc(capsys)["entries"]] == ["trash"]
    gc(capsys, "--delete")
    assert not (STORE / "trash").exists()
