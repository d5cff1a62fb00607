"""Truncated importance weights: worked out on paper, and between this code base's own sampler and trainer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_grpo import (
    CISPO,
    DAPO,
    GRPO,
    GSPO,
    DrGRPO,
    GroupRelative,
    KLToReference,
    Reinforce,
    TruncatedImportance,
)
from regimes import online, prepared, run
from rollouts_by_hand import OLD, answers, cost, filled

from alignlab import RolloutBatch, TokenStats, WeightedSum
from alignlab.runtime import Precision, Runtime
from alignlab.testing import Check, conforms_objective, tiny_policy_artifact
from alignlab.training import PolicyGradientStage
from alignlab.training.rollouts import sampler_logp

ADVANTAGE = [2.0, 2.0, 2.0, -1.0]
NOW = [x + 0.1 for x in OLD]
OBJECTIVES = [GRPO(), GRPO(beta=0.0), DrGRPO(), DAPO(), GSPO(), CISPO(), Reinforce()]


def sampled(*sampler: float, advantage: list[float] | None = None) -> RolloutBatch:
    """The two answers by hand, drawn by a sampler with its own log-probabilities."""
    batch = answers(advantage or ADVANTAGE, OLD, [x - 0.4 for x in OLD])
    return batch.with_tokens(sampler_logp=filled(list(sampler)))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_where_sampler_and_trainer_agree_the_weights_are_1_and_the_loss_is_the_same(objective: Any) -> None:
    batch = sampled(*OLD)
    loss, slopes, metrics = cost(TruncatedImportance(objective), batch, NOW)
    plain = cost(objective, batch, NOW)
    assert (loss, slopes) == plain[:2]
    assert metrics == {**plain[2], "importance_weight": 1.0, "truncated_fraction": 0.0}


@pytest.mark.parametrize("objective", [o for o in OBJECTIVES if not getattr(o, "beta", 0)], ids=repr)
@pytest.mark.parametrize(("cap", "weight"), [(2.0, 1.5), (1.2, 1.2), (1.0, 1.0)])
def test_a_mismatch_that_is_everywhere_the_same_is_a_factor(objective: Any, cap: float, weight: float) -> None:
    """The trainer finds every token one and a half times as likely as the sampler did."""
    batch = sampled(*(x - float(torch.tensor(1.5, dtype=torch.float64).log()) for x in OLD))
    loss, slopes, metrics = cost(TruncatedImportance(objective, cap), batch, NOW)
    plain_loss, plain_slopes, _ = cost(objective, batch, NOW)
    assert loss == pytest.approx(weight * plain_loss, abs=1e-14)
    assert slopes == pytest.approx([weight * x for x in plain_slopes], abs=1e-14)
    assert metrics["importance_weight"] == pytest.approx(weight, abs=1e-14)
    assert metrics["truncated_fraction"] == float(cap < 1.5)


def test_each_token_has_the_weight_of_its_own_mismatch() -> None:
    """Ratios 1, 0.5, 4 and 3 at a cap of 3.5: the third is cut. Reinforce has the slope -A w / 2 at each token."""
    batch = sampled(
        *(x - float(torch.tensor(r, dtype=torch.float64).log()) for x, r in zip(OLD, (1, 0.5, 4, 3), strict=True))
    )
    loss, slopes, metrics = cost(TruncatedImportance(Reinforce(), cap=3.5), batch, OLD)
    weights = [1.0, 0.5, 3.5, 3.0]
    assert slopes == pytest.approx([-a * w / 2 for a, w in zip(ADVANTAGE, weights, strict=True)], abs=1e-14)
    assert loss == pytest.approx(
        sum(-a * w * x / 2 for a, w, x in zip(ADVANTAGE, weights, OLD, strict=True)), abs=1e-14
    )
    assert metrics == pytest.approx({"importance_weight": 2.0, "truncated_fraction": 0.25})


def test_a_kl_term_keeps_its_own_weight() -> None:
    batch = sampled(*(x - 0.3 for x in OLD))
    whole = cost(TruncatedImportance(GRPO(beta=0.3)), batch, NOW)
    parts = [TruncatedImportance(GRPO(beta=0.0)), KLToReference("k3", "answer_mean")]
    total = WeightedSum(dict(zip("ab", parts, strict=True)), {"b": 0.3})
    added = cost(total, batch, NOW)
    assert whole[0] == pytest.approx(added[0], abs=1e-14) and whole[1] == pytest.approx(added[1], abs=1e-14)


def test_it_is_the_policys_gradient_from_the_samplers_answers() -> None:
    """Answers of one token, each by the sampler's probability: with weights the gradient is that of the policy."""
    logits, other = torch.tensor([0.3, -0.8, 1.1]).double(), torch.tensor([-0.5, 0.2, 0.4]).double()
    advantage, old, sampler = torch.tensor([1.0, -2.0, 0.7]).double(), logits.log_softmax(0), other.log_softmax(0)

    def spread(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros_like(x), x], 1).flatten()

    def gradient(drawn_by: torch.Tensor, objective: Any) -> torch.Tensor:
        batch = RolloutBatch.of([[1, 2]] * 3, [[False, True]] * 3)
        batch = replace(batch, weight=drawn_by.exp()).with_tokens(
            old_logp=spread(old), sampler_logp=spread(sampler), advantage=spread(advantage)
        )
        leaf = logits.clone().requires_grad_()
        loss = objective(TokenStats({"logp": spread(leaf.log_softmax(0))}), batch).mean(objective.units(batch))
        return torch.autograd.grad(loss, leaf)[0]

    wanted = gradient(old, DAPO())
    torch.testing.assert_close(gradient(sampler, TruncatedImportance(DAPO(), cap=100.0)), wanted)
    assert float((gradient(sampler, DAPO()) - wanted).abs().max()) > 0.05
    cut = gradient(sampler, TruncatedImportance(DAPO(), cap=1.0))
    assert float((cut - wanted).abs().max()) > 0.01  # the price of the cap is a bias


def test_a_mismatch_of_any_size_stays_finite() -> None:
    loss, slopes, metrics = cost(TruncatedImportance(DAPO()), sampled(-1e4, -1e4, 0.0, 0.0), NOW)
    assert all(map(torch.isfinite, torch.tensor([loss, *slopes])))
    assert metrics["truncated_fraction"] == 0.5


def test_it_ends_where_the_wrapped_objective_ends() -> None:
    for objective in OBJECTIVES:
        assert TruncatedImportance(objective).optimum() == objective.optimum()


def test_what_it_cannot_weigh_is_refused() -> None:
    with pytest.raises(ValueError, match=r"TruncatedImportance: KLToReference reads no advantage"):
        TruncatedImportance(KLToReference())
    with pytest.raises(ValueError, match=r"TruncatedImportance: cap must be >= 1, got 0\.5"):
        TruncatedImportance(DAPO(), cap=0.5)


# ---- the sampler of this code base -----------------------------------------------------------------------------------
def stage(**changes: Any) -> PolicyGradientStage:
    found: PolicyGradientStage = online(
        PolicyGradientStage, objective=TruncatedImportance(DAPO()), advantage=GroupRelative(), **changes
    )
    return found


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_the_temperature_makes_no_mismatch(tmp_path: Path, temperature: float) -> None:
    """The trainer scores at the sampling temperature: in full precision only rounding is left."""
    made = prepared(stage(sampling_temperature=temperature), {"policy": tiny_policy_artifact(tmp_path / "p")}, tmp_path)
    batch = made.batch_at(0)
    apart = batch.scored(batch.old_logp - batch.sampler_logp)
    assert float(apart.abs().max()) < 1e-4 and float(batch.scored(batch.sampler_logp).abs().max()) > 0.1


def test_in_mixed_precision_sampler_and_trainer_differ_and_the_weights_say_by_how_much(tmp_path: Path) -> None:
    precision: Precision = "bf16-mixed"
    made = stage()
    runtime = Runtime("cpu", threads=1, precision=precision)
    metrics, heard = run(made, {"policy": tiny_policy_artifact(tmp_path / "p")}, tmp_path, runtime)
    batch = made.batch_at(5)
    apart = batch.scored(batch.old_logp - batch.sampler_logp).abs()
    assert 1e-4 < float(apart.max()) < 1.0
    weights = heard.values("train/importance_weight")
    assert len(weights) == 6 and all(0.9 < w < 1.1 for w in weights) and any(w != 1.0 for w in weights)
    assert all(x == 0 for x in heard.values("train/truncated_fraction")) and "validation_reward" in metrics


def test_a_cut_distribution_is_still_refused() -> None:
    """Weights cannot bring back the tokens that were never drawn."""
    with pytest.raises(ValueError, match=r"sampling\.top_p must be 1"):
        stage(sampling_top_p=0.9)


def test_answers_that_were_given_have_no_sampler(tmp_path: Path) -> None:
    made = prepared(stage(), {"policy": tiny_policy_artifact(tmp_path / "p")}, tmp_path)
    prompt = made.data.prompts("train")[0]
    from alignlab.policy import Sample

    with pytest.raises(ValueError, match=r"has 2 tokens and 0 log-probabilities; answers that were given"):
        sampler_logp([Sample(prompt, (1, 2), (3, 4), "tea", True)])


def test_without_the_part_nothing_is_stored(tmp_path: Path) -> None:
    plain = online(PolicyGradientStage, objective=DAPO(), advantage=GroupRelative())
    made = prepared(plain, {"policy": tiny_policy_artifact(tmp_path / "p")}, tmp_path)
    assert "sampler_logp" not in made.batch_at(0).per_token


@conforms_objective(lambda: TruncatedImportance(DAPO(), cap=1.2))
def test_it_conforms_on_dapo(check: Check) -> None:
    check()


@conforms_objective(lambda: TruncatedImportance(GRPO(), cap=1.2))
def test_it_conforms_on_grpo(check: Check) -> None:
    check()


@conforms_objective(lambda: TruncatedImportance(GSPO(), cap=1.2))
def test_it_conforms_on_gspo(check: Check) -> None:
    check()
