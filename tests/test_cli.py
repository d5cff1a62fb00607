"""The command: verbs, help, runs, sweeps, exit codes and messages. In process where it can be, for the sake of time."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fake_plugins import FAKES, declare, python_path, write_package

from alignlab.cli import help
from alignlab.cli.app import main
from alignlab.pipeline.run_folder import read_status

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "wandb", "pytorch_lightning", "datasets", "matplotlib")


pytestmark = pytest.mark.usefixtures("fakes_here")


def child(installed: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": python_path(installed, FAKES), "COLUMNS": "160", **more}
    command = [sys.executable, "-m", "alignlab", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


# ---- help and verbs --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["plugins"], ["plugins", "--json"], ["-sc", "query=bash"], ["experiment=fake", "--cfg", "job"]],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_for_what_must_answer_at_once(arguments: list[str], installed: Path) -> None:
    code = (
        "import sys\nfrom alignlab.cli import main\n"
        f"code = main({arguments!r})\n"
        f"print('heavy:', sorted(set({HEAVY!r}) & sys.modules.keys()))\nsys.exit(code)"
    )
    environment = {**os.environ, "PYTHONPATH": python_path(installed, FAKES), "COMP_LINE": "alignlab experiment="}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_help_names_verbs_and_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == main(["experiment=fake", "-h"]) == 0
    text = capsys.readouterr().out
    for word in ("plugins", "plan", "chat", "lifecycle", "fake", "--multirun"):
        assert word in text


def test_an_unknown_verb_is_refused_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plann"]) == 1
    assert "'plann' is no verb" in (message := capsys.readouterr().err) and "did you mean plan?" in message


def test_plugins_lists_every_option_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    listing = {p["package"]: p for p in json.loads(capsys.readouterr().out)}
    fakes = listing["lab_fakes"]
    assert (fakes["plugin"], fakes["distribution"], fakes["version"]) == ("fakes", "fakes", "1.0")
    option = next(o for o in fakes["options"] if o["option"] == "objective=weighing")
    assert option["parameters"] == {"beta": 0.1}
    assert option["comments"]["beta"] == "price, per nat; 0.05 to 0.5 is usual"
    assert option["more_parameters"] == {"betas": "(0.9, 0.95)", "kind": "'soft'", "limit": "None"}
    stage = next(o for o in fakes["options"] if o["option"] == "stage=make")
    assert stage["uses"] == ["objective=weighing"] and stage["more_parameters"] == {"workers": "1"}
    assert {"alignlab", "alignlab_dpo", "alignlab_raters"} <= listing.keys()


def test_plugins_can_be_asked_for_one_thing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "weighing"]) == 0
    text = capsys.readouterr().out
    assert "objective=weighing" in text and "beta: 0.1   # price, per nat" in text and "stage=make" not in text
    assert main(["plugins", "weihging"]) == 1
    assert "did you mean weighing?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("alignlab ", {"chat", "plan", "plugins"}),
        ("alignlab pl", {"plan", "plugins"}),
        ("alignlab experiment=", set()),
    ],
)
def test_completion_offers_verbs_where_the_first_word_is_typed(
    line: str, offered: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert main(["-sc", "query=bash"]) == 0
    words = set(capsys.readouterr().out.split())
    assert {"chat", "plan", "plugins"} & words == offered
    if not offered:
        assert "experiment=fake" in words


def test_plan_shows_what_would_run_and_runs_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "experiment=fake", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    order = ["base", "label", "tuned", "evaluate_tuned", "evaluate_base", "report"]
    assert [s["name"] for s in before["stages"]] == order
    assert not any(s["cached"] for s in before["stages"])
    assert before["stages"][2]["inputs"] == {"policy": "base", "preferences": "label"}
    assert before["stages"][2]["sizes"] == {"size": 3}
    assert list(tmp_path.iterdir()) == []
    assert main(["experiment=fake", "hydra.run.dir=run"]) == 0
    capsys.readouterr()
    assert main(["plan", "experiment=fake", "pipeline.tuned.size=4", "--json"]) == 0
    after = {s["name"]: s for s in json.loads(capsys.readouterr().out)["stages"]}
    assert {n for n, s in after.items() if s["cached"]} == {"base", "label", "evaluate_base"}
    made = json.loads(Path("run/manifest.json").read_text())["stages"]
    assert made["base"]["fingerprint"] == after["base"]["fingerprint"]


def test_a_plan_is_the_same_with_stand_ins_for_slow_packages(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["plan", "experiment=lifecycle", "--json"]
    quick = child(installed, *asked)
    assert quick.returncode == 0, quick.stderr
    assert main(asked) == 0
    assert json.loads(quick.stdout) == json.loads(capsys.readouterr().out)


def test_a_plan_starts_over_where_stand_ins_do_not_do(tmp_path: Path) -> None:
    write_package(tmp_path / "more", "real_lab", "CONTRACT = 2\nimport wandb\nassert wandb.__version__\n")
    done = child(declare(tmp_path / "more", "real", "real_lab"), "plan", "experiment=fake", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["stages"]) == 6


def test_plan_of_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-m", "experiment=fake", "pipeline.tuned.objective=weighing,counting", "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    prints = [{s["name"]: s["fingerprint"] for s in p["stages"]} for p in plans]
    assert len(prints) == 2
    assert {n for n in prints[0] if prints[0][n] != prints[1][n]} == {"tuned", "evaluate_tuned", "report"}
    assert main(["plan", "experiment=fake"]) == 0
    assert "6 of 6 stages would run" in capsys.readouterr().out


# ---- runs ------------------------------------------------------------------------------------------------------------
def test_a_run_leaves_a_complete_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=fake", "pipeline.tuned.objective=counting", "seed=3", "hydra.run.dir=run"]) == 0
    run = Path("run")
    assert read_status(run) == "completed"
    files = {"config.yaml", "metrics.json", "manifest.json", "samples.jsonl", "report.html"}
    assert files <= {f.name for f in run.iterdir()}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["overrides"] == ["experiment=fake", "objective@pipeline.tuned.objective=counting", "seed=3"]
    assert (manifest["name"], manifest["seed"]) == ("fake", 3)
    assert "lab_fakes.Counting" in (run / "config.yaml").read_text()
    assert f"run folder: {run.absolute()}" in capsys.readouterr().out


def test_a_stage_alone_takes_folders() -> None:
    assert main(["experiment=fake", "hydra.run.dir=run"]) == 0
    made = json.loads(Path("run/manifest.json").read_text())["stages"]["base"]["artifact"]
    alone = ["experiment=train", "stage=make", "objective=counting", "stage.size=5", f"stage.inputs.policy={made}"]
    assert main([*alone, "tracking=off", "hydra.run.dir=alone"]) == 0
    stages = json.loads(Path("alone/manifest.json").read_text())["stages"]
    assert list(stages) == ["make"]
    assert json.loads((Path(stages["make"]["artifact"]) / "model.json").read_text()) == 7


def test_an_option_can_be_chosen_where_none_was(capsys: pytest.CaptureFixture[str]) -> None:
    """The objective is null in that stage's YAML, so Hydra alone would ask for a `+`."""
    chosen = ["experiment=fake", "pipeline.bare.objective=counting", "+pipeline.bare=bare"]
    assert main([*chosen, "hydra.run.dir=run"]) == 0
    assert main(["plan", *chosen, "--json"]) == 0
    assert "lab_fakes.Counting" in Path("run/config.yaml").read_text()
    sweep = ["-m", "experiment=fake", "+pipeline.bare=bare", "pipeline.bare.objective=counting,weighing"]
    assert main([*sweep, "hydra.sweep.dir=sweep"]) == 0
    assert "lab_fakes.Counting" in Path("sweep/0/config.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=fake", "pipeline.tuned.objective.betta=1"], "pipeline.tuned.objective.betta: Weighing takes"),
        (["experiment=fake", "+pipeline.tuned.objective.betta=1"], "pipeline.tuned.objective.betta: Weighing takes"),
        (["experiment=fake", "pipeline.base.objective=ippo"], "options of objective: "),
        (["experiment=fakes"], "did you mean fake?"),
        (["experiment=fake", "+pipeline.base._target_=torch.load"], "pipeline.base._target_: torch.load is refused"),
        (["experiment=fake", "pipeline.base.inputs.policy=tuned"], "the stages go round in a circle"),
        (["experiment=fake", "pipeline.label.inputs.policy=bsae"], "did you mean base?"),
        (["experiment=fake", "pipeline.base.objective.beta=-1"], "pipeline.base.objective: Weighing: beta must be > 0"),
        (["experiment=troubled"], "corpus.jsonl:3: text is missing"),
        (["experiment=troubled", "pipeline.trouble.how=infinite"], "trouble: its metrics loss are not finite numbers"),
        (
            ["experiment=fake", "pipeline.more=make"],
            "there is no pipeline.more to replace; add it with +pipeline.more=make",
        ),
        (["seed=1"], "nothing to run: choose experiment="),
    ],
)
def test_what_a_user_can_mend_is_one_message(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "hydra.run.dir=run"]) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert len(error.splitlines()) <= 6
    if Path("run").exists():
        status = json.loads(Path("run/status.json").read_text())
        assert status["status"] == "failed" and message in status["error"]


@pytest.mark.parametrize(
    "hydra",
    [
        "callbacks: {x: {_target_: os.system, command: 'touch trap'}}",
        "callbacks: {x: {_target_: hydra.core.utils.os.system, command: 'touch trap'}}",
        "callbacks: {x: '${evil}'}\nevil: {_target_: os.system, command: 'touch trap'}",
        "job_logging: {handlers: {console: {'()': os.system, command: 'touch trap'}}}",
        "job_logging: {handlers: {console: {class: logging.os.system, command: 'touch trap'}}}",
    ],
)
@pytest.mark.parametrize("flags", [["-cd", "conf"], ["-m", "--config-dir", "conf"]], ids=["run", "sweep"])
def test_somebody_elses_folder_cannot_run_code_through_hydra(
    hydra: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("conf/experiment").mkdir(parents=True)
    head = '# @package _global_\ndefaults: [fake, {override /tracking: "off"}]\nhydra:\n  '
    Path("conf/experiment/evil.yaml").write_text(head + hydra)
    assert main([*flags, "experiment=evil", "pipeline.base.size=1"]) == 1
    assert "hydra." in (error := capsys.readouterr().err) and "Traceback" not in error
    assert not Path("trap").exists()


@pytest.mark.parametrize("flag", ["-cd=conf", "--config-dir=conf", "--config-di=conf"])
def test_however_the_folder_is_named(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No blocklist knows every function that harms: this one would copy a file."""
    Path("conf/experiment").mkdir(parents=True)
    evil = "hydra: {callbacks: {x: {_target_: shutil.copyfile, src: conf/experiment/evil.yaml, dst: trap}}}"
    Path("conf/experiment/evil.yaml").write_text(f"# @package _global_\ndefaults: [fake]\n{evil}\n")
    assert main([flag, "experiment=evil"]) == 1
    assert "hydra." in (error := capsys.readouterr().err) and "Traceback" not in error
    assert not Path("trap").exists()


@pytest.mark.parametrize("flag", ["-cp=conf", "--config-path=conf", "--config-name=other"])
def test_another_root_is_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag, "experiment=fake"]) == 1
    assert "--config-dir FOLDER" in capsys.readouterr().err


def test_a_folder_of_ones_own_options_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/objective").mkdir(parents=True)
    Path("conf/objective/mine.yaml").write_text("# Mine.\n_target_: lab_fakes.Counting\nbeta: 0.7\n")
    mine = ["--config-dir", "conf", "experiment=fake", "pipeline.base.objective=mine"]
    assert main([*mine, "hydra.run.dir=run"]) == 0
    assert "beta: 0.7" in Path("run/config.yaml").read_text()
    assert main(["plan", *mine]) == 0
    assert "5 of 6" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "override", ["+pipeline.base.objective.api_key=hunter2", "+api_key=hunter2", "pipeline.base={hf_token:hunter2}"]
)
def test_a_secret_on_the_command_line_reaches_no_file(override: str) -> None:
    assert main(["experiment=fake", override, "hydra.run.dir=run"]) == 1
    assert read_status(Path("run")) == "failed"
    written = "".join(f.read_text() for f in Path("run").rglob("*") if f.is_file())
    assert "hunter2" not in written


DOCUMENTS = ("README.md", "docs/write-a-plugin.md", "docs/architecture.md", "experiments/lifecycle/README.md")


def shown_to_readers() -> list[str]:
    """Every command that documents and help show, but for those with a place for something of the reader's own."""
    texts = [*((ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS), help.TEXT]
    shown = re.compile(r"alignlab (?:-m |plan )?experiment=[^`#\n]+?(?=  |[`#\n]|$)")
    found = {command.strip() for text in texts for command in shown.findall(text)}
    return sorted(c for c in found if not re.search(r"FOLDER|FILE|NAME|POLICY|RUN|hinge|[{(…<]", c))


@pytest.mark.parametrize("command", shown_to_readers())
def test_every_command_that_readers_are_shown_composes(command: str) -> None:
    words = [word for word in shlex.split(command)[1:] if word != "plan"]
    for file in (word.partition("=")[2] for word in words if word.startswith("data.")):
        Path(file).touch()
    assert main(["plan", *words]) == 0


def test_the_readers_commands_were_found() -> None:
    assert len(shown_to_readers()) >= 6 and any("objective=ipo" in command for command in shown_to_readers())


def test_a_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=troubled", "pipeline.trouble.how=bug", "hydra.run.dir=run"]) == 1
    assert "Traceback" in (error := capsys.readouterr().err) and "RuntimeError: a bug" in error
    assert read_status(Path("run")) == "failed"


def test_sigterm_keeps_what_is_done_and_exits_with_143(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=troubled", "pipeline.trouble.how=sigterm", "hydra.run.dir=run"]) == 143
    assert read_status(Path("run")) == "preempted"
    assert list(json.loads(Path("run/manifest.json").read_text())["stages"]) == ["base"]
    assert "Traceback" not in capsys.readouterr().err


# ---- sweeps ----------------------------------------------------------------------------------------------------------
def test_a_sweep_computes_what_is_shared_once() -> None:
    assert main(["-m", "experiment=fake", "pipeline.tuned.objective=weighing,counting", "hydra.sweep.dir=sweep"]) == 0
    cached = [
        {n for n, s in json.loads(Path(f"sweep/{job}/manifest.json").read_text())["stages"].items() if s["cached"]}
        for job in (0, 1)
    ]
    assert cached == [set(), {"base", "label", "evaluate_base"}]


def test_a_job_that_fails_ends_neither_the_sweep_nor_silently(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "experiment=troubled", "pipeline.trouble.how=user,fine", "hydra.sweep.dir=sweep"]) == 1
    assert [read_status(Path(f"sweep/{job}")) for job in (0, 1)] == ["failed", "completed"]
    error = capsys.readouterr().err
    assert "failed" in error and "Traceback" not in error


def test_sigterm_ends_a_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "experiment=troubled", "pipeline.trouble.how=sigterm,fine", "hydra.sweep.dir=sweep"]) == 143
    assert not Path("sweep/1").exists()


def test_exit_code_and_message_reach_the_shell(installed: Path) -> None:
    done = child(installed, "experiment=fake", "pipeline.base.sise=1")
    assert done.returncode == 1
    assert done.stderr.startswith("alignlab: pipeline.base.sise: Make takes size, not sise\n")
