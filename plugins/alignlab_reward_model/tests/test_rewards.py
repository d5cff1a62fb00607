"""Rewards of trained models: combined as on paper, as the reward of a stage, and in a pipeline that trains them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from alignlab_grpo import LeaveOneOut, Reinforce
from alignlab_reward_model import BradleyTerry, Ensemble, EnsembleMean, ModelReward, Pessimistic, RewardModel, WorstCase
from alignlab_verifiable import Length, Weighted
from regimes import Questions, adam, loop, online, run
from torch import Tensor

from alignlab import ScoreModel
from alignlab.artifact import Artifact
from alignlab.cli.plan import run as plan_command
from alignlab.data.records import Prompt
from alignlab.errors import ConfigError, PipelineError
from alignlab.evaluation import RewardEvaluation
from alignlab.policy import LearnedReward, LearnedScores, Policy, learned
from alignlab.policy.score_head import ScoreHead
from alignlab.reward import RewardSource, score_in_parts
from alignlab.testing import (
    Check,
    conforms_reward_source,
    tiny_policy,
    tiny_policy_artifact,
    tiny_preferences_artifact,
)
from alignlab.training import PolicyGradientStage

PROMPTS = [Prompt.user("what does ana like ?"), Prompt.user("what does bo like ?")]
ANSWERS = ["tea", "rain and bread"]


@dataclass(frozen=True)
class Known(ScoreModel):
    """A model whose scores of the two answers are known; of any other text, its number of words."""

    attributes: Sequence[str]
    first: Sequence[float]
    second: Sequence[float]

    def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        known = {ANSWERS[0]: self.first, ANSWERS[1]: self.second}
        rows = [known.get(a, [float(len(a.split()))] * len(self.attributes)) for a in answers]
        return torch.tensor(rows).reshape(len(answers), len(self.attributes))


THREE = {"a": Known(["x"], [1.0], [4.0]), "b": Known(["x"], [1.0], [0.0]), "c": Known(["x"], [1.0], [2.0])}
"""They agree on the first answer; of the second, the mean is 2, the minimum 0 and the variance (4 + 4 + 0) / 3."""
BOTH = {"reward": Known(["good", "brief"], [2.0, 3.0], [-1.0, 0.5])}


def with_three(source: RewardSource) -> RewardSource:
    return source.with_models(THREE)


# ---- on paper --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("source", "second"),
    [
        (EnsembleMean(["a", "b", "c"]), 2.0),
        (WorstCase(["a", "b", "c"]), 0.0),
        (Pessimistic(["a", "b", "c"], price=0.5), 2 - 0.5 * (8 / 3) ** 0.5),
        (Pessimistic(["a", "b", "c"], price=0.0), 2.0),
        (Pessimistic(["a", "b"]), 0.0),  # of two members, mean - deviation is the minimum
    ],
)
def test_three_members_are_combined_as_on_paper(source: Ensemble, second: float) -> None:
    found = score_in_parts(with_three(source), PROMPTS, ANSWERS)
    assert found.total.tolist() == pytest.approx([1.0, second])
    assert found.parts["a"].tolist() == [1.0, 4.0] and found.parts["b"].tolist() == [1.0, 0.0]
    spread = 2.0 if len(source.members) == 2 else (8 / 3) ** 0.5
    assert found.parts["disagreement"].tolist() == pytest.approx([0.0, spread])


def test_attributes_are_named_or_weighed() -> None:
    named = ModelReward(weights={"brief": 1.0}).with_models(BOTH)
    weighed = ModelReward(weights={"good": 0.5, "brief": -2.0}).with_models(BOTH)
    assert named.score(PROMPTS, ANSWERS).tolist() == [3.0, 0.5]
    found = score_in_parts(weighed, PROMPTS, ANSWERS)
    assert found.total.tolist() == pytest.approx([1.0 - 6.0, -0.5 - 1.0])
    assert {k: v.tolist() for k, v in found.parts.items()} == {"good": [2.0, -1.0], "brief": [3.0, 0.5]}
    assert weighed.describe() == "0.5 good + -2 brief by reward"


def test_a_sum_of_rewards_hands_the_models_on_and_logs_what_it_adds() -> None:
    short = Length(low=0, high=1, slope=1.0, unit="words")
    source = Weighted({"judged": WorstCase(["a", "b"]), "short": short}, {"judged": 1.0, "short": 0.5})
    assert source.inputs == ("a", "b") and short.inputs == ()
    found = score_in_parts(source.with_models(THREE), PROMPTS, ANSWERS)
    assert found.parts["judged"].tolist() == [1.0, 0.0]
    assert found.total.tolist() == pytest.approx((found.parts["judged"] + 0.5 * found.parts["short"]).tolist())
    assert list(found.parts) == ["judged", "judged_a", "judged_b", "judged_disagreement", "short"]
    assert found.parts["judged_b"].tolist() == [1.0, 0.0] and found.parts["judged_disagreement"].tolist() == [0.0, 2.0]


def test_a_reward_of_weight_zero_is_logged_and_teaches_nothing() -> None:
    both = {"proxy": ModelReward("a"), "panel": EnsembleMean(["b", "c"])}
    found = score_in_parts(Weighted(both, {"proxy": 1.0, "panel": 0.0}).with_models(THREE), PROMPTS, ANSWERS)
    assert found.total.tolist() == found.parts["proxy"].tolist() == [1.0, 4.0]
    assert found.parts["panel"].tolist() == [1.0, 1.0]


# ---- models ----------------------------------------------------------------------------------------------------------
def two_heads() -> Policy:
    policy = tiny_policy()
    policy.add_score_head(4, ("good", "brief"))
    return policy


def test_heads_of_one_model_are_an_ensemble_as_models_are() -> None:
    policy = two_heads()
    assert policy.score_head is not None
    apart = {}
    for name, row in zip(policy.score_head.attributes, policy.score_head.weight.detach().split(1), strict=True):
        single = tiny_policy()
        single.score_head = ScoreHead(row)
        apart[name] = LearnedScores(single)
    heads = Pessimistic(["reward.good", "reward.brief"]).with_models({"reward": LearnedScores(policy)})
    models = Pessimistic(["good", "brief"]).with_models(apart)
    torch.testing.assert_close(heads.score(PROMPTS, ANSWERS), models.score(PROMPTS, ANSWERS))
    assert list(heads.parts) == ["reward_good", "reward_brief", "disagreement"]


def test_an_answers_reward_does_not_depend_on_how_long_the_others_are() -> None:
    source = Pessimistic(["reward.good", "reward.brief"]).with_models({"reward": LearnedScores(two_heads())})
    alone = source.score(PROMPTS[:1], ANSWERS[:1])
    among = source.score(PROMPTS[:1] * 3, [ANSWERS[0], "tea or " * 9, "i think not"])[:1]
    torch.testing.assert_close(alone, among)


def test_each_model_of_several_heads_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    model = LearnedScores(two_heads())
    scores = model.scores
    monkeypatch.setattr(model, "scores", lambda *a: (calls.append("x"), scores(*a))[1])
    source = WorstCase(["reward.good", "reward.brief"]).with_models({"reward": model})
    score_in_parts(source, PROMPTS, ANSWERS)
    assert calls == ["x"]


def test_a_stage_hands_its_inputs_over(tmp_path: Path) -> None:
    seeds = {"a": 1, "b": 2}
    inputs = {name: tiny_policy_artifact(tmp_path / name, seed, scalar_head=True) for name, seed in seeds.items()}
    source, models = learned(EnsembleMean(["a", "b"]), inputs)
    assert source is not None and not any(p.requires_grad for model in models for p in model.parameters())
    found = score_in_parts(source, PROMPTS, ANSWERS)
    for name, seed in seeds.items():
        alone = LearnedReward(tiny_policy(seed, scalar_head=True)).score(PROMPTS, ANSWERS)
        torch.testing.assert_close(found.parts[name], alone)


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"WorstCase: members must be two or more different inputs, got \['a'\]"):
        WorstCase(["a"])
    with pytest.raises(ValueError, match="two or more different inputs"):
        EnsembleMean(["a", "a"])
    with pytest.raises(ValueError, match="EnsembleMean: 'A b' cannot name a metric"):
        EnsembleMean(["a", "A b"])
    with pytest.raises(ValueError, match="logged as a, disagreement, disagreement; two are the same"):
        EnsembleMean(["a", "disagreement"])
    with pytest.raises(ValueError, match="Pessimistic: price must be >= 0, got -1"):
        Pessimistic(["a", "b"], price=-1)
    with pytest.raises(ValueError, match="ModelReward: weights is empty"):
        ModelReward(weights={})
    with pytest.raises(ValueError, match="ModelReward: the weight of a must be finite"):
        ModelReward(weights={"a": float("nan")})


def test_a_model_without_the_attribute_is_refused_before_it_scores() -> None:
    with pytest.raises(ConfigError, match=r"ModelReward: inputs\.reward scores good, brief; there is no 'kind'"):
        ModelReward(weights={"kind": 1.0}).with_models(BOTH)
    with pytest.raises(ConfigError, match=r"ModelReward: inputs\.reward scores good, brief; name one of them"):
        ModelReward().with_models(BOTH)
    with pytest.raises(ConfigError, match=r"WorstCase: inputs\.reward scores good, brief; name one of them"):
        WorstCase(["reward", "reward.good"]).with_models(BOTH)


def test_without_its_models_a_reward_says_where_they_come_from() -> None:
    with pytest.raises(ConfigError, match=r"inputs of its stage \(a, b\); only online stages and best_of_n have such"):
        EnsembleMean(["a", "b"]).score(PROMPTS, ANSWERS)
    with pytest.raises(ValueError, match=r"RewardEvaluation: reward scores with reward models \(a, b\), which"):
        RewardEvaluation(EnsembleMean(["a", "b"]), Questions())


# ---- the kit ---------------------------------------------------------------------------------------------------------
@conforms_reward_source(lambda: with_three(EnsembleMean(["a", "b", "c"])))
def test_the_mean_conforms(check: Check) -> None:
    check()


@conforms_reward_source(lambda: with_three(WorstCase(["a", "b", "c"])))
def test_the_worst_case_conforms(check: Check) -> None:
    check()


def of_heads() -> RewardSource:
    return Pessimistic(["reward.good", "reward.brief"]).with_models({"reward": LearnedScores(two_heads())})


@conforms_reward_source(of_heads)
def test_the_pessimistic_ensemble_conforms(check: Check) -> None:
    check()


@conforms_reward_source(lambda: ModelReward(weights={"good": 1.0, "brief": -0.5}).with_models(BOTH))
def test_a_models_reward_conforms(check: Check) -> None:
    check()


# ---- from pairs to a policy ------------------------------------------------------------------------------------------
def trained(folder: Path, seed: int) -> Artifact:
    """A reward model, trained for ten steps on pairs."""
    given = {"policy": tiny_policy_artifact(folder / "start"), "preferences": tiny_preferences_artifact(folder / "p")}
    steps = loop(steps=10, batch_size=4, validate_every=10)
    run(RewardModel(objective=BradleyTerry(centering=0.01), optimizer=adam(1e-2), loop=steps, seed=seed), given, folder)
    return Artifact.open(folder / "out")


def test_two_trained_models_are_the_reward_of_a_stage_that_logs_members_and_disagreement(tmp_path: Path) -> None:
    inputs = {f"model_{seed}": trained(tmp_path / str(seed), seed) for seed in (1, 2)}
    inputs["policy"] = tiny_policy_artifact(tmp_path / "policy")
    stage = online(
        PolicyGradientStage, objective=Reinforce(), advantage=LeaveOneOut(),
        reward=Pessimistic(["model_1", "model_2"], price=0.5), prompts_per_rollout=2,
        inputs={name: str(artifact.path) for name, artifact in inputs.items()}, loop_steps=2, loop_validate_every=2,
    )  # fmt: skip
    metrics, seen = run(stage, inputs, tmp_path / "rloo")
    assert metrics["steps"] == 2 and seen.said[0].endswith("scored by Pessimistic")
    for split, count in (("train", 2), ("validation", 1)):
        names = ("_model_1", "_model_2", "_disagreement", "")
        one, other, spread, reward = (torch.tensor(seen.values(f"{split}/reward{part}")) for part in names)
        assert len(reward) >= count and float(spread.min()) > 0
        torch.testing.assert_close(reward, (one + other) / 2 - 0.5 * spread, atol=1e-5, rtol=1e-5)
    assert metrics["validation_reward_disagreement"] > 0


PIPELINE = (
    "experiment=smoke", "+pipeline.second=reward_model", "pipeline.second.seed=7", "~pipeline.ppo.inputs.reward",
    "+pipeline.ppo.inputs.one=reward_model", "+pipeline.ppo.inputs.other=second",
    "pipeline.ppo.reward=ensemble_pessimistic", "pipeline.ppo.reward.members=[one,other]",
)  # fmt: skip


def test_a_plan_lists_every_model_of_an_ensemble(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_command([*PIPELINE, "--json"]) == 0
    stages = {stage["name"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert stages["ppo"]["inputs"] == {"policy": "sft", "one": "reward_model", "other": "second"}
    assert list(stages).index("second") < list(stages).index("ppo")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "pipeline.ppo.reward.members=[one,third]",
            r"scores with the inputs one, third; set inputs\.third to a",
        ),
        ("+pipeline.ppo.inputs.third=second", r"nothing reads inputs\.third"),
        (
            "+pipeline.ppo.inputs.third=sft",
            r"third: PPOStage takes reward_model here, but 'sft' makes a policy",
        ),
    ],
)
def test_a_plan_refuses_models_that_are_missing_or_idle(change: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        plan_command([*PIPELINE, change])
