"""`alignlab export`: a whole model is copied, an adapter keeps its base or is merged, other things are refused."""

import errno
import functools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from adapter_cases import adapted, logp

from alignlab.artifact import Artifact
from alignlab.cli import export
from alignlab.cli.app import main
from alignlab.policy import Policy, base_dtype
from alignlab.testing import tiny_policy, tiny_preferences_artifact


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a base, an adapter of it, and preferences."""
    base = tmp_path / "base"
    base.mkdir()
    tiny_policy().cast(torch.bfloat16).save(base)
    (base / "samples.jsonl").write_text("{}\n")
    artifacts = [Artifact.open(base), tiny_preferences_artifact(tmp_path / "label")]
    artifacts.append(adapted(artifacts[0], tmp_path / "dpo"))
    stages = {a.path.name: {"order": i, "kind": a.kind, "artifact": str(a.path)} for i, a in enumerate(artifacts)}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"stages": stages}))
    return folder


def exported(run: Path, stage: str, *flags: str) -> Path:
    folder = run.parent / "out" / stage
    assert main(["export", str(run), stage, str(folder), *flags]) == 0
    return folder


@pytest.mark.parametrize(
    "content", ["[]", '{"stages": {"base": 5}}', '{"stages": {"base": {"order": []}}}', "[" * 10**5]
)
def test_a_damaged_manifest_of_a_run_is_named(content: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "manifest.json").write_text(content)
    assert main(["export", str(run), "base", str(run.parent / "out")]) == 1
    assert "manifest.json is not a run's manifest, or is damaged" in capsys.readouterr().err


def test_a_whole_model_is_copied_without_what_tells_how_it_was_made(run: Path) -> None:
    base, folder = run.parent / "base", exported(run, "base")
    names = {f.name for f in folder.iterdir()}
    assert [f.name for f in folder.parent.iterdir()] == ["base"], "nothing is left beside it"
    assert names == {f.name for f in base.iterdir()} - {"samples.jsonl"}
    assert all((folder / name).read_bytes() == (base / name).read_bytes() for name in names)


def test_an_export_has_its_name_once_it_is_whole(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever is killed on the way has not written the folder; on a full disk nothing is left."""
    folder, begun = run.parent / "out" / "base", list[bool]()

    def full(source: str, *_: Any, **__: Any) -> None:
        begun.append(folder.exists())
        raise OSError(errno.ENOSPC, "No space left on device")

    copytree = functools.partial(shutil.copytree, copy_function=full)
    monkeypatch.setattr(export, "shutil", SimpleNamespace(**{**vars(shutil), "copytree": copytree}))
    assert main(["export", str(run), "base", str(folder)]) == 1
    error = capsys.readouterr().err
    assert f"{folder} cannot be written" in error and "No space left" in error
    assert begun and not any(begun) and not list(folder.parent.iterdir())
    monkeypatch.undo()
    folder.mkdir()
    assert exported(run, "base") == folder, "an empty folder is taken"


def test_an_adapter_is_written_with_its_base(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = exported(run, "dpo")
    assert f"an adapter of {run.parent / 'base'} (--merge writes a whole model)" in capsys.readouterr().out
    assert torch.equal(logp(folder), logp(run.parent / "dpo"))
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        run.parent / "base"
    )


def test_a_merged_adapter_has_the_type_of_its_base(run: Path) -> None:
    folder = exported(run, "dpo", "--merge")
    assert base_dtype(run.parent / "dpo") == torch.bfloat16
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16
    torch.testing.assert_close(logp(Policy.load(folder)), logp(run.parent / "dpo"), atol=0.05, rtol=0.05)


def test_what_cannot_be_exported_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in [
        (["label", "new"], "made a preferences; only a policy or a reward_model can be exported"),
        (["sft", "new"], "'sft' is not a stage of"),
        (["dpo", str(run)], f"{run} is not empty; name a new folder"),
    ]:
        assert main(["export", str(run), *arguments]) == 1
        assert message in capsys.readouterr().err
