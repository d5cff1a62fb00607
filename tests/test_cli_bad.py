"""Bad input through the command: one clear message, exit code 1, no traceback, whichever way in it takes."""

import json
from pathlib import Path

import pytest

from alignlab.cli.app import main
from alignlab.pipeline.run_folder import read_status

pytestmark = pytest.mark.usefixtures("fakes_here")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one message of a command that must fail."""
    capsys.readouterr()
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("alignlab: ") and "Traceback" not in error
    assert len(error.splitlines()) <= 8, error
    return error


OVERRIDES = {
    "~pipeline.nope": "pipeline.nope",
    "hydra.foo=1": "foo",
    "pipeline=[1]": "pipeline",
    "pipeline='${seed}'": "pipeline: expected stages by name, got 0",
    "seed=-1": "seed: must be from 0",
    "seed=99999999999999999999999": "seed: must be from 0 to 2**63 - 1",
    "store_dir=''": "store_dir: is empty",
    "pipeline.base.objective.beta=nan": "pipeline.base.objective.beta: Weighing takes a finite number, not nan",
    "pipeline.base.objective.beta=-inf": "takes a finite number, not -inf",
    "runtime.precision=16-mixed": "runtime.precision: Runtime takes '32-true' or",
    "runtime.accelerator=tpu": "runtime.accelerator: Runtime takes 'auto' or 'cpu' or 'gpu'",
    "runtime.devices=0": "runtime: Runtime: devices must be >= 1, got 0",
    "runtime.threads=-1": "runtime: Runtime: threads must be >= 0",
    "pipeline.base.inputs.policy=''": "is neither a stage of this pipeline",
    "=3": "=3",
}


@pytest.mark.parametrize("override", OVERRIDES)
@pytest.mark.parametrize("verb", [[], ["plan"]], ids=["run", "plan"])
def test_an_override_that_cannot_be_is_one_message(
    verb: list[str], override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert OVERRIDES[override] in refused([*verb, "experiment=fake", override], capsys)


FILES = {
    "a key twice": ("seed: 1\nseed: 2\n", "is not YAML"),
    "an open bracket": ("pipeline: [\n", "is not YAML"),
    "a tab": ("pipeline:\n\tbase: 1\n", "is not YAML"),
    "not UTF-8": (b"# \xff\xfe\nseed: 1\n", "is not UTF-8"),
    "a number": ("42\n", "cannot be composed"),
    "itself": ("defaults: [mine]\n", ""),
    "an unknown default": ("defaults: [nowhere]\n", "nowhere"),
    "a stage named by a number": (
        "defaults: [fake]\npipeline: {3: {_target_: lab_fakes.Make}}\n",
        "3 cannot name a stage",
    ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verb", [[], ["plan"]], ids=["run", "plan"])
def test_a_file_of_options_that_is_none_is_one_message(
    verb: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = FILES[name]
    Path("conf/experiment").mkdir(parents=True)
    head = b"# @package _global_\n"
    Path("conf/experiment/mine.yaml").write_bytes(head + (content.encode() if isinstance(content, str) else content))
    assert message in refused([*verb, "--config-dir", "conf", "experiment=mine"], capsys)


def test_a_folder_of_options_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ([], ["plan"]):
        assert "nowhere" in refused([*verb, "--config-dir", "nowhere", "experiment=fake"], capsys)


@pytest.mark.parametrize(
    "where", ["store_dir=taken", "store_dir=/proc/x", "hydra.run.dir=taken", "hydra.run.dir=/proc/x"]
)
def test_a_folder_that_cannot_be_written_to(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("a file")
    assert where.partition("=")[2] in refused(["experiment=fake", where], capsys)


def test_flags_may_stand_between_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment=fake", "--cfg", "job", "pipeline.base.size=7"]) == 0
    assert "size: 7" in capsys.readouterr().out
    assert main(["plan", "experiment=fake", "-m", "seed=0,1"]) == 0


# ---- what lies in the store and in a run's folder --------------------------------------------------------------------
def finished() -> dict[str, str]:
    """The artifact's folder of each stage of a finished run."""
    assert main(["experiment=fake", "hydra.run.dir=run"]) == 0
    stages = json.loads(Path("run/manifest.json").read_text())["stages"]
    return {name: stage["artifact"] for name, stage in stages.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has lost its manifest.json"), ("[]", "is not an artifact's manifest"), ("{", "cannot be read")],
)
def test_a_damaged_manifest_is_named_before_anything_is_made_again(
    content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = Path(finished()["tuned"]) / "manifest.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    error = refused(["experiment=fake", "hydra.run.dir=again"], capsys)
    assert message in error and str(manifest.parent) in error


def test_a_runs_folder_links_what_it_made_and_is_no_input_itself(capsys: pytest.CaptureFixture[str]) -> None:
    made = finished()
    assert {link.name: str(link.resolve()) for link in Path("run/stages").iterdir()} == made
    alone = ["experiment=train", "stage=make", "tracking=off", "runtime=cpu", "stage.size=3", "hydra.run.dir=other"]
    assert main([*alone, "stage.inputs.policy=run/stages/base"]) == 0
    assert "its stages' artifacts" not in capsys.readouterr().err
    assert "run is a run's folder, not a stage's" in refused([*alone, "stage.inputs.policy=run"], capsys)


def test_what_an_earlier_run_left_in_the_same_folder_is_not_taken_for_this_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    finished()
    troubled = ["experiment=troubled", "~pipeline.trouble.inputs", "~pipeline.base", "hydra.run.dir=run"]
    refused(troubled, capsys)
    assert read_status(Path("run")) == "failed"
    assert sorted(f.name for f in Path("run").iterdir()) == ["config.yaml", "status.json"]


def test_a_folder_that_is_somebodys_own_keeps_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine/stages").mkdir(parents=True)
    for file in ("mine/stages/notes.txt", "mine/metrics.json"):
        Path(file).write_text("my own")
    refused(["experiment=troubled", "hydra.run.dir=mine"], capsys)
    refused(["experiment=troubled", "hydra.run.dir=mine"], capsys)  # now there is a status.json
    assert Path("mine/stages/notes.txt").read_text() == "my own"


def test_a_part_of_the_configuration_is_printed_as_a_run_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["experiment=lifecycle", "pipeline.dpo.objective=ipo", "--cfg", "job", "-p", "pipeline.dpo.objective"]
    assert main(asked) == 0
    assert capsys.readouterr().out == "_target_: alignlab_dpo.IPO\ntau: 0.1\n"


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\x1b" not in refused(["experiment=fake", "pipeline.base.objective=\x1b[31mred"], capsys)


# ---- tab completion --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        ("alignlab experiment=fake pipeline.base.objective=", "pipeline.base.objective=weighing", "_target_"),
        ("alignlab experiment=fake pipeline.base.objective=w", "pipeline.base.objective=weighing", "counting"),
        ("alignlab plan experiment=fa", "experiment=fake", "Error"),
        ("alignlab pl", "plan", "Error"),
    ],
)
def test_completion_offers_what_may_be_written(
    typed: str, offered: str, not_offered: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", typed)
    capsys.readouterr()
    main(["-sc", "query=bash"])
    shown = capsys.readouterr().out
    assert offered in shown.split() and not_offered not in shown


def test_completion_of_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMP_LINE", raising=False)
    assert main(["-sc", "query=bash"]) == 0
