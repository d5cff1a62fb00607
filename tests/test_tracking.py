"""What a stage reports arrives in curves.jsonl and at W&B, without secrets, and never stops training."""

import io
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alignlab.cli.job import Job
from alignlab.cli.sweep import Sweep
from alignlab.errors import ConfigError, Preempted
from alignlab.sanitize import REDACTED, redact, redact_override
from alignlab.tracking import Origin, Tracking, terminal, wandb_mode
from alignlab.tracking.curves import Curves
from alignlab.tracking.terminal import Bar, PlainLines, clock, facts, short

LIFECYCLE = {
    "origin": Origin(
        "lifecycle", "lifecycle/2026-01-01-12-00", job=3,
        config={"pipeline": {"dpo": {"objective": {"beta": 0.3}}}, "seed": 7, "hub": {"token": "very-secret"}},
        overrides=["experiment=lifecycle", "pipeline.dpo.objective.beta=0.3", "hub.token=very-secret", "x=" + "y" * 63,
                   "hydra.sweep.dir=out", "+hydra/launcher=basic", "store_dir=s", "seed=7", "seed=7"],
    ),
    "fingerprint": "0123456789abcdef" * 4,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield


def offline_records(folder: Path) -> list[list[dict[str, Any]]]:
    """The records of every offline run below a W&B folder, in the order of the runs."""
    runs = sorted((folder / "wandb").glob("offline-run-*"), key=lambda run: run.stat().st_mtime_ns)
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
    outputs = [subprocess.run([*command, str(run)], capture_output=True, text=True, check=True).stdout for run in runs]
    return [[json.loads(line) for line in output.splitlines()] for output in outputs]


def of_type(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


def summary_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    return {k: v for record in of_type(records, "summary") for k, v in record["update"].items()}


# ---- curves ---------------------------------------------------------------------------------------------------------
def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_one_line_a_step_and_a_gap_where_no_number_is(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    curves.log(5, {"train/loss": 1.5, "train/kl": float("nan")})
    curves.log(5, {"validation/loss": 2.0})
    curves.log(10, {"train/loss": 1.0})
    curves.close()
    assert lines_of(tmp_path / "curves.jsonl") == [
        {"step": 5, "train/loss": 1.5, "train/kl": None, "validation/loss": 2.0},
        {"step": 10, "train/loss": 1.0},
    ]


def test_a_resumed_stage_continues_its_curve(tmp_path: Path) -> None:
    work, artifact = tmp_path / "work", tmp_path / "artifact"
    for folder in (work, artifact):
        folder.mkdir()
    killed = [json.dumps({"step": step, "loss": float(step)}) + "\n" for step in (1, 2, 3, 4)]
    (work / "curves.jsonl").write_text("".join(killed)[:-8])  # a crash has cut the last line short
    resumed = Curves(artifact, work)
    resumed.log(3, {"loss": 30.0})
    resumed.close()
    assert lines_of(artifact / "curves.jsonl") == [{"step": s, "loss": v} for s, v in ((1, 1.0), (2, 2.0), (3, 30.0))]


def test_a_stage_resumed_at_a_step_that_was_logged_adds_to_its_line(tmp_path: Path) -> None:
    """A buffer of rollouts is logged at the step that it is made before, which may be that of the checkpoint."""
    work, artifact = tmp_path / "work", tmp_path / "artifact"
    for folder in (work, artifact):
        folder.mkdir()
    before = [{"step": 2, "train/loss": 2.0}, {"step": 4, "train/loss": 4.0}, {"step": 6, "train/loss": 6.0}]
    (work / "curves.jsonl").write_text("".join(json.dumps(line) + "\n" for line in before))
    resumed = Curves(artifact, work)
    resumed.log(4, {"train/reward": 1.0})
    resumed.log(6, {"train/loss": 6.5})
    resumed.close()
    assert lines_of(artifact / "curves.jsonl") == [
        {"step": 2, "train/loss": 2.0},
        {"step": 4, "train/loss": 4.0, "train/reward": 1.0},
        {"step": 6, "train/loss": 6.5},
    ]


# ---- the terminal ---------------------------------------------------------------------------------------------------
def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, legacy_windows=False)


def written(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


def test_facts_say_step_loss_speed_and_time_left() -> None:
    numbers = {"loss": 0.41234, "tokens_per_second": 12_345.0}
    assert facts(120, 250, numbers, "0:09 left") == "120/250  loss 0.412  12.3k tok/s  0:09 left"
    assert [short(v) for v in (0.0, 3.0, 123.4, 0.00012)] == ["0", "3", "123", "1.2e-04"]
    assert [clock(s) for s in (7.2, 67.0, 3727.0)] == ["0:07", "1:07", "1:02:07"]


def test_a_bar_leaves_one_line_with_its_last_numbers() -> None:
    to = console(terminal=True)
    bar = Bar("sft", to)
    bar.progress(10, 10, {"loss": 0.5})
    bar.close(None)
    last = next(line for line in reversed(written(to).splitlines()) if "sft" in line)
    assert "✓" in last and "10/10  loss 0.500  done in 0:00" in last


def test_plain_lines_are_few_and_carry_no_escapes() -> None:
    to = console(terminal=False)
    line = PlainLines("dpo", to)
    for step in range(1, 101):
        line.progress(step, 100, {"loss": 1.0})
    line.say("taken: prompt/chosen/rejected\x1b[2J")
    line.close(ValueError())
    assert written(to).splitlines() == [
        "dpo: taken: prompt/chosen/rejected�[2J",
        "dpo: 100/100  loss 1  stopped after 0:00",
    ]


def test_the_time_left_is_that_of_the_work_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that tokenises for a minute before its first step is not a slow one."""
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    line = PlainLines("sft", console(terminal=False))
    now[0] = 60.0
    assert line._left(30, 60) == "1:00 left"
    assert line._left(5, 100) == "…"
    now[0] = 70.0
    assert line._left(15, 100) == "1:25 left"


def test_a_line_outside_of_any_stage_ends_with_how_it_went(capsys: pytest.CaptureFixture[str]) -> None:
    tracking = Tracking(mode="off")
    with tracking.line("data") as line:
        line.progress(3, 3, {"megabytes_per_second": 12.0})
    with pytest.raises(ValueError), tracking.line("data") as line:
        raise ValueError
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "data: 3/3  12 MB/s  done in 0:00" and said[1].startswith("data: stopped after")
    with Tracking(mode="off", progress=False).line("data") as line:
        line.progress(1, 2, {})
    assert capsys.readouterr().out == ""


def test_progress_off_leaves_only_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Tracking(mode="off", progress=False).stage(name="sft", folder=tmp_path, **LIFECYCLE) as tracker:
        tracker.progress(1, 1, {"loss": 1.0})
        tracker.say("3 records skipped")
    assert capsys.readouterr().out.split() == ["3", "records", "skipped"]


# ---- where W&B runs go ----------------------------------------------------------------------------------------------
def never(*_: object) -> bool:
    raise AssertionError("the network was asked")


@pytest.mark.parametrize(
    ("mode", "key", "network", "expected"),
    [("auto", False, None, "offline"), ("auto", True, False, "offline"), ("auto", True, True, "online"),
     ("online", True, False, "offline"), ("offline", True, None, "offline"), ("off", True, None, "off")],
)  # fmt: skip
def test_mode(
    mode: Any, key: bool, network: bool | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_mode, "has_key", lambda: key)
    monkeypatch.setattr(wandb_mode, "reachable", never if network is None else lambda: network)
    decided, reason = wandb_mode.decide(mode, tmp_path)
    assert decided == expected
    assert (f"wandb sync {tmp_path / 'wandb'}" in reason) == (expected == "offline")


def test_online_without_a_key_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wandb login"):
        Tracking(mode="online", folder=tmp_path).prepare()


def test_environment_decides_for_auto_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode.decide("auto", tmp_path)[0] == "off"
    assert wandb_mode.decide("offline", tmp_path)[0] == "offline"


def test_key_is_found_in_netrc_for_this_server_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wandb_mode.has_key()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password 0123\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode.has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not wandb_mode.has_key()


def test_a_server_that_is_not_there_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_mode, "PATIENCE", 0.2)
    assert not wandb_mode.reachable()


def test_unknown_mode_is_refused() -> None:
    tracking = Tracking()
    tracking.mode = "on"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="Tracking: mode must be one of auto, online, offline, off, got 'on'"):
        tracking.__post_init__()


# ---- secrets --------------------------------------------------------------------------------------------------------
def test_secrets_are_redacted_and_nothing_else_is() -> None:
    config = {
        "api_key": "abc", "hf_token": "abc", "nested": [{"clientSecret": "abc", "db_password": "abc"}],
        "tokenizer": {"size": 512}, "max_new_tokens": 32, "keep": "best", "monkey": "abc", "keys": 3, "token": None,
        "url": "https://user:abc@example.org/x", "note": "use hf_" + "a" * 30,
    }  # fmt: skip
    assert redact(config) == {
        "api_key": REDACTED, "hf_token": REDACTED,
        "nested": [{"clientSecret": REDACTED, "db_password": REDACTED}],
        "tokenizer": {"size": 512}, "max_new_tokens": 32, "keep": "best", "monkey": "abc", "keys": 3, "token": None,
        "url": f"https://{REDACTED}@example.org/x", "note": f"use {REDACTED}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("pipeline.label.reward.api_key=hunter2", f"pipeline.label.reward.api_key={REDACTED}"),
        ("++hub.token=x=y", f"++hub.token={REDACTED}"),
        ("pipeline.dpo.objective.beta=0.05", "pipeline.dpo.objective.beta=0.05"),
        ("+hub={token:x,name: me}", f"+hub={{token:{REDACTED},name: me}}"),
        ("hub={'api_key': 'x y', size: 3}", f"hub={{'api_key': {REDACTED}, size: 3}}"),
        ("tokenizer=bpe", "tokenizer=bpe"),
        ("~pipeline.ppo", "~pipeline.ppo"),
    ],
)
def test_secrets_are_redacted_in_overrides(typed: str, kept: str) -> None:
    assert redact_override(typed) == kept


# ---- W&B ------------------------------------------------------------------------------------------------------------
def test_one_run_a_stage_with_group_job_type_config_metrics_and_samples(tmp_path: Path) -> None:
    tracking = Tracking(mode="offline", folder=tmp_path / "lab", progress=False)
    for name in ("sft", "dpo"):
        artifact = tmp_path / name
        artifact.mkdir()
        config = {"objective": {"beta": 0.1}, "api_key": "very-secret"}
        with tracking.stage(name=name, folder=artifact, config=config, **LIFECYCLE) as tracker:
            tracker.log(1, {"train/loss": 0.75})
            tracker.log(1, {"validation/loss": 0.5})
            tracker.table("samples", [{"prompt": "who?", "answer": "hop\x1b[31m", "length": 1}])
            tracker.summary({"accuracy": 0.875})
    runs = offline_records(tmp_path / "lab")
    assert [of_type(run, "run")[0]["job_type"] for run in runs] == ["sft", "dpo"]
    for run in runs:
        (head,) = of_type(run, "run")
        assert head["run_group"] == "lifecycle/2026-01-01-12-00" and head["display_name"] == f"3/{head['job_type']}"
        assert head["run_id"].startswith("0123456789abcdef-")
        assert head["tags"] == [
            "experiment=lifecycle", "pipeline.dpo.objective.beta=0.3", f"hub.token={REDACTED}", "seed=7",
        ]  # fmt: skip
        config = head["config"]["update"]
        assert config["objective"] == {"beta": 0.1} and config["api_key"] == REDACTED
        assert config["pipeline"] == {"dpo": {"objective": {"beta": 0.3}}} and config["seed"] == 7
        assert config["experiment"] == "lifecycle" and config["hub"] == {"token": REDACTED}
        assert f"hub.token={REDACTED}" in config["overrides"] and "store_dir=s" in config["overrides"]
        history = {k: v for record in of_type(run, "history") for k, v in record["item"].items()}
        assert history["train/loss"] == 0.75 and history["validation/loss"] == 0.5
        assert "accuracy" in json.dumps(of_type(run, "summary"))
        assert of_type(run, "exit")[0].get("exit_code", 0) == 0
    table = json.loads(next((tmp_path / "lab" / "wandb").rglob("samples*.table.json")).read_text())
    assert table["columns"] == ["prompt", "answer", "length"] and table["data"] == [["who?", "hop�[31m", 1]]
    assert "very-secret" not in "".join(f.read_text(errors="ignore") for f in tmp_path.rglob("*") if f.is_file())


def test_an_evaluation_out_of_the_store_is_a_finished_run_of_the_new_group(tmp_path: Path) -> None:
    tracking = Tracking(mode="offline", folder=tmp_path, progress=False)
    tracking.evaluated("evaluate_dpo", LIFECYCLE["origin"], "0123456789abcdef", {"table_rows": 4}, {"true_taste": 2.5})
    (run,) = offline_records(tmp_path)
    (head,) = of_type(run, "run")
    assert head["job_type"] == "evaluate_dpo" and head["run_group"] == "lifecycle/2026-01-01-12-00"
    config = head["config"]["update"]
    assert config["from_store"] is True and config["pipeline"] == {"dpo": {"objective": {"beta": 0.3}}}
    assert summary_of(run)["true_taste"] == 2.5
    assert of_type(run, "exit")[0].get("exit_code", 0) == 0


def test_a_stage_that_fails_is_marked_failed(tmp_path: Path) -> None:
    tracking = Tracking(mode="offline", folder=tmp_path, progress=False)
    with pytest.raises(ArithmeticError), tracking.stage(name="ppo", folder=tmp_path, **LIFECYCLE):
        raise ArithmeticError("loss is NaN at https://me:very-secret@example.org\nand more")
    (run,) = offline_records(tmp_path)
    assert of_type(run, "exit")[0]["exit_code"] == 1 and not of_type(run, "preempting")
    assert summary_of(run)["error"] == f"ArithmeticError: loss is NaN at https://{REDACTED}@example.org"


def test_a_stage_that_is_asked_to_stop_is_marked_preempted(tmp_path: Path) -> None:
    tracking = Tracking(mode="offline", folder=tmp_path, progress=False)
    with pytest.raises(Preempted), tracking.stage(name="ppo", folder=tmp_path, **LIFECYCLE) as tracker:
        tracker.log(1, {"train/loss": 1.0})
        raise Preempted("asked to stop (SIGTERM)")
    (run,) = offline_records(tmp_path)
    assert len(of_type(run, "preempting")) == 1 and of_type(run, "exit")[0]["exit_code"] == 143
    assert summary_of(run)["error"] == "asked to stop (SIGTERM)"


def test_an_interrupted_stage_says_so(tmp_path: Path) -> None:
    tracking = Tracking(mode="offline", folder=tmp_path, progress=False)
    with pytest.raises(KeyboardInterrupt), tracking.stage(name="ppo", folder=tmp_path, **LIFECYCLE):
        raise KeyboardInterrupt
    assert summary_of(offline_records(tmp_path)[0])["error"] == "KeyboardInterrupt"


@pytest.mark.parametrize("number", [None, 3])
def test_jobs_of_a_sweep_share_its_group(number: int | None, tmp_path: Path) -> None:
    time = tmp_path / "DATE" / "TIME"
    typed = ["seed=1", "a.api_key=hunter2", "~pipeline.ppo="]
    job = Job(time / "3", typed, Sweep(time), number) if number else Job(time, typed)
    assert job.group("smoke") == "smoke/DATE-TIME"
    assert job.shown() == ["seed=1", f"a.api_key={REDACTED}", "~pipeline.ppo"]


def test_a_report_is_sent_as_it_is(tmp_path: Path) -> None:
    tracking = Tracking(mode="offline", folder=tmp_path / "lab", progress=False)
    with tracking.stage(name="report", folder=tmp_path, **LIFECYCLE):
        (tmp_path / "report.html").write_text("<!doctype html><title>lifecycle</title>")
    (page,) = (tmp_path / "lab").rglob("report*.html")
    assert page.read_text() == "<!doctype html><title>lifecycle</title>"
    (run,) = offline_records(tmp_path / "lab")
    assert summary_of(run)["report._type"] == "html-file"


def test_a_samples_file_is_sent_as_the_table(tmp_path: Path) -> None:
    tracking = Tracking(mode="offline", folder=tmp_path / "lab", progress=False)
    with tracking.stage(name="evaluate_sft", folder=tmp_path, **LIFECYCLE):
        (tmp_path / "samples.jsonl").write_text('{"prompt": "who?", "answer": "hop"}\n')
    (table,) = (tmp_path / "lab").rglob("samples*.table.json")
    assert json.loads(table.read_text())["data"] == [["who?", "hop"]]


def test_off_does_not_import_wandb(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from alignlab.tracking import Tracking\n"
        "assert not {'rich', 'wandb', 'torch'} & set(sys.modules)\n"
        "with Tracking(mode='off').stage(name='a', folder=Path(sys.argv[1])) as tracker:\n"
        "    tracker.log(1, {'x': 1.0})\n"
        "assert 'wandb' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert lines_of(tmp_path / "curves.jsonl") == [{"step": 1, "x": 1.0}]


def test_wandb_that_cannot_start_never_stops_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    def refuse(**_: object) -> None:
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", refuse)
    tracking = Tracking(mode="offline", folder=tmp_path, progress=False)
    with tracking.stage(name="sft", folder=tmp_path, **LIFECYCLE) as tracker:
        tracker.log(1, {"loss": 1.0})
    assert lines_of(tmp_path / "curves.jsonl") == [{"step": 1, "loss": 1.0}]
    assert "W&B could not start (offline)" in capsys.readouterr().out


def test_an_online_run_that_is_refused_goes_on_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    init, asked = wandb.init, []

    def refuse(**keywords: Any) -> Any:
        asked.append(keywords["mode"])
        if keywords["mode"] == "online":
            raise wandb.errors.CommError("401")
        return init(**keywords)

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setattr(wandb_mode, "has_key", lambda: True)
    monkeypatch.setattr(wandb_mode, "reachable", lambda: True)
    tracking = Tracking(folder=tmp_path, progress=False)
    for name in ("pretrain", "sft"):
        with tracking.stage(name=name, folder=tmp_path, **LIFECYCLE) as tracker:
            tracker.log(1, {"loss": 1.0})
    assert asked == ["online", "offline", "offline"]
    assert capsys.readouterr().out.count("continues offline") == 1
    assert len(offline_records(tmp_path)) == 2


def test_a_listener_that_fails_is_named_once_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Tracking(mode="off", progress=False).stage(name="sft", folder=tmp_path / "gone", **LIFECYCLE) as tracker:
        tracker.log(1, {"loss": 1.0})  # the folder is not there
        tracker.log(2, {"loss": 1.0})
    assert capsys.readouterr().out.count("curves.jsonl failed and is left out") == 1


def test_a_spawned_process_writes_curves_that_wandb_reads_at_the_end(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    tracking = Tracking(mode="offline", folder=tmp_path / "lab", progress=False)
    with tracking.stage(name="sft", folder=tmp_path, work=work, **LIFECYCLE) as tracker:
        child = pickle.loads(pickle.dumps(tracker))
        child.log(7, {"train/loss": 0.25})
        child.flush()  # the process ends without closing anything
    assert lines_of(tmp_path / "curves.jsonl") == [{"step": 7, "train/loss": 0.25}]
    (run,) = offline_records(tmp_path / "lab")
    assert [record["item"]["train/loss"] for record in of_type(run, "history") if "train/loss" in record["item"]] == [
        0.25
    ]


def test_only_the_first_of_several_processes_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    with Tracking(mode="off").stage(name="sft", folder=tmp_path, **LIFECYCLE) as tracker:
        tracker.log(1, {"loss": 1.0})
        tracker.say("3 records skipped")
    assert not (tmp_path / "curves.jsonl").exists()
    assert capsys.readouterr().out == ""
