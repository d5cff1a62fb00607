"""The lifecycle: order, fingerprints, the store, the run folder, and what happens when a stage fails."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_plugins import FAKES, declare

from alignlab.artifact import Artifact
from alignlab.config.check import parse
from alignlab.config.spec import Spec
from alignlab.errors import AlignlabError, ConfigError, DataError, PipelineError, StoreError
from alignlab.pipeline.plan import Step, plan
from alignlab.pipeline.run_folder import RunFolder, read_status
from alignlab.pipeline.runner import Runner
from alignlab.pipeline.store import Store
from alignlab.runtime import Runtime
from alignlab.stage import NullTracker
from alignlab.tracking import Origin, StageInfo, Tracking


@pytest.fixture(autouse=True)
def _fakes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(declare(tmp_path_factory.mktemp("installed"), "fakes", "lab_fakes"))
    monkeypatch.syspath_prepend(FAKES)
    yield


def make(**arguments: Any) -> dict[str, Any]:
    return {"_target_": "lab_fakes.Make", "size": 1, **arguments}


def fake(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"lab_fakes.{name}", **arguments}


def pipeline() -> dict[str, Any]:
    return {
        "report": fake("Summary"),
        "evaluate": fake("Measure", inputs={"policy": "tuned"}),
        "tuned": make(size=3, inputs={"policy": "base", "preferences": "label"}),
        "label": fake("Prefer", inputs={"policy": "base"}),
        "base": make(size=2),
    }


def specs(stages: dict[str, Any]) -> dict[str, Spec]:
    return {name: parse(node, f"pipeline.{name}") for name, node in stages.items()}


def prints(stages: dict[str, Any], precision: str = "32-true") -> dict[str, str]:
    return {s.name: s.fingerprint for s in plan(specs(stages), Runtime(precision=precision))}


def run(stages: dict[str, Any], folder: Path) -> RunFolder:
    steps: list[Step] = plan(specs(stages), Runtime())
    into = RunFolder(folder / "run")
    Runner(steps, Store(folder / "store"), into).run()
    return into


# ---- order and inputs ------------------------------------------------------------------------------------------------
def test_each_stage_comes_after_its_inputs_and_the_report_after_all() -> None:
    assert [s.name for s in plan(specs(pipeline()), Runtime())] == ["base", "label", "tuned", "evaluate", "report"]


def test_a_stage_that_takes_all_takes_every_other_one() -> None:
    report = plan(specs(pipeline()), Runtime())[-1]
    assert set(report.inputs) == {"base", "label", "tuned", "evaluate"}


def test_a_circle_is_named() -> None:
    stages = {"a": make(inputs={"policy": "c"}), "b": make(inputs={"policy": "a"}), "c": make(inputs={"policy": "b"})}
    with pytest.raises(PipelineError, match="dependency cycle: a -> c -> b -> a; remove one of these inputs"):
        plan(specs(stages), Runtime())


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (make(inputs={"policy": "bas"}), r"x\.inputs\.policy: 'bas' is neither a stage .* did you mean base\?"),
        (make(inputs={"polici": "base"}), r"inputs\.polici: Make takes policy, preferences, not polici"),
        (fake("Measure"), r"pipeline\.x\.inputs\.policy: Measure needs it"),
        (fake("Measure", inputs={"policy": "label"}), r"takes policy here, but 'label' makes a preferences"),
    ],
)
def test_a_wrong_input_is_named(stage: dict[str, Any], message: str) -> None:
    stages = {"base": make(), "label": fake("Prefer", inputs={"policy": "base"}), "x": stage}
    with pytest.raises(PipelineError, match=message):
        plan(specs(stages), Runtime())


def test_a_folder_can_be_an_input(tmp_path: Path) -> None:
    first = run({"base": make(size=2)}, tmp_path)
    made = json.loads((first.path / "manifest.json").read_text())["stages"]["base"]
    stages = {"tuned": make(size=3, inputs={"policy": made["artifact"]})}
    run(stages, tmp_path / "later")
    assert prints(stages) == prints({"tuned": make(size=3, inputs={"policy": made["artifact"]})})
    whole = prints({"base": make(size=2), "tuned": make(size=3, inputs={"policy": "base"})})
    assert prints(stages)["tuned"] == whole["tuned"], "an artifact is what it is, however it is referred to"


def test_a_folder_that_changes_after_the_plan_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    steps = plan(specs({"tuned": make(size=3, inputs={"policy": str(folder)})}), Runtime())
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "vocab_size": 3}')
    with pytest.raises(StoreError, match="mine has changed since this run began"):
        Runner(steps, Store(tmp_path / "store"), RunFolder(tmp_path / "run")).run()


@pytest.mark.parametrize(("name", "message"), [("metrics.json", "has changed"), ("added.json", "was added")])
def test_an_artifact_that_is_no_longer_what_was_published_is_no_input(name: str, message: str, tmp_path: Path) -> None:
    """Its manifest still names what was made, so that results of the old content would be taken for the new one's."""
    made = run({"base": fake("Make", size=2)}, tmp_path).path / "stages/base"
    tuned = {"tuned": fake("Make", size=3, inputs={"policy": str(made)})}
    prints(tuned)
    (made / ".DS_Store").touch()
    prints(tuned)
    (made / name).write_text("[]", encoding="utf-8")
    with pytest.raises(StoreError, match=f"{name} {message} .*; delete .* copy it without manifest.json"):
        prints(tuned)


def test_several_machines_need_a_launcher(tmp_path: Path) -> None:
    steps = plan(specs({"base": make()}), runtime := Runtime(num_nodes=2, strategy="ddp"))
    with pytest.raises(ConfigError, match=r"runtime.num_nodes is 2, and this command was started on one machine alone"):
        Runner(steps, Store(tmp_path / "store"), RunFolder(tmp_path / "run"), runtime).run()


# ---- fingerprints ----------------------------------------------------------------------------------------------------
def test_what_changes_a_fingerprint_and_what_does_not() -> None:
    objective = {"_target_": "lab_fakes.Weighing"}
    base = prints({"x": make(objective=objective)})["x"]
    same = [
        make(objective={**objective, "beta": 0.1}),
        make(objective={**objective, "betas": [0.9, 0.95]}),
        make(objective={**objective, "limit": 5}),
        make(objective=objective, workers=8),
        make(objective=objective, seed=0),
    ]
    other = [
        make(objective={**objective, "beta": 0.2}),
        make(objective={"_target_": "lab_fakes.Counting"}),
        make(objective=objective, seed=1),
        make(objective=objective, size=2),
        make(),
    ]
    assert {prints({"x": s})["x"] for s in same} == {base}
    assert len({prints({"x": s})["x"] for s in other} | {base}) == 1 + len(other)


def test_a_whole_number_given_for_a_float_is_that_float() -> None:
    one = {"_target_": "lab_fakes.Weighing", "beta": 1}
    assert prints({"x": make(objective=one)}) == prints({"x": make(objective={**one, "beta": 1.0})})


def test_a_version_of_a_nested_class_is_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    import lab_fakes

    stage = make(objective={"_target_": "lab_fakes.Weighing"})
    before = prints({"x": stage})
    monkeypatch.setattr(lab_fakes.Weighing, "VERSION", "2")
    assert prints({"x": stage}) != before


def test_a_change_reaches_everything_downstream_and_nothing_else() -> None:
    before = prints(pipeline())
    changed = pipeline()
    changed["tuned"]["size"] = 4
    after = prints(changed)
    assert {n for n in before if before[n] != after[n]} == {"tuned", "evaluate", "report"}


def test_precision_belongs_to_what_trains_and_reaches_the_rest_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By class: what a stage makes does not tell whether it trains."""
    import lab_fakes

    monkeypatch.setattr(lab_fakes.Make, "TRAINS", True, raising=False)
    monkeypatch.setattr(lab_fakes.Prefer, "TRAINS", False, raising=False)
    free = {"pairs": fake("Trouble")}
    assert prints(free) == prints(free, "bf16-mixed")
    before, after = prints(pipeline()), prints(pipeline(), "bf16-mixed")
    assert all(before[name] != after[name] for name in pipeline())
    monkeypatch.setattr(lab_fakes.Make, "TRAINS", False, raising=False)
    assert prints(pipeline()) == prints(pipeline(), "bf16-mixed")


def test_a_stage_that_runs_again_takes_what_follows_from_it_along(tmp_path: Path) -> None:
    steps = plan(specs(pipeline()), Runtime(), rerun=["tuned"])
    assert {s.name for s in steps if s.again} == {"tuned", "evaluate", "report"}
    run(pipeline(), tmp_path)
    folder = RunFolder(tmp_path / "again")
    Runner(steps, Store(tmp_path / "store"), folder).run()
    stages = json.loads((folder.path / "manifest.json").read_text())["stages"]
    assert {name for name, stage in stages.items() if stage["cached"]} == {"base", "label"}


def test_a_stage_that_was_removed_is_named_with_all_that_needs_it() -> None:
    stages = pipeline()
    del stages["base"]
    with pytest.raises(PipelineError, match=r"~pipeline\.base: .* would miss an input; .*~pipeline\.tuned") as caught:
        plan(specs(stages), Runtime(), removed=["base"])
    named = set(re.findall(r"~pipeline\.(\w+)", str(caught.value)))
    assert named == {"base", "label", "tuned", "evaluate"}, "the report takes what there is"


def test_a_name_on_the_hub_is_told_how_to_become_a_folder() -> None:
    with pytest.raises(PipelineError, match=r"hf download Qwen/Qwen2\.5-0\.5B --local-dir Qwen2\.5-0\.5B"):
        plan(specs({"x": make(inputs={"policy": "Qwen/Qwen2.5-0.5B"})}), Runtime())


# ---- running ---------------------------------------------------------------------------------------------------------
def test_a_run_leaves_its_files(tmp_path: Path) -> None:
    folder = run(pipeline(), tmp_path).path
    manifest = json.loads((folder / "manifest.json").read_text())["stages"]
    order = ["base", "label", "tuned", "evaluate", "report"]
    assert sorted(manifest, key=lambda n: manifest[n]["order"]) == order
    assert manifest["tuned"]["inputs"] == {"policy": "base", "preferences": "label"}
    assert not any(entry["cached"] for entry in manifest.values())
    assert (folder / "report.html").read_text() == "base evaluate label tuned"


def test_an_evaluation_is_filed_under_the_stage_that_it_measured(tmp_path: Path) -> None:
    folder = run(pipeline(), tmp_path).path
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["tuned/fact_recall"] == 0.5
    assert metrics["tuned/loss"] == 3.0
    assert metrics["evaluate/loss"] == 7.0, "a name that the stage itself reports is not overwritten"


def test_samples_of_all_stages_stand_side_by_side(tmp_path: Path) -> None:
    stages = {**pipeline(), "evaluate_base": fake("Measure", inputs={"policy": "base"})}
    folder = run(stages, tmp_path).path
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert rows[0] == {"prompt": "a", "kind": "fact", "answers": {"base": "a2", "tuned": "a5"}}
    assert list(rows[0]["answers"]) == ["base", "tuned"], "in the order in which the models were made"


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    first = run(pipeline(), tmp_path)
    second = run(pipeline(), tmp_path)
    manifest = json.loads((second.path / "manifest.json").read_text())["stages"]
    assert all(entry["cached"] for entry in manifest.values())
    assert second.metrics == first.metrics


def test_an_artifact_says_what_made_it(tmp_path: Path) -> None:
    folder = run({"base": make(size=2, objective={"_target_": "lab_fakes.Weighing"})}, tmp_path).path
    entry = json.loads((folder / "manifest.json").read_text())["stages"]["base"]
    artifact = Artifact.open(entry["artifact"])
    assert artifact.manifest["stage"] == "lab_fakes.Make"
    assert artifact.manifest["config"]["size"] == 2
    assert artifact.manifest["versions"]["alignlab"] and artifact.manifest["seconds"] >= 0
    assert artifact.metrics() == {"loss": 2.0}


def test_secrets_stay_out_of_manifests(tmp_path: Path) -> None:
    stages = {"base": make(), "x": fake("Trouble", how="hf_" + "a" * 30, inputs={"policy": "base"})}
    folder = run(stages, tmp_path).path
    entry = json.loads((folder / "manifest.json").read_text())["stages"]["x"]
    assert "hf_aaa" not in (Path(entry["artifact"]) / "manifest.json").read_text()


class Hears(Tracking):
    """Keeps what is said, stage by stage; before the first stage under no name."""

    def __init__(self) -> None:
        super().__init__(progress=False)
        self.said: list[tuple[str, str]] = []

    def say(self, text: str) -> None:
        self.said.append(("", text))

    @contextmanager
    def stage(self, stage: StageInfo, *_: Any) -> Iterator[Any]:
        hears = NullTracker()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hears, "say", lambda text: self.said.append((name, text)))
            yield hears


def test_what_the_data_was_taken_for_is_said_once_before_the_first_stage(tmp_path: Path) -> None:
    rows = [{"prompt": f"Is {i} even?", "chosen": "Surely.", "rejected": "No."} for i in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"_target_": "alignlab.data.files.Files", "preferences": str(tmp_path / "a.jsonl")}
    target = "alignlab.preferences.ImportPreferences"
    stages = {name: {"_target_": target, "data": {**data, "split_seed": 0}} for name in ("a", "b")}
    tracking = Hears()
    Runner(
        plan(specs(stages), Runtime()), Store(tmp_path / "store"), RunFolder(tmp_path / "run"), tracking=tracking
    ).run()
    assert [name for name, _ in tracking.said] == [""]
    assert "prompt_chosen_rejected" in tracking.said[0][1]


# ---- failing ---------------------------------------------------------------------------------------------------------
def test_a_failure_loses_nothing_that_was_done(tmp_path: Path) -> None:
    stages = {"base": make(), "trouble": fake("Trouble", inputs={"policy": "base"})}
    with pytest.raises(DataError, match="text is missing"):
        run(stages, tmp_path)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())["stages"]
    assert list(manifest) == ["base"]
    objects = [f.name for f in (tmp_path / "store" / "objects").iterdir()]
    assert objects == [manifest["base"]["fingerprint"][:32]], "nothing of the failed stage is published"
    assert read_status(tmp_path / "run") == "running", "the command, not the lifecycle, says that it failed"


def test_metrics_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AlignlabError, match="trouble: its metrics loss are not finite"):
        run({"trouble": fake("Trouble", how="infinite")}, tmp_path)


def test_a_value_that_a_constructor_refuses_is_found_before_anything_runs(tmp_path: Path) -> None:
    bad = make(objective={"_target_": "lab_fakes.Weighing", "beta": -1.0})
    with pytest.raises(ConfigError, match=r"pipeline\.x\.objective: Weighing: beta must be > 0, got -1\.0"):
        run({"base": make(), "x": bad}, tmp_path)
    assert not (tmp_path / "store").exists()


# ---- evaluations out of the store ------------------------------------------------------------------------------------
class Watching(Tracking):
    """Keeps what it is told of stages that the store has."""

    def taken(self, stage: StageInfo, *_: Any) -> None:
        vars(self).setdefault("seen", []).append((stage.kind, stage.name))


@pytest.mark.parametrize(("job", "changed", "told"), [(None, False, False), (None, True, True), (4, False, True)])
def test_recorders_are_told_of_stages_out_of_the_store(
    tmp_path: Path, job: int | None, changed: bool, told: bool
) -> None:
    """Of a run that computes nothing, only as points of a sweep."""
    run(pipeline(), tmp_path)
    stages = {**pipeline(), **({"more": make(size=5)} if changed else {})}
    tracking = Watching(progress=False)
    steps = plan(specs(stages), Runtime())
    origin = Origin("x", "x/1", job)
    Runner(steps, Store(tmp_path / "store"), RunFolder(tmp_path / "again"), tracking=tracking, origin=origin).run()
    seen = vars(tracking).get("seen", [])
    assert [name for kind, name in seen if kind == "evaluation"] == ["evaluate"] * told
    assert len(seen) == told * (len(pipeline()) - changed), "a report of more stages is another report"
