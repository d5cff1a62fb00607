"""A folder of options that somebody else wrote runs no code, and reads no secret."""

from pathlib import Path

import pytest

from alignlab.cli.app import main

pytestmark = pytest.mark.usefixtures("fakes_here")


@pytest.mark.parametrize(
    "hydra",
    [
        "callbacks: {x: {_target_: os.system, command: 'touch trap'}}",
        "callbacks: {x: {_target_: hydra.core.utils.os.system, command: 'touch trap'}}",
        "callbacks: {x: '${evil}'}\nevil: {_target_: os.system, command: 'touch trap'}",
        "job_logging: {handlers: {console: {'()': os.system, command: 'touch trap'}}}",
        "job_logging: {handlers: {console: {class: logging.os.system, command: 'touch trap'}}}",
        "job_logging: {handlers: {own: {class: logging.FileHandler, filename: trap}}, root: {handlers: [own]}}",
        "mode: MULTIRUN\n  sweeper: {params: {hydra/job_logging: evil}}",
        "mode: MULTIRUN\n  sweeper: {params: {'+hydra.callbacks.x._target_': os.system}}",
        "launcher: {_target_: os.system}",
        "sweeper: {_target_: os.system}",
        "sweeper: {custom_search_space: os.system}",
        "job: {env_set: {PATH: /tmp}}",
        "job: {env_copy: [SECRET]}",
        "job: {chdir: true}",
        "output_subdir: trap",
        "verbose: true",
        "run: {dir: 'runs/${oc.env:SECRET}'}",
    ],
)
@pytest.mark.parametrize("flags", [["-cd", "conf"], ["-m", "--config-dir", "conf"]], ids=["run", "sweep"])
def test_somebody_elses_folder_cannot_run_code_through_hydra(
    hydra: str, flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    Path("conf/experiment").mkdir(parents=True)
    head = '# @package _global_\ndefaults: [fake, {override /tracking: "off"}]\nhydra:\n  '
    Path("conf/experiment/evil.yaml").write_text(head + hydra)
    Path("conf/hydra/job_logging").mkdir(parents=True)
    evil = "# @package hydra.job_logging\nhandlers: {console: {'()': os.system, command: 'touch trap'}}\n"
    Path("conf/hydra/job_logging/evil.yaml").write_text(evil)
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


@pytest.mark.parametrize("key", ["name", "store_dir"])
def test_somebody_elses_folder_cannot_read_the_environment(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    Path("conf/experiment").mkdir(parents=True)
    text = f"# @package _global_\ndefaults: [fake]\n{key}: ${{oc.env:SECRET}}\n"
    Path("conf/experiment/evil.yaml").write_text(text)
    for command in ([], ["plan"], ["-m"]):
        assert main([*command, "-cd", "conf", "experiment=evil", "hydra.run.dir=run", "hydra.sweep.dir=sweep"]) == 1
        error = capsys.readouterr().err
        assert f"{key}: a folder given by --config-dir may not read environment variables" in error
        assert "hunter2" not in error
    assert [f.name for f in tmp_path.iterdir()] == ["conf"]


def test_what_a_folder_may_set_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    Path("conf/experiment").mkdir(parents=True)
    hydra = (
        "hydra: {run: {dir: 'mine/${name}'}, sweep: {dir: swept, subdir: '${seed}'}, sweeper: {params: {seed: '0,1'}}}"
    )
    Path("conf/experiment/good.yaml").write_text(f"# @package _global_\ndefaults: [fake]\nname: good\n{hydra}\n")
    assert main(["-cd", "conf", "experiment=good"]) == 0
    assert Path("mine/good/metrics.json").is_file()
    assert main(["-m", "-cd", "conf", "experiment=good", "+hydra.job.env_set.MINE=1"]) == 0
    assert {f.name for f in Path("swept").iterdir() if f.name.isdigit()} == {"0", "1"}
