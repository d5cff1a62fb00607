"""All built-in objectives, reward sources and stages pass the conformance kit."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from alignlab_dpo import DPO, IPO, DPOStage
from alignlab_ppo import PPO
from alignlab_pretrain import CausalLM, Pretrain
from alignlab_raters import Panel, Rater
from alignlab_reward_model import BradleyTerry, RewardModel
from alignlab_sft import SFT, AnswerNLL
from report_run import make_run

from alignlab.artifact import Artifact
from alignlab.data.records import Comparison, Document, Example, Prompt
from alignlab.data.source import DataSource, Split
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.evaluation import Evaluate, RewardEvaluation
from alignlab.objective import Objective
from alignlab.policy import LearnedReward, Llama, Sampling
from alignlab.preferences import ImportPreferences, Label
from alignlab.report import Report
from alignlab.stage import Stage
from alignlab.testing import (
    Check,
    conforms_objective,
    conforms_reward_source,
    conforms_stage,
    tiny_policy,
    tiny_policy_artifact,
    tiny_preferences_artifact,
)
from alignlab.training import AdamW, Loop

ROOT = Path(__file__).parents[1]


# ---- objectives ------------------------------------------------------------------------------------------------------
@conforms_objective(lambda: CausalLM())
def test_causal_lm(check: Check) -> None:
    check()


@conforms_objective(lambda: CausalLM(z_loss=0.01))
def test_causal_lm_with_z_loss(check: Check) -> None:
    check()


@conforms_objective(lambda: AnswerNLL())
def test_answer_nll(check: Check) -> None:
    check()


@conforms_objective(lambda: BradleyTerry(centering=0.01))
def test_bradley_terry(check: Check) -> None:
    check()


@conforms_objective(lambda: DPO(beta=0.3))
def test_dpo(check: Check) -> None:
    check()


@conforms_objective(lambda: IPO(tau=0.3))
def test_ipo(check: Check) -> None:
    check()


@conforms_objective(lambda: PPO(entropy_coefficient=0.01))
def test_ppo(check: Check) -> None:
    check()


# ---- reward sources --------------------------------------------------------------------------------------------------
@conforms_reward_source(
    lambda: LearnedReward(tiny_policy(scalar_head=True)),
    skip={"arguments_are_attributes": "takes a model; is built by a stage, never from config"},
)
def test_learned_reward(check: Check) -> None:
    check()


# ---- stages ----------------------------------------------------------------------------------------------------------
class Tiny(DataSource):
    """A few records of every kind, in the words of the tiny tokenizer."""

    VERSION: ClassVar[str] = "1"
    NAMES: ClassVar[tuple[str, ...]] = ("ana", "bo", "cy")

    def documents(self, split: Split) -> Sequence[Document]:
        return [Document(f"{n} does like {t}") for n in self.NAMES for t in ("tea", "rain", "bread")]

    def instructions(self, split: Split) -> Sequence[Example]:
        return [Example(Prompt.user(f"what does {n} like ?"), f"{n} does like tea") for n in self.NAMES]

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        return [Comparison(e.prompt, e.answer, "i think not") for e in self.instructions(split)]


OPTIMIZER = AdamW(lr=1e-3, warmup_steps=0)
LOOP = Loop(steps=4, batch_size=4, micro_batch_tokens=64, validate_every=2, log_every=1, save_every=1)
FEW = Sampling(max_new_tokens=4)


def inputs(*names: str) -> Callable[[Path], dict[str, Artifact]]:
    """Writes the named inputs."""
    make = {
        "policy": lambda folder: tiny_policy_artifact(folder / "policy"),
        "preferences": lambda folder: tiny_preferences_artifact(folder / "preferences"),
    }
    return lambda folder: {name: make[name](folder) for name in names}


def pretrain() -> Stage:
    shape = Llama(layers=1, width=16, heads=2, feedforward=32, context=32)
    words = TrainTokenizer(kind="word", vocab_size=64)
    data = Tiny()
    return Pretrain(data=data, model=shape, tokenizer=words, objective=CausalLM(), optimizer=OPTIMIZER, loop=LOOP)


def label() -> Stage:
    looks = Rater("looks", {"words": 1.0})
    return Label(data=Tiny(), preference=Panel({"looks": looks}), sampling=FEW, pairs=6, validation_pairs=3)


def evaluate() -> Stage:
    length = RewardEvaluation(reward=Rater("looks", {"words": 1.0}), data=Tiny())
    return Evaluate(evaluations={"length": length}, sampling=FEW)


@conforms_stage(pretrain)
def test_pretrain_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: SFT(data=Tiny(), objective=AnswerNLL(), optimizer=OPTIMIZER, loop=LOOP, replay=0.25),
    inputs=inputs("policy"),
)
def test_sft_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: RewardModel(objective=BradleyTerry(), optimizer=OPTIMIZER, loop=LOOP),
    inputs=inputs("policy", "preferences"),
)
def test_reward_model_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: DPOStage(objective=DPO(), optimizer=OPTIMIZER, loop=LOOP), inputs=inputs("policy", "preferences")
)
def test_dpo_stage(check: Check) -> None:
    check()


@conforms_stage(label, inputs=inputs("policy"))
def test_label_stage(check: Check) -> None:
    check()


@conforms_stage(evaluate, inputs=inputs("policy"))
def test_evaluate_stage(check: Check) -> None:
    check()


@conforms_stage(lambda: ImportPreferences(data=Tiny()), skip={"reports_progress": "is done at once"})
def test_import_preferences_stage(check: Check) -> None:
    check()


@conforms_stage(
    Report,
    inputs=make_run,
    skip={
        "reports_progress": "is done at once",
        "goes_on_after_a_kill": "says when it was made",
        "same_inputs_make_the_same_artifact": "says when it was made",
    },
)
def test_report_stage(check: Check) -> None:
    check()


# ---- and no one is left out ------------------------------------------------------------------------------------------
CHECKED: dict[str, set[type[Objective[Any]] | type[Stage]]] = {
    "objective": {CausalLM, AnswerNLL, BradleyTerry, DPO, IPO, PPO},
    "reward": set(),
    "stage": {Pretrain, SFT, RewardModel, DPOStage, Label, Evaluate, ImportPreferences, Report},
}
ELSEWHERE = {
    "alignlab_ppo.PPOStage": "plugins/alignlab_ppo/tests/test_conformance.py",
    "alignlab_raters.Rater": "plugins/alignlab_raters/tests/test_raters_conform.py",
    "alignlab_raters.TrueTaste": "plugins/alignlab_raters/tests/test_raters_conform.py",
}


@pytest.mark.parametrize("group", CHECKED)
def test_every_option_that_is_shipped_is_checked(group: str) -> None:
    files = [*ROOT.glob(f"conf/{group}/*.yaml"), *ROOT.glob(f"plugins/*/conf/{group}/*.yaml")]
    named = {yaml.safe_load(file.read_text(encoding="utf-8"))["_target_"] for file in files}
    # A plugin's classes are named by their package, whatever module they stand in.
    names = {cls.__name__ for cls in CHECKED[group]}
    left = {target for target in named - ELSEWHERE.keys() if target.rpartition(".")[2] not in names}
    assert named and not left
    for target, file in ELSEWHERE.items():
        assert target.rpartition(".")[2] in (ROOT / file).read_text(encoding="utf-8")
