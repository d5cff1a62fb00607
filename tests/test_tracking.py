"""What a stage reports arrives in curves.jsonl and at every recorder, without secrets, and never stops training."""

import io
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alignlab.cli.job import Job
from alignlab.cli.sweeps.sweep import Sweep
from alignlab.errors import ConfigError
from alignlab.sanitize import REDACTED, redact, redact_override
from alignlab.tracking import Given, Origin, Recorder, StageInfo, StageRecord, Tracking, terminal
from alignlab.tracking.curves import Curves
from alignlab.tracking.process import is_first_process
from alignlab.tracking.stage_tracker import StageTracker
from alignlab.tracking.terminal import Bar, PlainLines, clock, facts, short

ORIGIN = Origin(
    "lifecycle", "lifecycle/2026-01-01-12-00", job=3,
    config={"pipeline": {"dpo": {"objective": {"beta": 0.3}}}, "seed": 7, "hub": {"token": "very-secret"}},
    overrides=["experiment=lifecycle", "pipeline.dpo.objective.beta=0.3", "hub.token=very-secret"],
)  # fmt: skip


class Kept(Recorder):
    """Keeps the events that it receives; the one named `fails` raises."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.events = fails, list[tuple[Any, ...]]()

    def note(self, name: str, *what: Any) -> None:
        self.events.append((name, *what))
        if name == self.fails:
            raise RuntimeError(f"no {name} at https://api.example.org/?token=hunter2")

    def prepare(self) -> None:
        self.note("prepare")

    def run_begins(self, run: Origin) -> None:
        self.note("run_begins", run)

    def stage_begins(self, stage: StageInfo) -> StageRecord:
        self.note("stage_begins", stage)
        return KeptStage(self)

    def cached(self, stage: StageInfo, metrics: Any) -> None:
        self.note("cached", stage, dict(metrics))

    def results(self, metrics: Any) -> None:
        self.note("results", dict(metrics))

    def run_ends(self, error: BaseException | None) -> None:
        self.note("run_ends", error)

    def to_send(self) -> str:
        return "send it"

    def got(self, name: str) -> list[tuple[Any, ...]]:
        return [event[1:] for event in self.events if event[0] == name]


class KeptStage(StageRecord):
    def __init__(self, to: Kept) -> None:
        self.to = to

    def log(self, step: int, metrics: Any) -> None:
        self.to.note("log", step, dict(metrics))

    def table(self, name: str, rows: Any) -> None:
        self.to.note("table", name, list(rows))

    def summary(self, metrics: Any) -> None:
        self.to.note("summary", dict(metrics))

    def page(self, name: str, file: Path) -> None:
        self.to.note("page", name, file.read_text())

    def made(self) -> dict[str, str]:
        return {"id": "7"}

    def ends(self, error: BaseException | None) -> None:
        self.to.note("ends", error)


@contextmanager
def tracked(
    recorder: Recorder | None, folder: Path, work: Path | None = None, origin: Origin = ORIGIN, **stage: Any
) -> Iterator[StageTracker]:
    """The tracker of one stage in a run."""
    tracking = Tracking(progress=False, recorders={"kept": recorder})
    info = StageInfo("sft", "0123456789abcdef" * 4, folder=folder, **stage)
    with tracking.run(origin), tracking.stage(info, work) as tracker:
        yield tracker


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


def test_killed_after_a_step_was_added_to_its_line_is_not_lost(tmp_path: Path) -> None:
    """The next buffer is logged at the step of the save; the process is killed before that line is written again."""
    work, artifact = tmp_path / "work", tmp_path / "artifact"
    for folder in (work, artifact):
        folder.mkdir()
    killed = Curves(artifact, work)
    killed.log(2, {"train/loss": 2.0})
    killed.flush()  # as a save does
    killed.log(2, {"train/reward": 0.5})
    assert killed._stream is not None
    killed._stream.close()
    resumed = Curves(artifact, work)
    resumed.log(2, {"train/reward": 0.5})
    resumed.close()
    assert lines_of(artifact / "curves.jsonl") == [{"step": 2, "train/loss": 2.0, "train/reward": 0.5}]


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
    tracking = Tracking()
    with tracking.line("data") as line:
        line.progress(3, 3, {"megabytes_per_second": 12.0})
    with pytest.raises(ValueError), tracking.line("data") as line:
        raise ValueError
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "data: 3/3  12 MB/s  done in 0:00" and said[1].startswith("data: stopped after")
    with Tracking(progress=False).line("data") as line:
        line.progress(1, 2, {})
    assert capsys.readouterr().out == ""


def test_progress_off_leaves_only_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tracked(None, tmp_path) as tracker:
        tracker.progress(1, 1, {"loss": 1.0})
        tracker.say("3 records skipped")
    assert capsys.readouterr().out.split() == ["3", "records", "skipped"]


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


# ---- recorders -------------------------------------------------------------------------------------------------------
def test_a_recorder_receives_a_run_in_order_and_without_secrets(tmp_path: Path) -> None:
    kept = Kept()
    given = {"policy": Given("base", "f" * 64)}
    tracking = Tracking(progress=False, recorders={"kept": kept, "none": None})
    info = StageInfo("sft", folder=tmp_path, config={"api_key": "very-secret", "lr": 0.1}, inputs=given)
    with tracking.run(ORIGIN):
        made = {"policy": {"kept": {"id": "5"}, "other": {"id": "6"}}}
        with tracking.stage(info, made=made) as tracker:
            tracker.log(1, {"train/loss": 2.0})
            tracker.summary({"loss": 1.0})
            assert tracker.made() == {"kept": {"id": "7"}}
        tracking.taken(info, {"loss": 1.0}, {"kept": {"id": "4"}})
        tracking.results({"sft/loss": 1.0})
    names = [event[0] for event in kept.events]
    assert names == ["run_begins", "prepare", "stage_begins", "log", "summary", "ends", "cached", "results", "run_ends"]
    ((run,), (stage,), (taken, metrics)) = kept.got("run_begins")[0], kept.got("stage_begins")[0], kept.got("cached")[0]
    assert run.overrides[-1] == f"hub.token={REDACTED}" and run.config["hub"] == {"token": REDACTED}
    assert stage.config == {"api_key": REDACTED, "lr": 0.1} and taken.config["api_key"] == REDACTED
    assert stage.inputs["policy"].made_by == {"id": "5"} and taken.made_by == {"id": "4"}
    assert metrics == {"loss": 1.0} and kept.got("results") == [({"sft/loss": 1.0},)]
    assert tracking.to_send() == ["send it"]


def test_each_step_arrives_once_with_its_finite_numbers(tmp_path: Path) -> None:
    kept = Kept()
    with tracked(kept, tmp_path) as tracker:
        tracker.log(1, {"a": 1.0})
        tracker.log(1, {"b": 2.0, "c": float("nan")})
        tracker.log(2, {"a": float("inf")})
        tracker.log(3, {"a": 3.0})
    assert kept.got("log") == [(1, {"a": 1.0, "b": 2.0}), (3, {"a": 3.0})]


def test_a_resumed_stage_tells_a_recorder_of_the_steps_before(tmp_path: Path) -> None:
    """A run that begins in the middle would be a curve without its beginning."""
    work, kept = tmp_path / "work", Kept()
    work.mkdir()
    (work / "curves.jsonl").write_text("".join(json.dumps({"step": s, "loss": s / 2}) + "\n" for s in (1, 2, 3, 4)))
    with tracked(kept, tmp_path, work) as tracker:
        tracker.log(3, {"reward": 1.0})
        tracker.log(4, {"loss": 9.0})
    assert kept.got("log") == [
        (1, {"loss": 0.5}), (2, {"loss": 1.0}), (3, {"loss": 1.5, "reward": 1.0}), (4, {"loss": 9.0}),
    ]  # fmt: skip


def test_a_table_is_printable_and_samples_and_reports_are_shown_at_the_end(tmp_path: Path) -> None:
    kept = Kept()
    with tracked(kept, tmp_path) as tracker:
        tracker.table("answers", [{"text": "hop\x1b[31m", "n": 1, "none": None, "list": [1]}] * 200)
        (tmp_path / "report.html").write_text("<p>")
    ((name, rows),) = kept.got("table")
    assert name == "answers" and len(rows) == 128
    assert rows[0] == {"text": "hop\ufffd[31m", "n": 1, "none": None, "list": "[1]"}
    assert kept.got("page") == [("report", "<p>")]
    with tracked(kept := Kept(), tmp_path):
        (tmp_path / "samples.jsonl").write_text('{"prompt": "who?", "answer": "hop"}\n')
    assert kept.got("table") == [("samples", [{"prompt": "who?", "answer": "hop"}])]


@pytest.mark.parametrize("event", ["run_begins", "prepare", "stage_begins", "log", "table", "summary", "ends", "cached",
                                   "results", "run_ends"])  # fmt: skip
def test_a_recorder_that_fails_is_named_once_and_stops_nothing(
    event: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, other = Kept(event), Kept()
    tracking = Tracking(progress=False, recorders={"failing": failing, "other": other})
    with tracking.run(ORIGIN):
        for _ in range(2):
            with tracking.stage(StageInfo("sft", folder=tmp_path)) as tracker:
                tracker.log(1, {"loss": 1.0})
                tracker.log(2, {"loss": 1.0})
                tracker.table("samples", [{"a": 1}])
                tracker.summary({"loss": 1.0})
            tracking.taken(StageInfo("sft"), {}, {})
        tracking.results({"loss": 1.0})
    assert lines_of(tmp_path / "curves.jsonl") == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}]
    of_a_stage = event in ("log", "table", "summary", "ends")
    said = capsys.readouterr().out
    assert said.count("failing failed") == (2 if of_a_stage else 1) and "hunter2" not in said
    assert len(other.got("log")) == 4 and other.got("run_ends") == [(None,)]


def test_recorders_are_told_why_a_stage_and_its_run_ended(tmp_path: Path) -> None:
    kept = Kept()
    with pytest.raises(KeyboardInterrupt), tracked(kept, tmp_path):
        raise KeyboardInterrupt
    ((of_stage,), (of_run,)) = kept.got("ends")[0], kept.got("run_ends")[0]
    assert isinstance(of_stage, KeyboardInterrupt) and of_run is of_stage


def test_a_recorder_that_is_insisted_on_stops_a_run_before_it_begins(tmp_path: Path) -> None:
    class Insists(Kept):
        def prepare(self) -> None:
            raise ConfigError("no key")

    with pytest.raises(ConfigError, match="no key"):
        Tracking(recorders={"kept": Insists()}).prepare()


def test_a_spawned_process_writes_curves_that_recorders_get_at_the_end(tmp_path: Path) -> None:
    work, kept = tmp_path / "work", Kept()
    work.mkdir()
    with tracked(kept, tmp_path, work) as tracker:
        child = pickle.loads(pickle.dumps(tracker))
        child.log(7, {"train/loss": 0.25})
        child.flush()  # the process ends without closing anything
    assert lines_of(tmp_path / "curves.jsonl") == [{"step": 7, "train/loss": 0.25}]
    assert kept.got("log") == [(7, {"train/loss": 0.25})]


def test_a_listener_that_fails_is_named_once_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tracked(None, tmp_path / "gone") as tracker:
        tracker.log(1, {"loss": 1.0})  # the folder is not there
        tracker.log(2, {"loss": 1.0})
    assert capsys.readouterr().out.count("curves.jsonl failed and is left out") == 1


def test_only_the_first_of_several_processes_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert is_first_process(), "one process alone, in an environment that another program has left"
    monkeypatch.setenv("WORLD_SIZE", "2")
    kept = Kept()
    with tracked(kept, tmp_path) as tracker:
        tracker.log(1, {"loss": 1.0})
        tracker.say("3 records skipped")
    assert not (tmp_path / "curves.jsonl").exists() and kept.events == []
    assert capsys.readouterr().out == ""


def test_off_imports_neither_wandb_nor_tensorboard(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from alignlab.tracking import StageInfo, Tracking, TensorBoard, Wandb\n"
        "assert not {'rich', 'wandb', 'torch', 'tensorboard'} & set(sys.modules)\n"
        "off = Tracking(recorders={'w': Wandb(mode='off'), 't': None})\n"
        "with off.stage(StageInfo('a', folder=Path(sys.argv[1]))) as tracker:\n"
        "    tracker.log(1, {'x': 1.0})\n"
        "assert not {'wandb', 'torch', 'tensorboard'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert lines_of(tmp_path / "curves.jsonl") == [{"step": 1, "x": 1.0}]


@pytest.mark.parametrize("number", [None, 3])
def test_jobs_of_a_sweep_share_its_group(number: int | None, tmp_path: Path) -> None:
    time = tmp_path / "DATE" / "TIME"
    typed = ["seed=1", "a.api_key=hunter2", "~pipeline.ppo="]
    job = Job(time / "3", typed, Sweep(time), number) if number else Job(time, typed)
    assert job.group("smoke") == "smoke/DATE-TIME"
    assert job.shown() == ["seed=1", f"a.api_key={REDACTED}", "~pipeline.ppo"]
