"""docs/examples: each shows the whole of a method in one short file, runs in seconds, and learns."""

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_dpo import DPO
from test_layers import core_files, imports

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
LONGEST = {"dpo_in_one_file.py": 40, "ppo_in_one_file.py": 90}
WITHOUT = {"hydra", "omegaconf", "pytorch_lightning"}


def run(name: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], list[list[float]], str]:
    """Run an example: its names, the numbers of each line that it printed, and the last line."""
    torch.manual_seed(0)
    names = runpy.run_path(str(EXAMPLES / name))
    lines = capsys.readouterr().out.splitlines()
    numbers = [[float(n) for n in re.findall(r"-?\d+\.\d+", line)] for line in lines]
    return names, [row for row in numbers if row], lines[-1]


def test_every_example_is_tested_and_short() -> None:
    assert {f.name for f in EXAMPLES.glob("*.py")} == LONGEST.keys()
    for name, longest in LONGEST.items():
        assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= longest, name


@pytest.mark.parametrize("name", LONGEST)
def test_an_example_needs_no_hydra_no_lightning_and_no_stage(name: str) -> None:
    seen: set[Path] = set()
    todo = [EXAMPLES / name]
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            assert not {n.partition(".")[0] for n in imports(file, top_only=True)} & WITHOUT, file
            todo += core_files(file, top_only=True)
    assert not re.search(r"\w*Stage\b", ast.unparse(ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))))


def test_dpo_starts_at_log_two_and_its_loss_is_the_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    names, lines, _ = run("dpo_in_one_file.py", capsys)
    assert len(lines) == 30 and lines[0] == [0.6931, 0.0]
    losses = [loss for loss, _ in lines]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.45 and lines[-1][1] > 5
    batch, stats = names["batch"], names["stats"]
    ours, theirs = (o(stats(batch), batch).terms["loss"].detach() for o in (names["objective"], DPO(beta=0.1)))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_ppo_starts_on_the_reference_and_learns_to_say_tea(capsys: pytest.CaptureFixture[str]) -> None:
    names, lines, last = run("ppo_in_one_file.py", capsys)
    assert len(lines) == 30 and lines[0][1] == 0.0 and lines[0][0] < 0.1
    assert sum(reward for reward, _ in lines[-5:]) / 5 > 0.5
    assert last == "greedy answer: tea"
    assert set(names["rollouts"].per_token) == {"old_logp", "reference_logp", "advantage", "returns"}
