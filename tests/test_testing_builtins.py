"""Every objective, advantage, preference, reward source, evaluation and stage that is shipped passes the kit."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from alignlab_pretrain import CausalLM
from alignlab_raters import Panel, Rater
from alignlab_reward_model import BradleyTerry
from omegaconf import OmegaConf

from alignlab.config.check import parse
from alignlab.config.compose import session
from alignlab.policy import LearnedReward
from alignlab.testing import (
    Check,
    ObjectiveSubject,
    advantage,
    conforms_objective,
    conforms_preference,
    conforms_reward_source,
    objective,
    tiny_policy,
)
from alignlab.testing.advantage import AdvantageSubject
from alignlab.testing.apply import outcome_of

ROOT = Path(__file__).parents[1]


def options(group: str) -> list[Path]:
    """The shipped options of a config group."""
    return sorted([*ROOT.glob(f"conf/{group}/*.yaml"), *ROOT.glob(f"plugins/*/conf/{group}/*.yaml")])


def target_of(file: Path) -> str:
    """The class that an option names."""
    return str(yaml.safe_load(file.read_text(encoding="utf-8"))["_target_"])


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """Every objective and advantage as a command composes it, by group and name."""
    files = [(group, file.stem) for group in ("objective", "advantage") for file in options(group)]
    overrides = [f"+{group}@probe.option{i}={name}" for i, (group, name) in enumerate(files)]
    with session(overrides) as hydra:
        found: Any = OmegaConf.to_container(hydra.compose(overrides).probe, resolve=True)
    return {f"{group}={name}": found[f"option{i}"] for i, (group, name) in enumerate(files)}


def failures(subject: Any, checks: Any, skip: dict[str, str]) -> list[Any]:
    """Outcomes of the checks that failed."""
    results = [outcome_of(check, subject, skip) for check in checks]
    assert sum(result.outcome == "ok" for result in results) > 5
    return [result for result in results if result.outcome == "FAILED"]


AT_THE_START = {"every_sequence_counts": "where the policy is the reference, the KL is least, and its gradient 0"}


# ---- objectives and advantages: every option, as it is shipped -------------------------------------------------------
@pytest.mark.parametrize("name", [file.stem for file in options("objective")])
def test_every_shipped_objective_conforms(name: str, composed: dict[str, Any]) -> None:
    node, skip = composed[f"objective={name}"], AT_THE_START if name == "kl_to_reference" else {}
    assert failures(ObjectiveSubject(lambda: parse(node, name).build()), objective.CHECKS, skip) == []


@pytest.mark.parametrize("name", [file.stem for file in options("advantage")])
def test_every_shipped_advantage_conforms(name: str, composed: dict[str, Any]) -> None:
    node = composed[f"advantage={name}"]
    assert failures(AdvantageSubject(lambda: parse(node, name).build()), advantage.CHECKS, {}) == []


@conforms_objective(lambda: CausalLM(z_loss=0.01))
def test_causal_lm_with_z_loss(check: Check) -> None:
    check()


@conforms_objective(lambda: BradleyTerry(centering=0.01))
def test_bradley_terry_with_centering(check: Check) -> None:
    check()


# ---- rewards, preferences, evaluations -------------------------------------------------------------------------------
@conforms_reward_source(
    lambda: LearnedReward(tiny_policy(scalar_head=True)),
    skip={"arguments_are_attributes": "takes a model; is built by a stage, never from config"},
)
def test_learned_reward(check: Check) -> None:
    check()


@conforms_preference(lambda: Panel({"brief": Rater("brief", {"words": -1.0})}, position_bias=0.5))
def test_panel(check: Check) -> None:
    check()


# ---- and nothing is left out -----------------------------------------------------------------------------------------
CHECKED_IN = {
    "alignlab.models.ImportModel": "tests/test_import_model.py",
    "alignlab_raters.StyleOfAnswers": "tests/test_testing_builtin_stages.py",
    "alignlab.evaluation.CalibrationEvaluation": "tests/test_testing_evaluation.py",
    "alignlab.evaluation.Compare": "tests/test_testing_builtin_stages.py",
    "alignlab.evaluation.Drift": "tests/test_testing_builtin_stages.py",
    "alignlab.evaluation.Evaluate": "tests/test_testing_builtin_stages.py",
    "alignlab.evaluation.EvaluatePreferences": "tests/test_testing_builtin_stages.py",
    "alignlab.evaluation.FilesEvaluation": "tests/test_testing_evaluation.py",
    "alignlab.evaluation.HarnessEvaluation": "tests/test_evaluation_harness.py",
    "alignlab.evaluation.InstructionsEvaluation": "tests/test_evaluation_instructions.py",
    "alignlab.evaluation.RefusalEvaluation": "tests/test_evaluation_refusal.py",
    "alignlab.evaluation.RewardEvaluation": "tests/test_testing_evaluation.py",
    "alignlab.evaluation.WorldEvaluation": "tests/test_testing_evaluation.py",
    "alignlab.evaluation.WorldInstructions": "tests/test_world_constrained.py",
    "alignlab.evaluation.WorldRefusal": "tests/test_evaluation_world_refusal.py",
    "alignlab.preferences.ImportJudgements": "tests/test_testing_builtin_stages.py",
    "alignlab.preferences.ImportPreferences": "tests/test_testing_builtin_stages.py",
    "alignlab.preferences.Label": "tests/test_testing_builtin_stages.py",
    "alignlab.preferences.Rank": "tests/test_testing_builtin_stages.py",
    "alignlab.report.Report": "tests/test_testing_builtin_stages.py",
    "alignlab.training.AnswerStage": "tests/test_testing_builtin_stages.py",
    "alignlab.training.LabelledStage": "tests/stage_cases.py",
    "alignlab.training.PolicyGradientStage": "tests/stage_cases.py",
    "alignlab.training.PreferenceStage": "tests/test_testing_builtin_stages.py",
    "alignlab.training.RankingStage": "tests/test_testing_builtin_stages.py",
    "alignlab_best_of_n.BestOfN": "plugins/alignlab_best_of_n/tests/test_best_of_n.py",
    "alignlab_distill.OnPolicyDistillation": "plugins/alignlab_distill/tests/test_conformance.py",
    "alignlab_grpo.DynamicSampling": "plugins/alignlab_grpo/tests/test_conformance.py",
    "alignlab_merge.Average": "plugins/alignlab_merge/tests/test_merge.py",
    "alignlab_merge.TaskArithmetic": "plugins/alignlab_merge/tests/test_merge.py",
    "alignlab_online_dpo.OnlinePreferences": "tests/test_testing_builtin_stages.py",
    "alignlab_ppo.PPOStage": "plugins/alignlab_ppo/tests/test_conformance.py",
    "alignlab_pretrain.Pretrain": "tests/test_testing_builtin_stages.py",
    "alignlab_raters.Groups": "plugins/alignlab_raters/tests/test_groups.py",
    "alignlab_raters.Panel": "tests/test_testing_builtins.py",
    "alignlab_raters.Rater": "plugins/alignlab_raters/tests/test_raters_conform.py",
    "alignlab_raters.StyleEvaluation": "plugins/alignlab_raters/tests/test_style.py",
    "alignlab_raters.TrueTaste": "plugins/alignlab_raters/tests/test_raters_conform.py",
    "alignlab_reward_model.EnsembleMean": "plugins/alignlab_reward_model/tests/test_rewards.py",
    "alignlab_reward_model.ModelReward": "plugins/alignlab_reward_model/tests/test_rewards.py",
    "alignlab_reward_model.Pessimistic": "plugins/alignlab_reward_model/tests/test_rewards.py",
    "alignlab_reward_model.RatedRewardModel": "plugins/alignlab_reward_model/tests/test_rated.py",
    "alignlab_reward_model.RewardModel": "tests/test_testing_builtin_stages.py",
    "alignlab_reward_model.WorstCase": "plugins/alignlab_reward_model/tests/test_rewards.py",
    "alignlab_sft.SFT": "tests/test_testing_builtin_stages.py",
    "alignlab_verifiable.ExactAnswer": "plugins/alignlab_verifiable/tests/test_checked.py",
    "alignlab_verifiable.Format": "plugins/alignlab_verifiable/tests/test_checked.py",
    "alignlab_verifiable.Http": "plugins/alignlab_verifiable/tests/test_remote.py",
    "alignlab_verifiable.JsonSchema": "plugins/alignlab_verifiable/tests/test_schema.py",
    "alignlab_verifiable.Length": "plugins/alignlab_verifiable/tests/test_checked.py",
    "alignlab_verifiable.Number": "plugins/alignlab_verifiable/tests/test_number.py",
    "alignlab_verifiable.Regex": "plugins/alignlab_verifiable/tests/test_checked.py",
    "alignlab_verifiable.Weighted": "plugins/alignlab_verifiable/tests/test_checked.py",
}
"""File that puts a class through the kit by hand, for classes that cannot be built from their option alone."""


def test_every_option_that_is_shipped_is_checked() -> None:
    groups = ("evaluation", "preference", "reward", "stage")
    named = {target_of(file) for group in groups for file in options(group)}
    assert named == CHECKED_IN.keys()
    for target, file in CHECKED_IN.items():
        # Config names a plugin's class by its package, whatever module it is in.
        assert target.rpartition(".")[2] in (ROOT / file).read_text(encoding="utf-8")
