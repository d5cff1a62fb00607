"""Stages that several processes train, whole or split among them: what one process learns, and from its checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_training import CASES, MODES, resume, train
from together import run_together

from alignlab.artifact import Artifact
from alignlab.testing import tiny_policy_artifact

PAIRS = [(a, b) for a in ("one", *MODES) for b in ("one", *MODES)]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("made")
    tiny_policy_artifact(folder / "teacher", seed=1)
    return tiny_policy_artifact(folder / "policy")


def check(cases: list[str], policy: Artifact, root: Path) -> None:
    """Train every case as one process and as two, in each mode, whole and killed and resumed in any other mode."""
    for case in cases:
        train(case, policy.path, root / case / "whole-one", "one")
        train(case, policy.path, root / case / "killed-one", "one", dies=True)
    run_together(Path(__file__).with_name("distributed_training.py"), policy.path, root, ",".join(cases), timeout=900)
    for case in cases:
        for first in ("one", *MODES):
            resume(root, case, policy.path, first, "one")
        whole = {mode: learnt(root / case / f"whole-{mode}") for mode in ("one", *MODES)}
        for mode in MODES:
            assert apart(whole[mode], whole["one"]) < 1e-5, f"{case} as {mode}"
        for first, then in PAIRS:
            found = learnt(root / case / f"{first}-{then}")
            distance = apart(found, whole[then])
            assert distance < 1e-5 and (first != then or distance == 0), f"{case}: {first} then {then}: {distance}"


def learnt(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "learnt.pt", weights_only=True))


def apart(a: dict[str, Any], b: dict[str, Any]) -> float:
    """The largest difference of a weight, where the metrics agree."""
    assert a["learnt"].keys() == b["learnt"].keys() and a["metrics"] == pytest.approx(b["metrics"], rel=1e-3, abs=1e-4)
    return max(float((a["learnt"][k] - b["learnt"][k]).abs().max()) for k in a["learnt"])


@pytest.mark.slow
@pytest.mark.parametrize("cases", [["dpo"]])
def test_two_processes_learn_what_one_learns_and_continue_its_checkpoints(
    cases: list[str], policy: Artifact, tmp_path: Path
) -> None:
    check(cases, policy, tmp_path)
    for mode in MODES:  # the seal is looked at before any process reads a checkpoint
        again = tmp_path / "dpo" / f"damaged-{mode}"
        assert (again / "work" / "last.damaged").is_file()
        assert apart(learnt(again), learnt(tmp_path / "dpo" / f"whole-{mode}")) == 0


_OTHERS = [case for case in CASES if case != "dpo"]


@pytest.mark.slow
@pytest.mark.parametrize("cases", [_OTHERS[:6], _OTHERS[6:11], _OTHERS[11:]], ids=lambda cases: "-".join(cases))
def test_so_do_they_in_every_regime(cases: list[str], policy: Artifact, tmp_path: Path) -> None:
    check(cases, policy, tmp_path)
