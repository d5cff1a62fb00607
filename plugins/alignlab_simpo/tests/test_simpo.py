"""SimPO against its closed form: means over tokens, a margin, and no reference anywhere."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_simpo import SimPO
from regimes import Counted, adam, loop, prepared, run
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.batch import PreferenceBatch
from alignlab.stats import TokenStats
from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact
from alignlab.training import PreferenceStage

NAN = float("nan")
CHOSEN, REJECTED = [-1.0, -2.0, -0.3], [-1.0, -3.0]  # -1.1 and -2 nats per token


def one_pair(prompt: int = 2) -> tuple[PreferenceBatch, Tensor]:
    """A chosen answer of three tokens and a rejected one of two; what is not scored is NaN."""
    rows = [[1] * prompt + [2, 3, 4], [1] * prompt + [5, 6]]
    masks = [[False] * prompt + [True] * 3, [False] * prompt + [True] * 2]
    logp = [*[NAN] * prompt, *CHOSEN, *[NAN] * prompt, *REJECTED]
    return PreferenceBatch.of(rows, masks), torch.tensor(logp, dtype=torch.float64)


def cost(objective: SimPO, batch: PreferenceBatch, logp: Tensor) -> tuple[Tensor, dict[str, float]]:
    found = objective(TokenStats({"logp": logp}), batch)
    return found.mean(objective.units(batch)), {k: float(m.value()) for k, m in found.metrics.items()}


def test_answers_of_unequal_length_are_compared_per_token() -> None:
    """Summed, the chosen answer (-3.3) beats the rejected one (-4) by 0.7; per token by 0.9."""
    found, metrics = cost(SimPO(beta=2.5, gamma=0.8), *one_pair())
    assert float(found) == pytest.approx(math.log(1 + math.exp(-(2.5 * 0.9 - 0.8))), abs=1e-14)
    assert metrics == pytest.approx({"margin": 0.9, "accuracy": 1.0}, abs=1e-14)


def test_the_margin_is_asked_of_equal_answers_too() -> None:
    batch, logp = one_pair()
    equal = torch.where(torch.isnan(logp), NAN, -1.5).double()
    found, metrics = cost(SimPO(beta=2.5, gamma=0.8), batch, equal)
    assert float(found) == pytest.approx(math.log(1 + math.exp(0.8)), abs=1e-14)
    assert metrics == {"margin": 0.0, "accuracy": 0.5}


@pytest.mark.parametrize("prompt", [1, 2, 7])
def test_the_length_of_the_prompt_changes_nothing(prompt: int) -> None:
    found, metrics = cost(SimPO(), *one_pair(prompt))
    expected, same = cost(SimPO(), *one_pair(2))
    assert torch.equal(found, expected) and metrics == same


def test_each_token_has_its_share_of_the_slope() -> None:
    batch, logp = one_pair()
    leaf = logp.clone().requires_grad_()
    loss, _ = cost(SimPO(beta=2.5, gamma=0.8), batch, leaf)
    (gradient,) = torch.autograd.grad(loss, leaf)
    slope = 2.5 / (1 + math.exp(2.5 * 0.9 - 0.8))
    assert gradient.tolist() == pytest.approx([0, 0, *[-slope / 3] * 3, 0, 0, *[slope / 2] * 2], abs=1e-14)


@pytest.mark.parametrize(("argument", "least"), [("beta", "> 0"), ("gamma", ">= 0")])
def test_arguments_that_cannot_work_are_refused(argument: str, least: str) -> None:
    with pytest.raises(ValueError, match=rf"SimPO: {argument} must be {least}, got -1\.0"):
        SimPO(**{argument: -1.0})


# ---- the stage ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("simpo")
    return {
        "policy": tiny_policy_artifact(folder / "policy"),
        "preferences": tiny_preferences_artifact(folder / "preferences"),
    }


def stage(**changes: Any) -> PreferenceStage:
    return PreferenceStage(objective=SimPO(), optimizer=adam(3e-3), loop=loop(**changes))


def test_no_reference_is_loaded_or_asked(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    ready = prepared(stage(), inputs, tmp_path)
    assert (counted.loads, counted.measured) == (1, [])
    assert ready.batch_at(0).per_token == {} == ready.validation_batches()[0].per_token


def test_a_reference_is_refused(inputs: dict[str, Artifact]) -> None:
    with pytest.raises(ValueError, match=r"PreferenceStage: SimPO does not use inputs\.reference; remove it"):
        stage().check_inputs(frozenset({*inputs, "reference"}))


def test_it_learns_to_prefer_the_chosen_answers_of_held_out_prompts(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    metrics, seen = run(stage(steps=20, batch_size=4, validate_every=20), inputs, tmp_path)
    assert metrics["validation_accuracy"] == 1.0
    assert metrics["validation_margin"] > seen.values("train/margin")[0] + 1
