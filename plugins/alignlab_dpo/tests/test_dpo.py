"""DPO and IPO against their closed forms; the stage starts where its reference is."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_dpo import DPO, IPO
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.batch import PreferenceBatch
from alignlab.data import preferences
from alignlab.data.records import Comparison, Prompt
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.objective import Objective
from alignlab.policy import Llama, Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.stats import TokenStats
from alignlab.training import AdamW, Cosine, Loop, PreferenceStage


def one_pair(reference: list[float]) -> PreferenceBatch:
    batch = PreferenceBatch.of([[1, 2, 3], [1, 4]], [[False, True, True], [False, True]])
    return batch.with_tokens(reference_logp=torch.tensor(reference))


def mean(objective: Objective[PreferenceBatch], now: TokenStats, batch: PreferenceBatch) -> float:
    return float(objective(now, batch).mean(objective.units(batch)))


def test_policy_equal_to_its_reference_costs_log_two() -> None:
    logp = [0.0, -1.0, -2.0, 0.0, -5.0]
    assert mean(DPO(), TokenStats({"logp": torch.tensor(logp)}), one_pair(logp)) == pytest.approx(math.log(2))


def test_the_margin_is_summed_over_tokens_and_scaled_once() -> None:
    now = TokenStats({"logp": torch.tensor([9.0, -1.0, -2.0, 9.0, -5.0])})
    batch = one_pair([7.0, -1.5, -2.5, 7.0, -4.0])
    # (0.5 + 0.5) - (-1.0) = 2 nats
    assert mean(DPO(beta=0.3), now, batch) == pytest.approx(math.log(1 + math.exp(-0.6)))
    assert mean(IPO(tau=0.2), now, batch) == pytest.approx((2 - 2.5) ** 2)
    metrics = DPO()(now, batch).metrics
    assert {k: float(v.value()) for k, v in metrics.items()} == pytest.approx(
        {"margin": 2.0, "accuracy": 1.0, "chosen_log_ratio": 1.0, "rejected_log_ratio": -1.0}
    )


@pytest.mark.parametrize(("kind", "argument"), [(DPO, "beta"), (IPO, "tau")])
def test_a_price_must_be_positive(kind: Any, argument: str) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}: {argument} must be > 0, got 0.0"):
        kind(**{argument: 0.0})


# ---- the optimum, exactly, on five answers --------------------------------------------------------------------------
UTILITY = torch.tensor([0.0, 1.5, -0.7, 0.3, 1.0], dtype=torch.float64)
REFERENCE = torch.tensor([0.1, -0.4, 0.8, 0.0, -1.0], dtype=torch.float64).log_softmax(0)


def optimum(objective: Objective[PreferenceBatch]) -> Tensor:
    """What the objective makes of a policy over five one-token answers, all pairs weighted by their probability."""
    first, second = (x.flatten() for x in torch.meshgrid(torch.arange(5), torch.arange(5), indexing="ij"))
    weight = (REFERENCE[first] + REFERENCE[second]).exp() * torch.sigmoid(UTILITY[first] - UTILITY[second])
    batch = PreferenceBatch.of([[1, 2]] * 50, [[False, True]] * 50)

    def spread(logp: Tensor) -> Tensor:
        both = torch.stack([logp[first], logp[second]], 1).flatten()
        return torch.stack([torch.zeros_like(both), both], 1).flatten()

    batch = replace(batch, weight=weight).with_tokens(reference_logp=spread(REFERENCE))
    logits = REFERENCE.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-14, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        stats = TokenStats({"logp": spread(logits.log_softmax(0))})
        loss = objective(stats, batch).mean(objective.units(batch))
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return logits.detach().log_softmax(0)


def divergence(p: Tensor, q: Tensor) -> float:
    return float((p.exp() * (p - q)).sum())


def test_dpo_reaches_the_tilted_reference() -> None:
    for beta in (0.3, 1.0):
        assert divergence(optimum(DPO(beta)), (REFERENCE + UTILITY / beta).log_softmax(0)) < 1e-9


def test_ipo_reaches_its_own_optimum_which_is_another() -> None:
    tau = 0.5
    preferred = torch.sigmoid(UTILITY[:, None] - UTILITY[None]) @ REFERENCE.exp()
    wanted = (REFERENCE + preferred / tau).log_softmax(0)
    assert divergence(optimum(IPO(tau)), wanted) < 1e-9
    assert divergence(optimum(IPO(tau)), (REFERENCE + UTILITY / tau).log_softmax(0)) > 0.1


# ---- the stage ------------------------------------------------------------------------------------------------------
def test_the_stage_starts_at_log_two_with_dropout_in_the_config(tmp_path: Path) -> None:
    words = TrainTokenizer("word", 50).train(["a b c d e f g h"])
    model = Llama(layers=2, width=16, heads=2, feedforward=16, context=16, dropout=0.1).build(words, 0)
    (tmp_path / "policy").mkdir()
    (tmp_path / "label").mkdir()
    Policy(model, words).save(tmp_path / "policy")
    rows = [Comparison(Prompt.user("a b"), "c d e", "f") for _ in range(12)]
    splits = ["train"] * 8 + ["validation"] * 4
    preferences.write(tmp_path / "label", [preferences.row(r, s) for r, s in zip(rows, splits, strict=True)])  # type: ignore[arg-type]
    seen: list[tuple[float, float]] = []

    class Watching(PreferenceStage):
        def after_step(self, step: int) -> None:
            means = self.last_step.means
            seen.append((float(means["loss"].value()), float(means["margin"].value())))

    stage = Watching(
        objective=DPO(), optimizer=AdamW(lr=1e-2, schedule=Cosine(warmup_steps=1)), loop=Loop(3, 4, keep="last")
    )
    inputs = {"policy": Artifact.open(tmp_path / "policy"), "preferences": Artifact.open(tmp_path / "label")}
    stage.run(inputs, StageContext("dpo", tmp_path, tmp_path, Runtime("cpu")))
    assert seen[0] == pytest.approx((math.log(2), 0.0), abs=1e-6)
    assert seen[-1][0] < math.log(2) - 0.01
