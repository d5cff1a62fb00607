"""The code of a class is part of what it makes: changed code is never answered with old results."""

import importlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_plugins import declare, write_package

from alignlab.cli.app import main
from alignlab.cli.prepared import prepare
from alignlab.cli.sweeps import launch, run
from alignlab.cli.sweeps.unchanged import check_unchanged, sources
from alignlab.config.check import parse
from alignlab.config.code import code_digest
from alignlab.config.compose import session
from alignlab.config.plugins import CONTRACT
from alignlab.errors import PipelineError

OBJECTIVE = '''"""An objective, with its parts."""

from dataclasses import dataclass
from typing import ClassVar

from odd_lab_code.parts import SCALE, margin

LIMIT = 3
UNUSED = 1


def helper(x: float) -> float:
    """Twice the number."""
    return 2 * x


@dataclass(frozen=True)
class Hinge:
    """A loss."""

    VERSION: ClassVar[str] = "1"
    beta: float = 0.1

    def __call__(self, x: float) -> float:
        # The sign is what matters.
        return max(0.0, LIMIT - self.beta * margin(helper(x)) * SCALE)
'''
PARTS = '''"""Parts."""

SCALE = 1.0


def margin(x: float) -> float:
    return x - 1


def other(x: float) -> float:
    return x
'''
STAGE = '''"""A stage."""

from typing import ClassVar

from alignlab.stage import Stage
from odd_lab_code.objective import Hinge


class Train(Stage):
    """Trains nothing."""

    VERSION: ClassVar[str] = "1"
    PRODUCES: ClassVar[str] = "other"

    def __init__(self, *, objective: Hinge, inputs: dict[str, str] | None = None, seed: int = 0) -> None:
        super().__init__(inputs, seed)
        self.objective = objective

    def run(self, inputs, context):
        (context.folder / "made.txt").write_text("made")
        return {"loss": self.objective(1.0)}
'''
EXPERIMENT = """# @package _global_
# Odd.
defaults:
  - /stage@pipeline.train: odd
  - /stage@pipeline.other: odd_other
  - _self_
  - override /tracking: "off"
  - override /runtime: cpu
name: odd
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin of several modules, installed; its folder."""
    monkeypatch.syspath_prepend(declare(tmp_path, "odd", "odd_lab_code"))
    init = f"from odd_lab_code.objective import Hinge\nfrom odd_lab_code.stage import Train\nCONTRACT = {CONTRACT}\n"
    stage = (
        "# Odd.\n_target_: odd_lab_code.Train\ninputs: {}\nseed: ${seed}\nobjective: {_target_: odd_lab_code.Hinge}\n"
    )
    other = "# Other.\n_target_: alignlab.report.Report\nexperiment: odd\ninputs: {}\n"
    options = {"stage__odd": stage, "stage__odd_other": other, "experiment__odd": EXPERIMENT}
    write_package(tmp_path, "odd_lab_code", init, **options)
    for name, text in (("objective", OBJECTIVE), ("parts", PARTS), ("stage", STAGE)):
        (tmp_path / "odd_lab_code" / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    forget(monkeypatch)
    return tmp_path / "odd_lab_code"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process would: the package is imported again from its files."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "odd_lab_code"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()


def change(file: Path, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 2_000_000_000))  # for caches of byte code
    forget(monkeypatch)


def digest() -> str:
    return code_digest(parse({"_target_": "odd_lab_code.Hinge"}, "x").cls)


@pytest.mark.parametrize(
    ("file", "old", "new", "matters"),
    [
        ("objective.py", "LIMIT - self.beta", "LIMIT + self.beta", True),
        ("objective.py", "LIMIT = 3", "LIMIT = 4", True),
        ("objective.py", "return 2 * x", "return 3 * x", True),
        ("objective.py", "beta: float = 0.1", "beta: float = 0.2", True),
        ("objective.py", "import SCALE, margin", "import SCALE, other as margin", True),
        ("parts.py", "return x - 1", "return x + 1", True),
        ("parts.py", "SCALE = 1.0", "SCALE = 2.0", True),
        ("parts.py", '"""Parts."""', '"""Parts."""\nSETTINGS = {}\nSETTINGS["x"] = 1\nfor _ in (): pass', True),
        ("objective.py", "# The sign is what matters.", "# Nothing to see here.", False),
        ("objective.py", '"""A loss."""', '"""A hinge loss."""', False),
        ("objective.py", '"""Twice the number."""', '"""Double."""\n', False),
        ("objective.py", "UNUSED = 1", "UNUSED = 2", False),
        ("objective.py", "max(0.0, LIMIT", "max(\n            0.0,\n            LIMIT", False),
        ("parts.py", "    return x\n", "    return 2 * x\n", False),
    ],
)
def test_what_counts_as_a_change(
    file: str, old: str, new: str, matters: bool, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest()
    assert len(before) == 64
    change(package / file, old, new, monkeypatch)
    assert (digest() != before) is matters


def test_a_definition_may_move_inside_its_package(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest()
    (package / "losses.py").write_text((package / "objective.py").read_text())
    (package / "objective.py").write_text("from odd_lab_code.losses import Hinge\n")
    change(package / "__init__.py", "odd_lab_code.objective", "odd_lab_code.losses", monkeypatch)
    assert digest() == before


def test_the_code_that_a_process_has_imported_counts_whatever_is_in_the_file_by_now(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep may run for hours, and ask for a class for the first time after somebody has edited its file."""
    before = digest()
    forget(monkeypatch)
    code_digest(parse({"_target_": "odd_lab_code.Train", "objective": {"_target_": "odd_lab_code.Hinge"}}, "x").cls)
    text = (package / "objective.py").read_text()
    (package / "objective.py").write_text(text.replace("LIMIT - self.beta", "LIMIT + self.beta"))
    assert digest() == before


def test_a_job_that_begins_after_its_code_has_changed_is_refused(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a process that a launcher starts hours later would: it plans the job again, from the files as they are."""

    def later(hydra: Any, cfg: Any, task: Any, jobs: Any) -> None:
        task.prepared.clear()
        change(package / "objective.py", "LIMIT - self.beta", "LIMIT + self.beta", monkeypatch)
        launch.launch(hydra, cfg, task, jobs)

    monkeypatch.setattr(run, "launch", later)
    assert main(["-m", "experiment=odd", "seed=0,1", "hydra.sweep.dir=sweep"]) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "job 0: changed since this sweep began: the code of train." in error
    assert "sweep.resume=true" in error and not list(Path(".alignlab").glob("objects/*"))


def test_so_is_one_whose_data_have_changed(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    overrides = ["experiment=train", "stage=pretrain", "data=files", f"data.corpus={corpus}", "tokenizer=bpe"]

    def planned(*lines: str) -> Any:
        corpus.write_text("".join(f'{{"text": "{line}"}}\n' for line in lines))
        with session(overrides) as hydra:
            return prepare(hydra.compose(overrides), overrides).steps

    record = {"reads": sources(planned("a cat sat", "a dog ran"))}
    check_unchanged(record, planned("a cat sat", "a dog ran"))
    with pytest.raises(PipelineError, match=r"changed since this sweep began: data\."):
        check_unchanged(record, planned("a cat sat", "a dog slept"))


def test_a_base_class_counts_and_so_does_one_of_alignlabs(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alignlab.config import code

    cls = parse({"_target_": "odd_lab_code.Train", "objective": {"_target_": "odd_lab_code.Hinge"}}, "x").cls
    texts = [text for base in cls.__mro__[:2] for text in code._slice(base)]
    assert any("name='Train'" in text for text in texts) and any("name='Stage'" in text for text in texts)


def test_classes_of_others_have_no_digest() -> None:
    assert code_digest(dict) == code_digest(Path) == ""


def plan(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", "experiment=odd", "--json", *more]) == 0
    return {stage["name"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}


def test_a_flipped_sign_is_trained_again_and_the_class_is_named(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its VERSION was not raised."""
    assert main(["experiment=odd", "hydra.run.dir=run"]) == 0
    assert json.loads(Path("run/metrics.json").read_text())["train/loss"] == pytest.approx(2.9)
    assert plan(capsys)["train"]["cached"] is True
    change(package / "objective.py", "LIMIT - self.beta", "LIMIT + self.beta", monkeypatch)
    shown = plan(capsys)
    assert shown["train"]["cached"] is False and shown["train"]["changed"] == ["odd_lab_code.Hinge"]
    assert shown["other"]["cached"] is False and shown["other"]["changed"] == [], "its input has changed, not its code"
    assert main(["plan", "experiment=odd"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "train: the code of odd_lab_code.Hinge has changed since it last ran" in said
    assert main(["experiment=odd", "hydra.run.dir=again"]) == 0
    shown_to_reader = " ".join("".join(capsys.readouterr()).split())
    assert re.search(r"train: runs again, because the code of odd_lab_code\.Hinge has changed", shown_to_reader)
    assert json.loads(Path("again/metrics.json").read_text())["train/loss"] == pytest.approx(3.1)
    change(package / "objective.py", "LIMIT + self.beta", "LIMIT - self.beta", monkeypatch)
    assert plan(capsys)["train"]["cached"] is True, "the old code's result is still there"
