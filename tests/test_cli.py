"""The command: verbs, help, runs, sweeps, exit codes and messages. In process where it can be, for the sake of time."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_plugins import FAKES, python_path

from alignlab.cli import help
from alignlab.cli.app import main
from alignlab.pipeline.run_folder import read_status, status_of

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


def test_help_names_verbs_and_experiments(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([]) == main(["--help"]) == main(["experiment=fake", "-h"]) == 0
    text = capsys.readouterr().out
    for word in ("plugins", "plan", "chat", "lifecycle", "fake", "--multirun"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 80, "in the width of the terminal"


def test_an_unknown_verb_is_refused_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plann"]) == 1
    commands = "agreement, chat, compare, doctor, export, gc, plan, plugins, prepare, report, runs, score, verify"
    said = f"alignlab: unknown command 'plann' (commands: {commands}); did you mean plan?\n"
    assert capsys.readouterr().err == said


def test_plugins_lists_every_option_with_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    listing = {p["package"]: p for p in json.loads(capsys.readouterr().out)}
    fakes = listing["lab_fakes"]
    assert (fakes["plugin"], fakes["distribution"], fakes["version"]) == ("fakes", "fakes", "1.0")
    option = next(o for o in fakes["options"] if o["option"] == "objective=weighing")
    assert option["parameters"] == {"beta": 0.1}
    assert option["comments"]["beta"] == "price, per nat; 0.05 to 0.5 is usual"
    stage = next(o for o in fakes["options"] if o["option"] == "stage=make")
    assert stage["uses"] == ["objective=weighing"] and stage["class"] == "lab_fakes.Make"
    assert {"alignlab", "alignlab_dpo", "alignlab_raters"} <= listing.keys()


def test_a_comment_belongs_to_the_key_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Two keys of one option may have the same last name: `inputs.reward` and `reward`."""
    assert main(["plugins", "grpo"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (given,) = {line for line in lines if line.startswith("inputs.reward: reward_model")}
    assert given.endswith("# a reward model; may be left out where `reward` is given")
    assert "reward: null   # a reward source; null takes the input `reward`" in lines


def test_an_input_that_is_not_there_is_named_as_it_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "experiment=train", "stage=sft", "stage.inputs.policy=nowhere"]) == 1
    message = capsys.readouterr().err
    assert "stage.inputs.policy: 'nowhere' is neither" in message and "set stage.inputs.policy=FOLDER" in message


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
    assert manifest["overrides"] == ["experiment=fake", "pipeline.tuned.objective=counting", "seed=3"], "as typed"
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
        (
            ["experiment=fake", "pipeline.base.inputs.policy=tuned"],
            "dependency cycle: tuned -> base -> tuned; remove one of",
        ),
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
def test_every_command_that_readers_are_shown_composes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignlab.models.hub.commit_of", lambda name, revision: "of a hub that is not asked")
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


@pytest.mark.parametrize(
    ("how", "message"),
    [("exit", "a stage has called exit(3)"), ("unread", "its output was closed"),
     ("unread by rich", "its output was closed")],
)  # fmt: skip
def test_a_run_that_leaves_is_failed(how: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It was marked as running for ever, and `alignlab ... | head` said nothing."""
    assert main(["experiment=troubled", f"pipeline.trouble.how={how}", "hydra.run.dir=run"]) == 1
    assert message in (error := capsys.readouterr().err) and "Traceback" not in error
    assert read_status(Path("run")) == "failed" and message in str(status_of(Path("run"))["error"])


def test_a_run_whose_folder_is_moved_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def moved(*_: Any) -> dict[str, float]:
        Path("run").rename("archive")
        return {}

    monkeypatch.setattr("lab_fakes.Prefer.run", moved)
    assert main(["experiment=fake", "hydra.run.dir=run"]) == 1
    error = capsys.readouterr().err
    assert "the run's folder was moved or removed while it ran" in error and "Traceback" not in error


def test_sigterm_keeps_what_is_done_and_exits_with_143(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=troubled", "pipeline.trouble.how=sigterm", "hydra.run.dir=run"]) == 143
    assert read_status(Path("run")) == "preempted"
    assert list(json.loads(Path("run/manifest.json").read_text())["stages"]) == ["base"]
    assert "Traceback" not in capsys.readouterr().err


# ---- the terminal ----------------------------------------------------------------------------------------------------
def test_something_is_shown_before_anything_slow_is_imported(installed: Path) -> None:
    slow = {*HEAVY, "hydra", "rich"}
    code = (
        "import sys\nfrom alignlab.cli import app\n"
        f"def heavy(*_): print('heavy:', sorted({slow!r} & sys.modules.keys())); raise SystemExit\n"
        "import alignlab.cli.commands as commands\n"
        "commands.run = heavy\napp.main(['plan', 'experiment=fake', '+api_key=hunter2'])"
    )
    environment = {**os.environ, "PYTHONPATH": python_path(installed, FAKES)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    first, second = done.stdout.splitlines()
    assert first.startswith("alignlab ") and first.endswith(": plan experiment=fake +api_key=<redacted>")
    assert second == "heavy: []"


@pytest.mark.parametrize("width", [80, 60, 100])
def test_no_name_of_a_plan_is_broken(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["plan", "experiment=lifecycle"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("stage ")) : -1]
    assert all(len(line.rstrip()) <= width for line in table)
    for name in ("evaluate_pretrain", "reward_model", "missing"):
        assert any(name in line for line in table), name
    names = [re.sub("[├└│─ ]", " ", line).split()[0] for line in table[1:]]
    assert names[:3] == ["pretrain", "sft", "label"] and len(set(names)) == 12, "eleven stages and a shared part"


def test_plugins_shows_one_line_for_each_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines].count("objective=weighing") == 1
    assert all("=" in line.split()[0] for line in lines) and not any("beta" in line.split()[0] for line in lines)
    assert any(line.split()[0] == "experiment=lifecycle" for line in lines)


def test_exit_code_and_message_reach_the_shell(installed: Path) -> None:
    done = child(installed, "experiment=fake", "pipeline.base.sise=1")
    assert done.returncode == 1
    assert done.stderr.startswith("alignlab: pipeline.base.sise: Make takes size, not sise\n")
