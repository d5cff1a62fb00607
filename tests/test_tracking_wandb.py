"""W&B: one run per stage, links to what made the inputs, and runs that an agent of a W&B sweep starts."""

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docs_pages
import pytest
import yaml
from wandb_records import curve_of, head_of, of_type, offline_records, summary_of

from alignlab.artifact import Artifact
from alignlab.cli import main
from alignlab.errors import ConfigError, Preempted
from alignlab.pipeline.recording import made_of
from alignlab.sanitize import REDACTED
from alignlab.tracking import Given, Origin, StageInfo, Tracking, Wandb, wandb_lineage, wandb_mode, wandb_recorder
from alignlab.tracking.stage_tracker import StageTracker

KEY = "0123456789abcdef" * 4
ORIGIN = Origin(
    "lifecycle", "lifecycle/2026-01-01-12-00", job=3,
    config={"pipeline": {"dpo": {"objective": {"beta": 0.3}}}, "seed": 7, "hub": {"token": "very-secret"}},
    overrides=["experiment=lifecycle", "pipeline.dpo.objective.beta=0.3", "hub.token=very-secret", "x=" + "y" * 63,
               "hydra.sweep.dir=out", "+hydra/launcher=basic", "store_dir=s", "seed=7", "seed=7"],
)  # fmt: skip
ALONE = Origin("lifecycle", "lifecycle/2026-01-01-12-00")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ("API_KEY", "MODE", "BASE_URL", "SWEEP_ID", "RUN_ID", "SWEEP_PARAM_PATH", "PROJECT", "ENTITY")
    for name in (*(f"WANDB_{name}" for name in names), "NETRC", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(wandb_recorder, "_SAID", set())


@contextmanager
def tracked(
    wandb: Wandb, folder: Path, name: str = "sft", origin: Origin = ORIGIN, **more: Any
) -> Iterator[StageTracker]:
    """The tracker of one stage in a run."""
    tracking = Tracking(progress=False, recorders={"wandb": wandb})
    folder.mkdir(exist_ok=True)
    with tracking.run(origin), tracking.stage(StageInfo(name, KEY, folder=folder, path=folder, **more)) as tracker:
        yield tracker


# ---- where runs go --------------------------------------------------------------------------------------------------
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
    assert (f"stay in {tmp_path / 'wandb'} until `wandb sync`" in reason) == (expected == "offline")


def test_online_without_a_key_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wandb login"):
        Tracking(recorders={"wandb": Wandb("online", folder=tmp_path)}).prepare()


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
    wandb = Wandb()
    wandb.mode = "on"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="Wandb: mode must be one of auto, online, offline, off, got 'on'"):
        wandb.__post_init__()


def test_where_runs_go_is_said_once_for_all_jobs_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for job in (0, 1, 2):
        tracking = Tracking(progress=False, recorders={"wandb": Wandb("offline", folder=tmp_path)})
        tracking.prepare()
        with tracking.run(Origin("x", "x/1", job)):
            tracking.prepare()
    assert capsys.readouterr().out.count("W&B is offline") == 1


# ---- offline runs ---------------------------------------------------------------------------------------------------
def test_one_run_per_stage_with_group_job_type_config_metrics_and_samples(tmp_path: Path) -> None:
    wandb = Wandb("offline", folder=tmp_path / "lab")
    for name in ("sft", "dpo"):
        config = {"objective": {"beta": 0.1}, "api_key": "very-secret"}
        with tracked(wandb, tmp_path / name, name, config=config) as tracker:
            tracker.log(1, {"train/loss": 0.75})
            tracker.log(1, {"validation/loss": 0.5})
            tracker.table("samples", [{"prompt": "who?", "answer": "hop\x1b[31m", "length": 1}])
            tracker.summary({"accuracy": 0.875})
    runs = offline_records(tmp_path / "lab")
    assert [head_of(run)["job_type"] for run in runs] == ["sft", "dpo"]
    for run in runs:
        head = head_of(run)
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
        assert curve_of(run, "train/loss") == [0.75] and curve_of(run, "validation/loss") == [0.5]
        assert summary_of(run)["accuracy"] == 0.875
        assert of_type(run, "exit")[0].get("exit_code", 0) == 0
        (artifact,) = (a for a in of_type(run, "artifact") if a["name"] == f"other-{KEY[:32]}")
        assert json.loads(artifact["metadata"])["metrics"] == {"accuracy": 0.875}
    table = json.loads(next((tmp_path / "lab" / "wandb").rglob("samples*.table.json")).read_text())
    assert table["columns"] == ["prompt", "answer", "length"] and table["data"] == [["who?", "hop�[31m", 1]]
    assert "very-secret" not in "".join(f.read_text(errors="ignore") for f in tmp_path.rglob("*") if f.is_file())


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [(ArithmeticError("loss is NaN at https://me:very-secret@example.org\nand more"), 1,
      f"ArithmeticError: loss is NaN at https://{REDACTED}@example.org"),
     (Preempted("asked to stop (SIGTERM)"), 143, "asked to stop (SIGTERM)"),
     (KeyboardInterrupt(), 1, "KeyboardInterrupt")],
    ids=["failed", "preempted", "interrupted"],
)  # fmt: skip
def test_a_stage_that_does_not_end_well_says_why(error: BaseException, code: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(type(error)), tracked(Wandb("offline", folder=tmp_path), tmp_path) as tracker:
        tracker.log(1, {"train/loss": 1.0})
        raise error
    (run,) = offline_records(tmp_path)
    assert of_type(run, "exit")[0]["exit_code"] == code and summary_of(run)["error"] == said
    assert len(of_type(run, "preempting")) == isinstance(error, Preempted) and not of_type(run, "artifact")


def test_a_report_is_sent_as_it_is(tmp_path: Path) -> None:
    with tracked(Wandb("offline", folder=tmp_path / "lab"), tmp_path / "made", "report"):
        (tmp_path / "made" / "report.html").write_text("<!doctype html><title>lifecycle</title>")
    (page,) = (tmp_path / "lab" / "wandb").rglob("media/html/report*.html")
    assert page.read_text() == "<!doctype html><title>lifecycle</title>"
    (run,) = offline_records(tmp_path / "lab")
    assert summary_of(run)["report._type"] == "html-file"


@pytest.mark.parametrize("upload", [False, True])
def test_weights_are_sent_where_that_is_asked_for_alone(upload: bool, tmp_path: Path) -> None:
    with tracked(Wandb("offline", upload=upload, folder=tmp_path / "lab"), tmp_path / "made", kind="policy"):
        (tmp_path / "made" / "model.safetensors").write_text("weights")
    (run,) = offline_records(tmp_path / "lab")
    (artifact,) = of_type(run, "artifact")
    files = [entry["path"] for entry in artifact["manifest"]["contents"]]
    assert artifact["type"] == "model" and files == ["alignlab.json", *["model.safetensors"] * upload]


def test_a_stage_and_an_evaluation_out_of_the_store_link_to_the_runs_that_made_them(tmp_path: Path) -> None:
    maker = {"run": "team/alignlab/abc", "url": "https://wandb.ai/team/alignlab/runs/abc"}
    tracking = Tracking(progress=False, recorders={"wandb": Wandb("offline", folder=tmp_path)})
    inputs = {"policy": Given("sft", KEY)}
    with tracking.run(ORIGIN):
        tracking.taken(StageInfo("sft", KEY, "policy"), {"loss": 1.0}, {"wandb": maker})
        taken = StageInfo("evaluate_dpo", KEY, "evaluation", config={"table_rows": 4}, inputs=inputs)
        tracking.taken(taken, {"true_taste": 2.5}, {"wandb": maker})
        with tracking.stage(StageInfo("dpo", KEY, folder=tmp_path, inputs=inputs), made={"policy": {"wandb": maker}}):
            pass
    evaluation, dpo = offline_records(tmp_path)
    head = head_of(evaluation)
    assert head["job_type"] == "evaluate_dpo" and head["run_group"] == "lifecycle/2026-01-01-12-00"
    config = head["config"]["update"]
    assert config["from_store"] is True and config["pipeline"] == {"dpo": {"objective": {"beta": 0.3}}}
    assert config["made_by"] == maker and maker["url"] in head["notes"]
    assert summary_of(evaluation)["true_taste"] == 2.5 and of_type(evaluation, "exit")[0].get("exit_code", 0) == 0
    assert head_of(dpo)["config"]["update"]["made_of"] == {"policy": {"from": "sft", "fingerprint": KEY, **maker}}


def test_a_job_that_takes_from_another_sweep_names_its_runs_and_how_to_send_them(
    tmp_path: Path, fakes_here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two sweeps that share a store, as commands; each prints one command, for its own runs."""
    command = ["experiment=fake", "tracking=offline", "seed=1,2", "-m"]
    assert main([*command, "hydra.sweep.dir=first"]) == 0
    first = capsys.readouterr().out
    made = {head_of(run)["run_id"]: head_of(run) for run in offline_records(tmp_path / ".alignlab")}
    assert main([*command, "hydra.sweep.dir=second", "pipeline.tuned.size=4"]) == 0
    second = capsys.readouterr().out
    assert first.count("with: wandb sync") == second.count("with: wandb sync") == 1
    sent = [list(Path("/").glob(_pattern(text)[1:])) for text in (first, second)]
    assert len(sent[0]) == len(made) and not set(sent[0]) & set(sent[1])
    assert len(sent[0]) + len(sent[1]) == len(list((tmp_path / ".alignlab" / "wandb").glob("offline-run-*")))
    again = [head_of(run) for run in offline_records(tmp_path / ".alignlab")[len(made) :]]
    taken = [head for head in again if head["config"]["update"].get("from_store")]
    assert {head["job_type"] for head in taken} == {"evaluate_base"} and len(taken) == 2
    for head in taken:
        id = head["config"]["update"]["made_by"]["run"].rpartition("/")[2]
        assert made[id]["job_type"] == "evaluate_base" and id in head["notes"]
    (tuned, _) = (head for head in again if head["job_type"] == "tuned")
    id = tuned["config"]["update"]["made_of"]["policy"]["run"].rpartition("/")[2]
    assert made[id]["job_type"] == "base"


def _pattern(text: str) -> str:
    (command,) = (
        line.partition("wandb sync ")[2] for line in text.splitlines() if "wandb sync " in line and "sent" in line
    )
    (pattern,) = shlex.split(command)
    return pattern


def test_the_configuration_of_an_older_run_reports_to_the_same_place(tmp_path: Path, fakes_here: None) -> None:
    assert main(["experiment=fake", "hydra.run.dir=old"]) == 0
    content = yaml.safe_load((tmp_path / "old" / "config.yaml").read_text())
    content["tracking"] = {"_target_": "alignlab.tracking.Tracking", "mode": "offline", "project": "mine",
                           "entity": None, "progress": True, "folder": ".alignlab"}  # fmt: skip
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(content))
    assert main(["--config", "old.yaml", "hydra.run.dir=new", "pipeline.tuned.size=9"]) == 0
    assert {head_of(run)["project"] for run in offline_records(tmp_path / ".alignlab")} == {"mine"}


def test_a_manifest_that_somebody_else_wrote_is_taken_as_text(tmp_path: Path) -> None:
    odd = {"wandb": {"url": "x\x1b[31m" + "y" * 999, "run": 3, "more": {"a": 1}}, "b": "no", "c": None}
    found = made_of(Artifact(tmp_path, "other", KEY, {"recorded": odd}))
    assert list(found) == ["wandb"] and list(found["wandb"]) == ["url"] and len(found["wandb"]["url"]) == 501
    assert "\x1b" not in found["wandb"]["url"] and made_of(Artifact(tmp_path, "other", KEY, {"recorded": [1]})) == {}


# ---- online, against a fake server ----------------------------------------------------------------------------------
class Server:
    """Stands in for wandb.init: open runs, and the artifacts that they log and use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lacks: str = "nothing") -> None:
        import wandb

        self.runs: list[Any] = []
        self.lacks = lacks
        monkeypatch.setattr(wandb, "init", self.init)
        monkeypatch.setattr(wandb_mode, "has_key", lambda: True)
        monkeypatch.setattr(wandb_mode, "reachable", lambda: True)

    def init(self, **keywords: Any) -> Any:
        run = SimpleNamespace(**keywords, offline=keywords["mode"] != "online", url=f"https://w/{keywords['id']}")
        run.entity, run.dir = keywords["entity"] or "me", "/gone/files"
        run.summary, run.made, run.used, run.logged, run.code = {}, [], [], [], None
        run.log = lambda metrics, step: run.logged.append((step, metrics))
        run.log_artifact = run.made.append
        run.use_artifact = lambda artifact: self.use(run, artifact)
        run.finish = lambda exit_code: setattr(run, "code", exit_code)
        self.runs.append(run)
        return run

    def use(self, run: Any, artifact: Any) -> None:
        name = artifact if isinstance(artifact, str) else artifact.name
        if self.lacks in name:
            raise RuntimeError(f"artifact {name} not found")
        run.used.append(name)


def test_artifacts_mirror_data_models_and_evaluations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, wandb = Server(monkeypatch), Wandb("online", entity="team", folder=tmp_path)
    tracking = Tracking(progress=False, recorders={"wandb": wandb})
    model, measured = "a" * 64, "b" * 64
    with tracking.run(ALONE):
        sft = StageInfo("sft", model, "policy", tmp_path, tmp_path, data={"token": "very-secret"}, data_digest="d" * 64)
        with tracking.stage(sft) as tracker:
            tracker.summary({"loss": 0.5})
            made = tracker.made()["wandb"]
        inputs = {"policy": Given("sft", model)}
        evaluation = StageInfo("evaluate", measured, "evaluation", tmp_path, tmp_path, inputs=inputs)
        with tracking.stage(evaluation, made={"policy": {"wandb": made}}) as tracker:
            evaluated = tracker.made()["wandb"]
        tracking.taken(evaluation, {"taste": 1.0}, {"wandb": evaluated})
    trained, evaluates, again = server.runs
    assert made == {"run": f"team/alignlab/{trained.id}", "group": ALONE.group, "url": trained.url,
                    "artifact": f"team/alignlab/policy-{'a' * 32}"}  # fmt: skip
    assert trained.used == [f"data-{'d' * 32}"] and [a.type for a in trained.made] == ["model"]
    assert trained.made[0].metadata["metrics"] == {"loss": 0.5}
    assert list(trained.made[0].manifest.entries) == ["alignlab.json"]
    assert evaluates.used == [f"{made['artifact']}:latest"] and [a.type for a in evaluates.made] == ["evaluation"]
    assert again.used == [f"{evaluated['artifact']}:latest"] and again.made == []
    assert evaluates.url in again.notes and [run.code for run in server.runs] == [0, 0, 0]
    assert wandb.to_send() == ""


def test_an_artifact_that_the_server_lacks_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wandb_lineage, "_LEFT_OUT", [])
    server = Server(monkeypatch, lacks="policy")
    tracking = Tracking(progress=False, recorders={"wandb": Wandb("online", folder=tmp_path)})
    made = {"policy": {"wandb": {"artifact": "team/alignlab/policy-1"}}}
    info = StageInfo("dpo", KEY, "policy", tmp_path, tmp_path, inputs={"policy": Given("sft")}, data_digest="d" * 64)
    with tracking.run(ALONE), tracking.stage(info, made=made) as tracker:
        tracker.log(1, {"loss": 1.0})
    (run,) = server.runs
    assert run.used == [f"data-{'d' * 32}"] and run.logged == [(1, {"loss": 1.0})]
    said = capsys.readouterr().out
    assert "failed" not in said and "W&B shows no link to team/alignlab/policy-1, " in said and "wandb sync" in said


def test_wandb_that_cannot_start_never_stops_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    def refuse(**_: object) -> None:
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", refuse)
    with tracked(Wandb("offline", folder=tmp_path), tmp_path / "made") as tracker:
        tracker.log(1, {"loss": 1.0})
    assert json.loads((tmp_path / "made" / "curves.jsonl").read_text()) == {"step": 1, "loss": 1.0}
    assert "W&B could not start (offline)" in capsys.readouterr().out


def test_an_online_run_that_is_refused_continues_offline(
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
    recorder = Wandb(folder=tmp_path)
    for name in ("pretrain", "sft"):
        with tracked(recorder, tmp_path / name, name) as tracker:
            tracker.log(1, {"loss": 1.0})
    assert asked == ["online", "offline", "offline"]
    assert capsys.readouterr().out.count("continues offline") == 1
    assert len(offline_records(tmp_path)) == 2 and recorder.to_send().startswith(f"wandb sync {tmp_path}")


# ---- runs that an agent of a W&B sweep starts -----------------------------------------------------------------------
def as_agent(monkeypatch: pytest.MonkeyPatch, folder: Path, values: Mapping[str, Any]) -> None:
    """The environment that an agent makes for a run."""
    parameters = folder / "config-run7.yaml"
    parameters.write_text(json.dumps({"wandb_version": 1, **{k: {"value": v} for k, v in values.items()}}))
    given = {"SWEEP_ID": "sweep1", "RUN_ID": "run7", "SWEEP_PARAM_PATH": str(parameters), "PROJECT": "sweeps"}
    for name, value in given.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


def test_the_runs_of_an_agents_job_do_not_take_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_agent(monkeypatch, tmp_path, {"seed": 3})
    tracking = Tracking(progress=False, recorders={"wandb": Wandb("offline", folder=tmp_path)})
    with tracking.run(ALONE):
        with tracking.stage(StageInfo("dpo", KEY, folder=tmp_path)) as tracker:
            for step, loss in ((10, 0.5), (20, 0.25)):
                tracker.log(step, {"train/loss": 1.0, "validation/loss": loss})
        tracking.results({"dpo/validation_loss": 0.125})
    runs = {head_of(run)["run_id"]: run for run in offline_records(tmp_path)}
    agents = runs.pop("run7")
    assert curve_of(agents, "dpo/validation_loss") == [0.5, 0.25, 0.125], "an early stop needs the values on the way"
    assert head_of(agents)["sweep_id"] == "sweep1" and head_of(agents)["project"] == "sweeps"
    assert not [name for record in of_type(agents, "history") for name in record["item"] if "train" in name]
    ((id, stage),) = runs.items()
    assert "sweep_id" not in head_of(stage) and head_of(stage)["project"] == "sweeps" and id.startswith(KEY[:16])
    assert head_of(stage)["config"]["update"]["wandb_sweep"] == "sweep1"
    groups = {head_of(run)["run_group"] for run in (agents, stage)}
    assert groups == {"lifecycle/sweep1"}, "all jobs of the sweep share a group"


def test_an_agents_run_fails_with_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_agent(monkeypatch, tmp_path, {})
    with pytest.raises(Preempted), tracked(Wandb("offline", folder=tmp_path), tmp_path, origin=ALONE):
        raise Preempted("the sweep stopped it")
    assert [of_type(run, "exit")[0]["exit_code"] for run in offline_records(tmp_path)] == [143, 143]


def commands(values: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The command that an agent builds from the page's YAML, and that YAML."""
    from wandb.sdk.launch.sweeps import utils

    sweep = yaml.safe_load(docs_pages.files("wandb.md")["sweep.yaml"])
    given = utils.create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    given |= {"env": ["/usr/bin/env"], "program": [sweep["program"]], "interpreter": ["python"]}
    command: list[str] = []
    for part in utils.create_sweep_command(sweep["command"]):
        command += given[part[2:-1]] if part.startswith("${") else [part]
    return command, sweep


def test_the_command_of_the_pages_sweep_composes(capsys: pytest.CaptureFixture[str]) -> None:
    command, sweep = commands({"pipeline.dpo.optimizer.lr": 0.0625, "seed": 2})
    assert command[:2] == ["/usr/bin/env", "alignlab"] and set(sweep["parameters"]) <= {
        word.partition("=")[0] for word in command
    }
    assert main(["plan", *command[2:]]) == 0
    assert "dpo" in capsys.readouterr().out
    assert main([*command[2:], "--cfg", "job", "--package", "pipeline.dpo.optimizer"]) == 0
    assert "lr: 0.0625" in capsys.readouterr().out


def test_an_agents_job_logs_the_sweeps_metric_to_the_agents_run(
    tmp_path: Path, fakes_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the agent would start it, with a pipeline of stages that do next to nothing."""
    as_agent(monkeypatch, tmp_path, {"seed": 2})
    assert main(["experiment=fake", "tracking=offline", "seed=2"]) == 0
    runs = {head_of(run)["run_id"]: run for run in offline_records(tmp_path / ".alignlab")}
    (folder,) = (tmp_path / "runs").glob("*/*")
    metrics = json.loads((folder / "metrics.json").read_text())
    found = summary_of(runs["run7"])
    assert metrics and {name: found.get(name) for name in metrics} == metrics
    assert len(runs) == 7 and sum("sweep_id" in head_of(run) for run in runs.values()) == 1
    assert of_type(runs["run7"], "exit")[0].get("exit_code", 0) == 0
    assert head_of(runs["run7"])["config"]["update"]["seed"] == 2
