"""Mistakes on the command line and in plugins: each is named, in one message that says what to write instead."""

from pathlib import Path

import pytest
from fake_plugins import declare, write_package

from alignlab import CONTRACT
from alignlab.cli.app import main

pytestmark = pytest.mark.usefixtures("fakes_here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fake"],
            "unknown command 'fake' (commands: agreement, chat, compare, doctor, export, gc, plan, plugins, prepare, "
            "report, runs, score, verify); "
            "an experiment is run by experiment=fake",
        ),
        (["make"], "; a single stage is run by experiment=train stage=make"),
        (["--experiment", "fake"], "--experiment: overrides are written without dashes: experiment=fake"),
        (["--experiment=fake"], "overrides are written without dashes: experiment=fake"),
        (["experiment=fake", "--pipeline.base.size", "3"], "written without dashes: pipeline.base.size=3"),
        (["experiment=fake", "--nothing"], "unrecognized arguments: --nothing"),
        (["plan", "experiment=fake", "--pipeline.base.size=3"], "written without dashes: pipeline.base.size=3"),
        (["plan", "experiment=fake", "--nothing"], "--nothing; `alignlab plan --help` lists the flags"),
        (["plugins", "--nothing"], "unrecognized arguments: --nothing; `alignlab plugins --help` lists the flags"),
        (["experiment=train", "objective=counting", "objective.beta=0.3"], "say for which stage, as in pipeline.NAME."),
        (["experiment=fake", "pipeline.base._target_=lab_fakse.Make"], "no package 'lab_fakse' is installed; did you"),
        (["experiment=fake", "pipeline.base._target_=lab_fakes.Mkae"], "lab_fakes has no 'Mkae'; did you mean Make?"),
        (["experiment=fake", "pipeline.base._target_=alignlab.evaluatoin.Evaluate"], "did you mean evaluation?"),
        (["experiment=troubled", "~pipeline.base"], "~pipeline.base: trouble would miss an input; remove what depends"),
    ],
)
def test_a_mistake_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and len(error.splitlines()) == 1


def test_an_experiment_may_be_chosen_with_a_plus() -> None:
    assert main(["+experiment=fake", "hydra.run.dir=run"]) == 0


def test_a_file_without_its_header_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/experiment").mkdir(parents=True)
    Path("conf/experiment/mine.yaml").write_text("# Mine.\nname: mine\npipeline: {}\n")
    assert main(["-cd", "conf", "experiment=mine"]) == 1
    assert "experiment=mine: the file of an experiment needs the line `# @package _global_`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "what", ["objective=stray", "pipeline.base.objective=stray", "pipeline.base._target_=stray_lab.Thing"]
)
def test_a_package_without_an_entry_point_is_told_which_line_is_missing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_package(tmp_path / "stray", "stray_lab", objective__stray="# Stray.\n_target_: stray_lab.Thing\n")
    monkeypatch.syspath_prepend(tmp_path / "stray")
    assert main(["experiment=fake", what]) == 1
    error = capsys.readouterr().err
    assert "stray_lab is not declared as a plugin" in error and 'entry-points."alignlab.plugins"' in error


def test_a_broken_plugin_stops_only_what_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, init in (("lacks", "CONTRACT = 0\n"), ("fails", f"CONTRACT = {CONTRACT}\nimport nowhere_at_all\n")):
        option = f"# Odd.\n_target_: odd_{name}.Thing\n"
        monkeypatch.syspath_prepend(declare(tmp_path / name, name, f"odd_{name}"))
        write_package(tmp_path / name, f"odd_{name}", init, **{f"objective__{name}": option})
    assert main(["experiment=fake", "hydra.run.dir=run"]) == 0
    assert main(["plan", "experiment=smoke"]) == 0
    for command in (["plugins"], ["--help"], ["plugins", "--json"]):
        capsys.readouterr()
        assert main(command) == 0
        shown = capsys.readouterr().out
        assert "plugin lacks (package odd_lacks" in shown and "imports nowhere_at_all, which is not installed" in shown
    assert main(["experiment=fake", "pipeline.base.objective=fails"]) == 1
    assert "importing odd_fails (plugin fails of fails 1.0) fails: ModuleNotFoundError: " in capsys.readouterr().err
    assert main(["experiment=fake", "pipeline.base.objective=lacks", "pipeline.base.objective.beta=0.2"]) == 1
    assert "objective=lacks: plugin lacks (package odd_lacks of lacks 1.0) was written for" in capsys.readouterr().err
