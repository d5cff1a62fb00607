"""`alignlab verify`: where methods end, from the command line."""

import json
from pathlib import Path

import pytest

from alignlab.cli.app import main


def test_an_objective_is_verified_at_its_own_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "verdict.json"
    assert main(["verify", "objective=dpo", "objective.beta=0.5", "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text(encoding="utf-8"))
    assert found["declared"] == "Tilted(beta=0.5)" and found["reached"] and found["distance"] < 1e-6 < found["start"]
    shown = capsys.readouterr().out
    assert "objective=dpo" in shown and "Tilted(beta=0.5)" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_stage_brings_its_advantage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "stage=rloo", "stage.advantage.beta=0.5", "stage.advantage.missing_eos_penalty=0.0"]) == 0
    assert "Tilted(beta=0.5)" in capsys.readouterr().out
    assert main(["verify", "objective=reinforce"]) == 0
    assert "none known" in capsys.readouterr().out


def test_a_loss_on_any_batch_is_verified_on_that_of_its_stage(tmp_path: Path) -> None:
    out = tmp_path / "verdict.json"
    assert main(["verify", "stage=on_policy_distill", "objective=mixed_kl", "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text(encoding="utf-8"))
    assert found["declared"] == "Taught()" and found["distance"] < 1e-6 < found["start"]


def test_what_cannot_be_trained_fails_by_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "stage=ppo", "advantage=leave_one_out"]) == 1
    assert "1 of 1 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to verify"),
        (["objectiv=dpo"], "did you mean objective?"),
        (["objective=dop"], "objective/dop"),
        (["objective=dpo", "objective.bta=1"], "DPO takes beta, not bta"),
        (["objective=dpo", "objective.beta=-1"], "beta must be > 0"),
        (["stage=label"], "has no objective"),
        (["stage=dpo", "seed=3"], "seed: there is nothing to set but"),
        (["--nope"], "--help"),
    ],
)
def test_mistakes_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *words]) == 1
    assert message in capsys.readouterr().err
