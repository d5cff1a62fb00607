"""The contract of recorders: W&B, TensorBoard and the page's sketch keep it, and every check catches a mistake."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import docs_pages
import numpy as np
import pytest
from wandb_records import head_of, of_type, offline_records

from alignlab.testing import Check, TrackerSubject, conforms_tracker, tracker
from alignlab.tracking import Origin, Recorder, StageInfo, StageRecord, Wandb

Curves = Mapping[str, Mapping[str, Mapping[int, float]]]


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def joined(points: Iterator[tuple[str, int, float]]) -> dict[str, dict[int, float]]:
    """Points as curves; a step that comes twice is an error."""
    found: dict[str, dict[int, float]] = {}
    for name, step, value in points:
        assert step not in found.setdefault(name, {}), f"{name} has step {step} twice"
        found[name][step] = value
    return found


# ---- W&B and TensorBoard --------------------------------------------------------------------------------------------
def wandb_curves(folder: Path) -> Curves:
    found = {}
    for number, records in enumerate(offline_records(folder)):
        points = [
            (name, int(r["item"]["_step"]), float(value))
            for r in of_type(records, "history")
            for name, value in r["item"].items()
            if "/" in name and isinstance(value, int | float)
        ]
        found[f"{number} {head_of(records)['job_type']}"] = joined(iter(points))
    return found


@conforms_tracker(lambda folder: Wandb("offline", folder=folder), read=wandb_curves)
def test_wandb_conforms(check: Check) -> None:
    check()


def tensorboard_curves(folder: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for place in sorted({file.parent for file in folder.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(place)).Reload()
        points = [(tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)]
        found[str(place)] = joined(iter(points))
    return found


def tensorboard(folder: Path) -> Recorder:
    pytest.importorskip("tensorboard", reason="an extra: alignlab[tensorboard]")
    from alignlab.tracking import TensorBoard

    return TensorBoard()


@conforms_tracker(tensorboard, read=tensorboard_curves)
def test_tensorboard_conforms(check: Check) -> None:
    check()


# ---- the sketch of docs/trackers.md ---------------------------------------------------------------------------------
class FakeMlflow:
    """What the sketch uses of `mlflow.MlflowClient`, in a file."""

    def __init__(self, tracking_uri: str) -> None:
        self.file = Path(tracking_uri) / "runs.json"
        self.runs: dict[str, Any] = json.loads(self.file.read_text()) if self.file.is_file() else {}

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=name)

    def create_run(self, experiment_id: str, run_name: str, tags: Mapping[str, str]) -> Any:
        self.runs[run_id := str(len(self.runs))] = {"name": run_name, "tags": dict(tags), "metrics": [], "params": {}}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def log_param(self, run_id: str, key: str, value: Any) -> None:
        self.runs[run_id]["params"][key] = str(value)

    def log_metric(self, run_id: str, key: str, value: float, step: int = 0) -> None:
        self.runs[run_id]["metrics"].append([key, step, value])

    def log_table(self, run_id: str, data: Mapping[str, Any], artifact_file: str) -> None:
        assert artifact_file.endswith(".json") and isinstance(data, dict)

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status
        self.file.write_text(json.dumps(self.runs))


def mlflow_recorder(folder: Path) -> Recorder:
    """The class of the page, with a fake of MLflow."""
    fake = ModuleType("mlflow")
    fake.MlflowClient = FakeMlflow  # type: ignore[attr-defined]
    sys.modules["mlflow"] = fake
    module = ModuleType("alignlab_mlflow")
    sys.modules["alignlab_mlflow"] = module  # a dataclass looks for its module
    exec(docs_pages.files("trackers.md")["alignlab_mlflow/__init__.py"], module.__dict__)
    made: Recorder = module.MLflow(uri=str(folder))
    return made


def mlflow_curves(folder: Path) -> Curves:
    runs = json.loads((folder / "runs.json").read_text())
    return {f"{id} {run['name']}": joined(iter([tuple(m) for m in run["metrics"]])) for id, run in runs.items()}


@conforms_tracker(mlflow_recorder, read=mlflow_curves)
def test_the_sketch_of_the_page_conforms(check: Check) -> None:
    check()
    sys.modules.pop("mlflow")


# ---- every check catches something ----------------------------------------------------------------------------------
class Lines(Recorder):
    """Keeps JSON lines, one file per stage of a run; `fault` is a mistake that somebody could make."""

    def __init__(self, folder: Path, fault: str = "") -> None:
        self.folder, self.fault, self.run = folder, fault, Origin()
        if fault == "opens":
            (folder / "opened").touch()

    def run_begins(self, run: Origin) -> None:
        self.run = run

    def stage_begins(self, stage: StageInfo) -> StageRecord:
        if self.fault == "moves":
            os.chdir(self.folder)
        place = self.folder if self.fault == "mixes" else self.run.folder or self.folder
        return LinesOfStage(place / f"{stage.name}.lines", self.fault, stage)

    def cached(self, stage: StageInfo, metrics: Mapping[str, float]) -> None:
        if self.fault == "cached":
            raise KeyError(stage.made_by["id"])


class LinesOfStage(StageRecord):
    def __init__(self, file: Path, fault: str, stage: StageInfo) -> None:
        self.file, self.fault, self.stage = file, fault, stage
        if fault not in ("appends", "mixes"):
            file.write_text("")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        kept = {k: v for k, v in metrics.items() if self.fault != "loses" or "validation" not in k}
        with self.file.open("a") as stream:
            stream.write(json.dumps([step, kept]) + "\n")

    def table(self, name: str, rows: Any) -> None:
        if self.fault == "draws":
            np.random.rand()
        if self.fault == "empty":
            rows[0]

    def summary(self, metrics: Mapping[str, float]) -> None:
        pass

    def made(self) -> Any:
        return {"key": tracker.SECRET} if self.fault == "secret" else {"file": str(self.file)}

    def ends(self, error: BaseException | None) -> None:
        if self.fault == "ends" and error is not None:
            raise RuntimeError("no such run")


def lines_curves(folder: Path) -> Curves:
    found = {}
    for file in sorted(folder.rglob("*.lines")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        found[file.stem + str(file)] = joined((k, step, v) for step, metrics in lines for k, v in metrics.items())
    return found


@conforms_tracker(Lines, read=lines_curves)
def test_a_plain_recorder_conforms(check: Check) -> None:
    check()


@pytest.mark.parametrize(
    ("fault", "check"),
    [("cached", "a_whole_run_is_recorded"), ("empty", "a_whole_run_is_recorded"),
     ("loses", "every_number_is_read_back"), ("appends", "a_resumed_stage_is_one_curve"), ("mixes", "runs_do_not_mix"),
     ("ends", "an_error_ends_a_record"), ("secret", "manifests_take_plain_text"),
     ("opens", "nothing_opens_before_it_is_needed"), ("draws", "the_process_stays_as_it_is"),
     ("moves", "the_process_stays_as_it_is")],
)  # fmt: skip
def test_every_check_catches_its_mistake(fault: str, check: str) -> None:
    subject = TrackerSubject(lambda folder: Lines(folder, fault), lines_curves)
    rule = next(c for c in tracker.CHECKS if c.__name__ == check)
    with pytest.raises((AssertionError, KeyError)):
        rule(subject)
