"""docs/write-a-plugin.md, word for word: its files are written, installed, tested and trained with."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import docs_pages
import pytest
from fake_plugins import python_path

from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact

PAGE = "write-a-plugin.md"
SMALLER = [
    *(f"~pipeline.{s}" for s in ("reward_model", "ppo", "evaluate_pretrain", "evaluate_sft", "evaluate_ppo", "report")),
    *(f"pipeline.{s}.loop.steps=3" for s in ("pretrain", "sft", "dpo")),
    "pipeline.label.pairs=24",
    "pipeline.label.validation_pairs=8",
    "data.training_documents=400",
    "data.training_instructions=400",
]
"""Cuts a smoke run down to pretrain, sft, label, dpo and one evaluation, of three steps each."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the page, as files, and installed into `site` next to them."""
    pytest.importorskip("hatchling", reason="builds a package without fetching anything")
    folder = docs_pages.write(PAGE, tmp_path_factory.mktemp("third-party"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    run([*pip, "--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(folder)], folder)
    return folder


def run(command: list[str], folder: Path) -> str:
    """Run a command where the plugin is installed; its output."""
    environment = {**os.environ, "PYTHONPATH": python_path(folder / "site"), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def alignlab(words: list[str], folder: Path) -> str:
    return run([sys.executable, "-m", "alignlab", *words], folder)


def metrics(run_folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def test_the_page_holds_a_whole_package() -> None:
    assert sorted(docs_pages.files(PAGE)) == [
        "alignlab_hinge/__init__.py",
        "alignlab_hinge/conf/objective/hinge.yaml",
        "pyproject.toml",
        "tests/test_hinge.py",
    ]


def test_its_objective_is_short_and_imports_the_contract_alone() -> None:
    code = docs_pages.files(PAGE)["alignlab_hinge/__init__.py"]
    tree = ast.parse(code)
    (hinge,) = [n for n in tree.body if isinstance(n, ast.ClassDef)]
    assert sum((n.end_lineno or 0) - n.lineno + 1 for n in hinge.body[1:]) <= 12  # without its docstring
    froms = {n.module: {a.name for a in n.names} for n in tree.body if isinstance(n, ast.ImportFrom)}
    ours = {module: names for module, names in froms.items() if str(module).startswith("alignlab")}
    assert ours == {"alignlab": {"Loss", "Objective", "PreferenceBatch", "TokenStats"}}


def test_it_is_found_with_its_option_and_parameters(project: Path) -> None:
    shown = alignlab(["plugins", "hinge"], project)
    assert "alignlab_hinge" in shown and "beta" in shown and "0.1" in shown


def test_its_own_tests_pass(project: Path) -> None:
    shown = run([sys.executable, "-m", "pytest", "-q", "-W", "error", str(project / "tests")], project)
    assert re.search(r"^2\d passed", shown, re.MULTILINE) and "failed" not in shown, shown


def test_it_trains_alone(project: Path) -> None:
    (words,) = [c for c in docs_pages.commands(PAGE) if "experiment=train" in c]
    folders = {
        "POLICY": tiny_policy_artifact(project / "policy").path,
        "PREFERENCES": tiny_preferences_artifact(project / "preferences").path,
    }
    named = [re.sub(r"=(POLICY|PREFERENCES)$", lambda m: f"={folders[m[1]]}", word) for word in words]
    small = ["stage.loop.steps=3", "stage.loop.batch_size=4", "tracking=off", "runtime=cpu"]
    alignlab([*named, *small, "hydra.run.dir=alone"], project)
    found = metrics(project / "alone")
    assert found["dpo/steps"] == 3
    # Before it has learnt anything a policy is its own reference: the margin is 0 and a pair costs exactly 1.
    curves = next((project / ".alignlab").rglob("curves.jsonl")).read_text(encoding="utf-8").splitlines()
    first = next(row for row in map(json.loads, curves) if "train/loss" in row)
    assert first["step"] == 3 and 0 < first["train/loss"] <= 1.5
    assert "alignlab_hinge.Hinge" in (project / "alone" / "config.yaml").read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_trains_inside_a_lifecycle(project: Path) -> None:
    (words,) = [c for c in docs_pages.commands(PAGE) if "experiment=smoke" in c]
    alignlab([*words, *SMALLER, "hydra.run.dir=whole"], project)
    assert metrics(project / "whole")["dpo/steps"] == 3
    resolved = (project / "whole" / "config.yaml").read_text(encoding="utf-8")
    assert "alignlab_hinge.Hinge" in resolved and "beta: 0.2" in resolved
