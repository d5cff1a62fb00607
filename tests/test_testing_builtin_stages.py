"""Every stage that is shipped passes the conformance kit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from alignlab_distill import ForwardKL
from alignlab_dpo import DPO, PlackettLuce
from alignlab_online_dpo import OnlinePreferences
from alignlab_pretrain import CausalLM, Pretrain
from alignlab_raters import Panel, Rater, StyleOfAnswers
from alignlab_reward_model import BradleyTerry, RewardModel
from alignlab_sft import SFT, AnswerNLL
from report_run import make_run

from alignlab.artifact import Artifact
from alignlab.data.records import Comparison, Document, Example, Prompt
from alignlab.data.source import DataSource, Split
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.evaluation import Compare, Drift, Evaluate, EvaluatePreferences, RewardEvaluation
from alignlab.judgements.aggregation import DawidSkene
from alignlab.policy import Llama, Sampling
from alignlab.preferences import ImportJudgements, ImportPreferences, Label, Rank
from alignlab.report import Report
from alignlab.stage import Stage
from alignlab.testing import (
    Check,
    conforms_stage,
    tiny_policy_artifact,
    tiny_preferences_artifact,
    tiny_rankings_artifact,
)
from alignlab.training import AdamW, AnswerStage, Constant, Loop, PreferenceStage, RankingStage


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


OPTIMIZER = AdamW(lr=1e-3, schedule=Constant())
LOOP = Loop(steps=4, batch_size=4, micro_batch_tokens=64, validate_every=2, log_every=1, save_every=1)
FEW = Sampling(max_new_tokens=12)
NO_TRAINING = dict.fromkeys(
    ("memory_budget_changes_nothing", "the_stop_token_is_scored", "the_reference_stays", "batches_hold_what_was_given"),
    "trains no policy",
)
NO_PAIRS = {"the_reference_stays": "has no reference", "batches_hold_what_was_given": "takes no preferences"}


def inputs(*names: str) -> Callable[[Path], dict[str, Artifact]]:
    """Writes the named inputs."""
    make = {
        "policy": lambda folder: tiny_policy_artifact(folder / "policy"),
        "teacher": lambda folder: tiny_policy_artifact(folder / "teacher", seed=1),
        "baseline": lambda folder: tiny_policy_artifact(folder / "baseline", seed=1),
        "reference": lambda folder: tiny_policy_artifact(folder / "reference", seed=2),
        "reward": lambda folder: tiny_policy_artifact(folder / "reward", seed=1, scalar_head=True),
        "preferences": lambda folder: tiny_preferences_artifact(folder / "preferences"),
        "rankings": lambda folder: tiny_rankings_artifact(folder / "rankings"),
    }
    return lambda folder: {name: make[name](folder) for name in names}


def pretrain() -> Stage:
    shape = Llama(layers=1, width=16, heads=2, feedforward=32, context=32)
    words = TrainTokenizer(kind="word", vocab_size=64)
    data = Tiny()
    return Pretrain(data=data, model=shape, tokenizer=words, objective=CausalLM(), optimizer=OPTIMIZER, loop=LOOP)


def online_preferences() -> Stage:
    return OnlinePreferences(
        data=Tiny(),
        objective=DPO(),
        optimizer=OPTIMIZER,
        loop=replace(LOOP, batch_size=2, keep="last"),
        sampling=FEW,
        prompts_per_rollout=2,
        samples_per_prompt=3,
        validation_prompts=1,
        inputs={"policy": "sft", "reward": "reward_model"},
    )


def label() -> Stage:
    looks = Rater("looks", {"words": 1.0})
    return Label(data=Tiny(), preference=Panel({"looks": looks}), sampling=FEW, pairs=6, validation_pairs=3)


def several() -> Stage:
    looks = {name: Rater(name, {"words": 1.0}, noise=1.0) for name in ("one", "other", "third")}
    few = {"pairs": 6, "validation_pairs": 3}
    return Label(
        data=Tiny(), preference=Panel(looks), sampling=FEW, **few, judgements_per_pair=3, aggregate=DawidSkene()
    )


def evaluate() -> Stage:
    length = RewardEvaluation(reward=Rater("looks", {"words": 1.0}), data=Tiny())
    return Evaluate(evaluations={"length": length}, sampling=FEW)


@conforms_stage(pretrain, skip=NO_PAIRS)
def test_pretrain_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: SFT(data=Tiny(), objective=AnswerNLL(), optimizer=OPTIMIZER, loop=LOOP, replay=0.25),
    inputs=inputs("policy"),
    skip=NO_PAIRS,
)
def test_sft_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: AnswerStage(
        data=Tiny(), objective=ForwardKL(), optimizer=OPTIMIZER, loop=LOOP, inputs={"policy": "sft", "teacher": "dpo"}
    ),
    inputs=inputs("policy", "teacher"),
    skip=NO_PAIRS,
)
def test_distillation_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: RewardModel(objective=BradleyTerry(), optimizer=OPTIMIZER, loop=LOOP),
    inputs=inputs("policy", "preferences"),
    skip={"the_reference_stays": "has no reference"},
)
def test_reward_model_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: PreferenceStage(objective=DPO(), optimizer=OPTIMIZER, loop=LOOP), inputs=inputs("policy", "preferences")
)
def test_preference_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: RankingStage(objective=PlackettLuce(), optimizer=OPTIMIZER, loop=LOOP, inputs={"rankings": "rank"}),
    inputs=inputs("policy", "rankings"),
    skip={"batches_hold_what_was_given": "takes no preferences"},
)
def test_ranking_stage(check: Check) -> None:
    check()


@conforms_stage(
    online_preferences,
    inputs=inputs("policy", "reward"),
    skip={"batches_hold_what_was_given": "takes no preferences"},
)
def test_online_preferences_stage(check: Check) -> None:
    check()


@conforms_stage(label, inputs=inputs("policy"), skip=NO_TRAINING)
def test_label_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: Rank(
        data=Tiny(),
        preference=Panel({"looks": Rater("looks", {"words": 1.0})}),
        sampling=FEW,
        answers=3,
        lists=6,
        validation_lists=3,
    ),
    inputs=inputs("policy"),
    skip=NO_TRAINING,
)
def test_rank_stage(check: Check) -> None:
    check()


@conforms_stage(evaluate, inputs=inputs("policy"), skip=NO_TRAINING)
def test_evaluate_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: Compare(data=Tiny(), preference=Panel({"looks": Rater("looks", {"words": 1.0})}), sampling=FEW),
    inputs=inputs("policy", "baseline"),
    skip=NO_TRAINING,
)
def test_compare_stage(check: Check) -> None:
    check()


@conforms_stage(lambda: EvaluatePreferences(), inputs=inputs("reward", "preferences"), skip=NO_TRAINING)
def test_evaluate_preferences_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: Drift(data=Tiny(), sampling=FEW, inputs={"policy": "dpo", "reference": "sft", "reward": "reward_model"}),
    inputs=inputs("policy", "reference", "reward"),
    skip=NO_TRAINING,
)
def test_drift_stage(check: Check) -> None:
    check()


@conforms_stage(lambda: ImportPreferences(data=Tiny()), skip={**NO_TRAINING, "reports_progress": "is done at once"})
def test_import_preferences_stage(check: Check) -> None:
    check()


@conforms_stage(
    lambda: ImportJudgements(files=str(Path(__file__).parent / "judgements" / "people.jsonl")),
    skip={**NO_TRAINING, "reports_progress": "is done at once"},
)
def test_import_judgements_stage(check: Check) -> None:
    check()


@conforms_stage(lambda: StyleOfAnswers(data=Tiny()), skip={**NO_TRAINING, "reports_progress": "is done at once"})
def test_style_stage(check: Check) -> None:
    check()


@conforms_stage(several, inputs=inputs("policy"), skip=NO_TRAINING)
def test_label_stage_with_several_judgements(check: Check) -> None:
    check()


@conforms_stage(
    Report,
    inputs=make_run,
    skip={
        **NO_TRAINING,
        "reports_progress": "is done at once",
        "continues_after_a_kill": "states when it was made",
        "same_inputs_make_the_same_artifact": "states when it was made",
    },
)
def test_report_stage(check: Check) -> None:
    check()
