"""The pages that write a plugin each: their packages are written out, tested, planned, and trained with."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import docs_pages
import pytest
import yaml
from fake_plugins import declare, python_path

from alignlab import training
from alignlab.cli import main
from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact

NAMES = {
    "write-a-stage.md": "imitate",
    "write-a-reward.md": "brevity",
    "write-a-judge.md": "shorter",
    "write-an-advantage.md": "win_rate",
    "write-an-evaluation.md": "variety",
}
"""Name of each page's package, without `alignlab_`."""
SMALL = ["tracking=off", "runtime=cpu", "stage.loop.steps=2", "stage.loop.batch_size=2", "stage.loop.validate_every=2"]
FEW = ["data.entities=8", "data.unknown=2", "data.relations=2", "data.training_instructions=40"]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each page's package as files."""
    folder = tmp_path_factory.mktemp("pages")
    return {page: docs_pages.write(page, folder / name, name) for page, name in NAMES.items()}


@pytest.fixture(scope="module")
def site(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds all of them, with the entry points that their project files state."""
    folder = tmp_path_factory.mktemp("site")
    for project in projects.values():
        stated = tomllib.loads((project / docs_pages.PROJECT).read_text(encoding="utf-8"))["project"]
        for name, package in stated["entry-points"]["alignlab.plugins"].items():
            declare(folder, name, package, stated["version"])
            shutil.copytree(project / package, folder / package)
    return folder


@pytest.fixture(scope="module")
def outcomes(projects: dict[str, Path], site: Path) -> dict[str, list[ElementTree.Element]]:
    """The test cases of each page, run in one process."""
    report = site / "report.xml"
    folders = [str(project / "tests") for project in projects.values()]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "--continue-on-collection-errors",
        f"--junitxml={report}",
        *folders,
    ]
    environment = {**os.environ, "PYTHONPATH": python_path(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, timeout=300)
    assert report.is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    cases = list(ElementTree.parse(report).iter("testcase"))
    tests = {page: {f.stem for f in (project / "tests").glob("test_*.py")} for page, project in projects.items()}
    return {page: [c for c in cases if c.get("classname", "").split(".")[-1] in tests[page]] for page in NAMES}


@pytest.fixture
def here(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, where the pages' plugins are installed."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [m for m in sys.modules if m.partition(".")[0].removeprefix("alignlab_") in NAMES.values()]:
        del sys.modules[name]


def on_tiny_models(words: list[str], folder: Path) -> list[str]:
    """A command line with its POLICY, PREFERENCES and REWARD_MODEL made, as far as it names them."""
    make = {
        "POLICY": lambda at: tiny_policy_artifact(at),
        "PREFERENCES": lambda at: tiny_preferences_artifact(at),
        "REWARD_MODEL": lambda at: tiny_policy_artifact(at, seed=1, scalar_head=True),
    }
    named = {m[1] for word in words if (m := re.search(r"=([A-Z_]+)$", word))}
    paths = {name: make[name](folder / name.lower()).path for name in named}
    return [re.sub(r"=([A-Z_]+)$", lambda m: f"={paths[m[1]]}", word) for word in words]


def body(code: str, name: str) -> int:
    """Lines of a class that are neither blank nor docstring."""
    (found,) = [n for n in ast.parse(code).body if isinstance(n, ast.ClassDef) and n.name == name]
    nodes = [n for n in ast.walk(found) if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    docs = [n.body[0] for n in nodes if ast.get_docstring(n)]
    hidden = {line for d in docs for line in range(d.lineno, (d.end_lineno or d.lineno) + 1)}
    lines = code.splitlines()
    return sum(bool(lines[i - 1].strip()) for i in range(found.lineno, (found.end_lineno or 0) + 1) if i not in hidden)


@pytest.mark.parametrize("page", NAMES)
def test_a_pages_own_tests_pass(page: str, outcomes: dict[str, list[ElementTree.Element]]) -> None:
    cases = outcomes[page]
    bad = {
        str(c.get("name")): (c.find(kind).text or "")[-1500:]
        for c in cases
        for kind in ("failure", "error")
        if c.find(kind) is not None
    }
    assert len(cases) > 5 and not bad


def test_an_offline_stage_takes_25_lines_and_an_online_one_15() -> None:
    shown = docs_pages.files("write-a-stage.md")
    assert body(shown["alignlab_imitate/offline.py"], "PreferredAnswers") <= 25
    assert body(shown["alignlab_imitate/online.py"], "BestOfN") <= 15


PLANNED = [(page, words) for page in NAMES for words in docs_pages.commands(page) if page != "write-a-stage.md"]


@pytest.mark.parametrize(("page", "words"), PLANNED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_pages_commands_are_right(
    page: str, words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [] if "experiment=smoke" in words else FEW
    planned = on_tiny_models([w for w in words if w != "plan"], here)
    assert main(["plan", *planned, *small]) == 0, capsys.readouterr().err
    wanted = [w.partition("=")[2] for w in words if w.startswith("stage=")] or ["label", "dpo", "report"]
    shown = capsys.readouterr().out
    assert all(stage in shown for stage in wanted), shown


@pytest.mark.parametrize("words", docs_pages.commands("write-a-stage.md"), ids=lambda words: str(words[1]))
def test_a_stage_of_the_page_trains(words: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    online = "imitate_best" in words[1]
    less = [
        "stage.prompts_per_rollout=2",
        "stage.samples_per_prompt=2",
        "stage.sampling.max_new_tokens=3",
        "stage.validation_prompts=2",
    ]
    command = [*on_tiny_models(words, here), *SMALL, *FEW, *(less if online else []), "hydra.run.dir=run"]
    assert main(command) == 0, capsys.readouterr().err
    found = json.loads((here / "run" / "metrics.json").read_text(encoding="utf-8"))
    stage = words[1].partition("=")[2]
    assert found[f"{stage}/steps"] == 2
    assert (f"{stage}/validation_reward" if online else f"{stage}/validation_loss") in found


def test_the_table_of_regimes_is_right() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", docs_pages.text("write-a-stage.md"), re.MULTILINE)
    assert {name for name, _ in rows} == {n for n in training.__all__ if n.endswith("Stage")} - {"TrainingStage"}
    for name, row in rows:
        regime = getattr(training, name)
        *_, reads, options = row.split("|")
        assert set(re.findall(r"`(\w+)`", reads)) == regime.PROVIDES, name
        for option in re.findall(r"`(\w+)`", options):
            (file,) = docs_pages.DOCS.parent.glob(f"plugins/*/conf/stage/{option}.yaml")
            package, _, cls = yaml.safe_load(file.read_text(encoding="utf-8"))["_target_"].rpartition(".")
            assert issubclass(getattr(importlib.import_module(package), cls), regime), option
