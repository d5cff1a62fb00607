"""`alignlab runs`: how runs and sweeps stand; and runs that are moved with their store."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sweep_runs import make

from alignlab.cli.app import main
from alignlab.cli.runs_table import short

pytestmark = pytest.mark.usefixtures("fakes_here")


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["runs", *arguments, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def text(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["runs", *arguments]) == 0
    return capsys.readouterr().out


def status(folder: Path, word: str, started: str, **more: Any) -> None:
    content = {"status": word, "started": started, "updated": started, "pid": os.getpid(), "host": socket.gethostname()}
    (folder / "status.json").write_text(json.dumps({**content, **more}))


def test_runs_stand_in_the_order_in_which_they_began_and_sweeps_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=fake", "hydra.run.dir=runs/z"]) == 0
    time.sleep(1.1)  # times are of whole seconds
    swept = "pipeline.trouble.how=fine,user"
    assert main(["-m", "experiment=troubled", swept, "seed=0,1", "hydra.sweep.dir=runs/a"]) == 1
    single, sweep = listed(capsys)
    assert (single["kind"], single["status"], Path(single["folder"]).name) == ("run", {"completed": 1}, "z")
    assert (sweep["kind"], sweep["status"], Path(sweep["folder"]).name) == ("sweep", {"completed": 2, "failed": 2}, "a")
    assert [run["job"] for run in sweep["runs"]] == [0, 1, 2, 3]
    assert sweep["runs"][2]["error"] == "corpus.jsonl:3: text is missing"
    assert single["runs"][0]["metrics"]["tuned/loss"] == 3.0
    (failed,) = listed(capsys, "--status", "failed")
    assert failed["status"] == sweep["status"] and [run["job"] for run in failed["runs"]] == [2, 3]
    assert "sweep of 4: 2 completed, 2 failed" in (shown := text(capsys, "--status", "failed"))
    assert "job 3: corpus.jsonl:3: text is missing" in shown and "fact_recall" not in shown


def test_controls_of_the_terminal_in_a_run_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    """A run's folder may be somebody else's."""
    for number, status in enumerate(("completed", "completed", "failed\x1b[2J")):
        made = make(Path(f"runs/{number}"), [f"a.b=x\x1b[2J{number}", "c=\x1b[2J"], {"dpo/m\x1b[2J": number}, 0, status)
        found = json.loads((made / "manifest.json").read_text())
        (made / "manifest.json").write_text(json.dumps({**found, "name": "x\x1b[2J"}))
        marks = {"sweep": "a", "job": number, "error": "no\x1b[2J"}
        (made / "status.json").write_text(json.dumps({"status": status, **marks}))
    for arguments in (["runs"], ["compare", "runs/0", "runs/1", "runs/2"]):
        assert main(arguments) == 0
        said = capsys.readouterr()
        assert "\ufffd[2J" in said.out and "\x1b" not in said.out + said.err


def test_the_table_shows_what_differs_in_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    swept = ["pipeline.tuned.objective.beta=0.1,0.2", "seed=0,1", "pipeline.base.size=2"]
    assert main(["-m", "experiment=fake", *swept, "hydra.sweep.dir=runs/sweep"]) == 0
    shown = text(capsys)
    lines = [line.split() for line in shown.splitlines()]
    assert "all: pipeline.base.size=2" in shown and "sweep of 4: 4 completed" in shown
    assert ["job", "status", "took", "beta", "seed", "loss", "fact_recall"] in lines and ["tuned", "tuned"] in lines
    rows = [line for line in lines if line[:1] and line[0].isdigit()]
    assert [(row[0], row[1], *row[-4:-2]) for row in rows] == [
        ("0", "completed", "0.1", "0"), ("1", "completed", "0.1", "1"),
        ("2", "completed", "0.2", "0"), ("3", "completed", "0.2", "1"),
    ]  # fmt: skip
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80


def test_a_run_whose_process_is_gone_is_dead(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for number, (name, pid) in enumerate((("dead", gone.pid), ("running", os.getpid()))):
        make(tmp_path / "runs" / name, ["experiment=made_up"], {})
        status(tmp_path / "runs" / name, "running", f"2026-01-01T00:00:0{number}+00:00", pid=pid)
    assert [list(group["status"]) for group in listed(capsys)] == [["dead"], ["running"]]
    assert [Path(group["folder"]).name for group in listed(capsys, "--status", "dead")] == ["dead"]


def test_damaged_and_empty_folders_are_shown_not_fatal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make(tmp_path / "runs" / "good", ["experiment=made_up", "beta=0.1"], {"dpo/loss": 0.5})
    make(tmp_path / "runs" / "broken", [], {})
    for name in ("status.json", "manifest.json", "metrics.json"):
        (tmp_path / "runs" / "broken" / name).write_text("{")
    assert [next(iter(group["status"])) for group in listed(capsys)] == ["unreadable", "completed"]
    (tmp_path / "nothing").mkdir()
    assert "no runs below nothing" in text(capsys, "nothing")


def test_metrics_can_be_chosen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    metrics = {"dpo/validation_loss": 0.25, "dpo/steps": 9.0, "dpo/recall": 0.5, "sft/loss": 2.0}
    make(tmp_path / "runs" / "x", ["experiment=made_up"], metrics)
    assert "dpo/validation_loss=0.25  dpo/recall=0.5" in text(capsys)
    assert "sft/loss=2" in text(capsys, "--metrics", "sft/loss")
    assert listed(capsys, "--metrics", "sft/loss")[0]["runs"][0]["metrics"] == {"sft/loss": 2.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no such folder: runs, so nothing has run here yet"),
        (["here", "--metrics", "dpo/los"], "no run has it; there are dpo/loss; did you mean dpo/loss?"),
        (["here", "--status", "deda"], "did you mean dead?"),
        (["here", "--jsn"], "did you mean --json?"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    make(tmp_path / "here" / "x", [], {"dpo/loss": 1.0})
    assert main(["runs", *arguments]) == 1
    assert message in (error := capsys.readouterr().err) and len(error.splitlines()) == 1


def test_keys_are_as_short_as_they_can_be() -> None:
    keys = ["pipeline.dpo.objective.beta", "pipeline.ppo.objective.beta", "seed", "pipeline.dpo.loop.steps"]
    assert list(short(keys).values()) == ["dpo.objective.beta", "ppo.objective.beta", "seed", "steps"]


def test_a_sweep_shows_the_model_that_it_varies(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for job, beta in enumerate(("0.1", "0.20123456789", "0.3")):
        folder = make(tmp_path / "runs" / str(job), [f"dpo.beta={beta}", f"seed={job}"], {"dpo/loss": 1, "ppo/loss": 2})
        status(folder, "completed", "2026-01-01T00:00:00+00:00", sweep="s", job=job)
        made = {"dpo": beta, "ppo": str(job % 2)}
        stages = {name: {"order": i, "kind": "policy", "fingerprint": made[name]} for i, name in enumerate(made)}
        (folder / "manifest.json").write_text(json.dumps({"stages": stages, "overrides": [f"dpo.beta={beta}"]}))
    shown = text(capsys)
    assert "dpo" in shown.split() and "ppo" not in shown.split() and "0.2012 " in shown


def test_torch_is_not_imported_for_it(installed: Path) -> None:
    code = "import sys\nfrom alignlab.cli import main\nmain(['runs', '.'])\nmain(['compare', '.'])\nmain(['gc'])\n"
    program = f"{code}print({{'torch', 'transformers', 'numpy', 'wandb'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


# ---- moving ----------------------------------------------------------------------------------------------------------
def test_a_run_and_its_store_are_moved_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["experiment=fake", "hydra.run.dir=old/runs/x", "store_dir=old/store"]) == 0
    links = list((tmp_path / "old/runs/x/stages").iterdir())
    assert len(links) == 6 and not any(os.path.isabs(os.readlink(link)) for link in links)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "old", tmp_path / "elsewhere" / "new")
    moved = "elsewhere/new/runs/x"
    assert all((link / "manifest.json").is_file() for link in Path(moved, "stages").iterdir())
    assert main(["export", moved, "tuned", "out"]) == 0 and Path("out/model.json").is_file()
    shutil.rmtree(Path(moved, "stages"))  # copied without its links
    assert main(["export", moved, "tuned", "again"]) == 0


def test_an_input_may_be_a_stage_of_a_run_that_was_moved(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["experiment=fake", "hydra.run.dir=old/runs/x", "store_dir=old/store"]) == 0
    shutil.move(tmp_path / "old", tmp_path / "new")
    alone = ["experiment=train", "stage=make", "stage.size=5", "stage.inputs.policy=new/runs/x/stages/base"]
    assert main([*alone, "tracking=off", "hydra.run.dir=alone", "store_dir=new/store"]) == 0
    assert json.loads(Path("alone/stages/make/model.json").read_text()) == 7


def test_where_only_one_was_moved_the_message_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["experiment=fake", "hydra.run.dir=runs/x", "store_dir=store"]) == 0
    shutil.move(tmp_path / "store", tmp_path / "other")
    capsys.readouterr()
    message = f"it is a link to {tmp_path / 'store' / 'objects'}"
    taken = ["experiment=train", "stage=make", "stage.size=5", "stage.inputs.policy=runs/x/stages/base"]
    for arguments in (["export", "runs/x", "tuned", "out"], taken):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error and "moved together" in error and len(error.splitlines()) == 1
