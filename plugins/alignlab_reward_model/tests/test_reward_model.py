"""The Bradley-Terry loss against its closed form, and what it converges to."""

import json
import math
from pathlib import Path

import pytest
import torch
from alignlab_reward_model import BradleyTerry, RewardModel

from alignlab.artifact import Artifact
from alignlab.batch import PreferenceBatch
from alignlab.data import preferences
from alignlab.data.rows import order_at
from alignlab.policy import LearnedReward, Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.stats import TokenStats
from alignlab.testing import KillingTracker, tiny_policy_artifact, tiny_preferences_artifact
from alignlab.training import AdamW, Cosine, Loop


def pairs(count: int, weight: torch.Tensor | None = None) -> PreferenceBatch:
    batch = PreferenceBatch.of([[1, 2]] * 2 * count, [[False, True]] * 2 * count)
    if weight is None:
        return batch
    from dataclasses import replace

    return replace(batch, weight=weight)


def test_equal_scores_cost_log_two_and_are_right_half_the_time() -> None:
    objective = BradleyTerry()
    loss = objective(TokenStats({"score": torch.zeros(4)}), pairs(2))
    assert float(loss.mean(objective.units(pairs(2)))) == pytest.approx(math.log(2))
    assert float(loss.metrics["accuracy"].value()) == 0.5


def test_a_margin_costs_its_log_sigmoid() -> None:
    objective = BradleyTerry(centering=0.1)
    loss = objective(TokenStats({"score": torch.tensor([2.0, -1.0])}), pairs(1))
    expected = math.log(1 + math.exp(-3)) + 0.1 * 1**2
    assert float(loss.mean(objective.units(pairs(1)))) == pytest.approx(expected)
    assert float(loss.metrics["margin"].value()) == 3.0


def test_exact_preferences_give_back_the_utilities_up_to_a_constant() -> None:
    """All ordered pairs of five answers, weighted by their true probability: the optimum is the utility."""
    utility = torch.tensor([0.0, 1.5, -0.7, 0.3, 2.0], dtype=torch.float64)
    first, second = torch.combinations(torch.arange(5)).unbind(1)
    first, second = torch.cat([first, second]), torch.cat([second, first])
    batch = pairs(len(first), torch.sigmoid(utility[first] - utility[second]))
    score = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    objective = BradleyTerry()
    optimizer = torch.optim.LBFGS(
        [score], max_iter=200, tolerance_grad=1e-14, tolerance_change=1e-18, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        both = torch.stack([score[first], score[second]], 1).flatten()
        loss = objective(TokenStats({"score": both}), batch).mean(objective.units(batch))
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    found = score.detach() - score.detach().mean()
    assert float((found - (utility - utility.mean())).abs().max()) < 1e-6


# ---- the stage ------------------------------------------------------------------------------------------------------
def stage_in(folder: Path, steps: int = 3, max_length: int | None = None) -> tuple[RewardModel, KillingTracker]:
    """A stage whose data is read: two words are preferred to five, in every pair."""
    inputs = {"policy": tiny_policy_artifact(folder / "policy"), "preferences": tiny_preferences_artifact(folder / "p")}
    (folder / "work").mkdir()
    optimizer, loop = AdamW(lr=1e-2, schedule=Cosine(warmup_steps=0)), Loop(steps, 4, validate_every=steps, keep="last")
    stage = RewardModel(objective=BradleyTerry(), optimizer=optimizer, loop=loop, seed=3, max_length=max_length)
    tracker = KillingTracker()
    stage.context = StageContext("rm", folder, folder / "work", Runtime("cpu"), tracker)
    if steps > 3:
        stage.run(inputs, stage.context)
    else:
        stage.prepare(inputs, stage.context)
    return stage, tracker


def answers(stage: RewardModel, batch: PreferenceBatch) -> list[str]:
    """What is scored of each sequence."""
    scored = [batch.tokens[(batch.sequence_id == s) & batch.response_mask] for s in range(batch.num_sequences)]
    return [str(stage.policy.tokenizer.decode(ids)).removesuffix("<eos>").strip() for ids in scored]


def test_even_sequences_hold_the_chosen_answer_and_odd_ones_the_rejected(tmp_path: Path) -> None:
    stage, _ = stage_in(tmp_path)
    pairs = {"train": stage.batch_at(0), "validation": stage.validation_batches()[0]}
    for split, batch in pairs.items():
        known = preferences.read(Artifact.open(tmp_path / "p"), split)  # type: ignore[arg-type]
        index = order_at(0, 8, 4, seed=3) if split == "train" else range(4)
        wanted = [text for i in index for text in (known[i].chosen, known[i].rejected)]
        assert answers(stage, batch) == wanted
        assert batch.names[:2] == (f"{known[index[0]].source} (chosen)", f"{known[index[0]].source} (rejected)")


def test_it_learns_from_the_one_split_and_is_validated_on_the_other(tmp_path: Path) -> None:
    stage, tracker = stage_in(tmp_path)
    lines = {name.split()[0] for k in range(3) for name in stage.batch_at(k).names}
    held_out = {name.split()[0] for batch in stage.validation_batches() for name in batch.names}
    assert held_out == {f"preferences.jsonl:{n}" for n in (3, 6, 9, 12)}
    assert lines == {f"preferences.jsonl:{n}" for n in (1, 2, 4, 5, 7, 8, 10, 11)}
    assert tracker.reports == ["8 pairs to learn from, 4 held out"]


def test_what_is_cut_is_said(tmp_path: Path) -> None:
    """A prompt is 8 tokens, the longer answer and its stop token 6: ten tokens cut every rejected answer."""
    stage, tracker = stage_in(tmp_path, max_length=10)
    assert tracker.reports[-1] == "of 12 pairs: 12 cut short at 10 tokens"
    assert int(stage.batch_at(0).lengths().max()) == 10


def test_a_short_training_scores_held_out_chosen_answers_above_the_rejected(tmp_path: Path) -> None:
    stage_in(tmp_path, steps=25)
    reward = LearnedReward(Policy.load(tmp_path))
    held_out = preferences.read(Artifact.open(tmp_path / "p"), "validation")
    prompts = [pair.prompt for pair in held_out]
    margin = reward.score(prompts, [p.chosen for p in held_out]) - reward.score(prompts, [p.rejected for p in held_out])
    assert float(margin.min()) > 1.0


def test_both_sides_scores_are_metrics() -> None:
    loss = BradleyTerry()(TokenStats({"score": torch.tensor([2.0, -1.0, 0.5, 1.5])}), pairs(2))
    assert float(loss.metrics["chosen_score"].value()) == pytest.approx(1.25)
    assert float(loss.metrics["rejected_score"].value()) == pytest.approx(0.25)


def test_held_out_scores_have_mean_spread_and_interval(tmp_path: Path) -> None:
    inputs = {"policy": tiny_policy_artifact(tmp_path / "in"), "preferences": tiny_preferences_artifact(tmp_path / "p")}
    optimizer, loop = AdamW(lr=1e-2, schedule=Cosine(warmup_steps=0)), Loop(25, 4, validate_every=25, keep="last")
    (tmp_path / "out").mkdir()
    (tmp_path / "work").mkdir()
    context = StageContext("rm", tmp_path / "out", tmp_path / "work", Runtime("cpu"))
    found = RewardModel(objective=BradleyTerry(), optimizer=optimizer, loop=loop, seed=3).run(inputs, context)
    assert found["accuracy"] == pytest.approx(found["validation_accuracy"])
    reward = LearnedReward(Policy.load(tmp_path / "out"))
    held_out = preferences.read(Artifact.open(tmp_path / "p"), "validation")
    for side in ("chosen", "rejected"):
        scores = reward.score([p.prompt for p in held_out], [getattr(p, side) for p in held_out]).double()
        assert found[f"{side}_score"] == pytest.approx(float(scores.mean()), abs=1e-4)
        assert found[f"{side}_score_std"] == pytest.approx(float(scores.std(correction=0)), abs=1e-4)
        if len({pair.prompt for pair in held_out}) > 1:  # a mean of one prompt has no interval
            assert found[f"{side}_score_low"] <= found[f"{side}_score"] <= found[f"{side}_score_high"]
    assert 0 <= found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"] <= 1
    names = {column["metric"] for column in json.loads((tmp_path / "out" / "columns.json").read_text())}
    assert {n.removesuffix("_low").removesuffix("_high") for n in found if not n.startswith("validation")} - names == {
        "steps", "best_step", "train_loss",
    }  # fmt: skip
