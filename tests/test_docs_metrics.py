"""docs/metrics.yaml names all that the built-in objectives, stages and evaluations log or return, and nothing else."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import docs_pages
import pytest
import torch
import yaml
from alignlab_best_of_n import BestOfN
from alignlab_best_of_n import stage as best_of_n
from alignlab_distill import ForwardKL, OnPolicyDistillation, ReverseKL
from alignlab_dpo import DPO, PlackettLuce
from alignlab_grpo import DAPO, GRPO, DynamicSampling, GroupRelative, TruncatedImportance
from alignlab_kto import KTO
from alignlab_merge import Average
from alignlab_online_dpo import OnlinePreferences
from alignlab_ppo import GAE, PPO, PPOStage
from alignlab_pretrain import CausalLM, Pretrain
from alignlab_raters import StyleEvaluation
from alignlab_reward_model import BradleyTerry, RatedRewardModel, RewardModel, ScoreRegression
from alignlab_reward_model import stage as reward_stage
from alignlab_sft import SFT, AnswerNLL
from training_runs import Heard

from alignlab import Choice, Objective, Pair, Preference, RewardSource, Scores, Stage, TokenStats
from alignlab.artifact import Artifact
from alignlab.batch import Batch, LabelledBatch, PreferenceBatch, RolloutBatch, TokenBatch
from alignlab.config.check import parse
from alignlab.data.files import Files
from alignlab.data.preferences import row, write
from alignlab.data.records import Comparison, Document, Example, Prompt
from alignlab.data.source import DataSource, Split
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.data.world import World
from alignlab.evaluation import (
    CalibrationEvaluation,
    Compare,
    Drift,
    Evaluate,
    EvaluatePreferences,
    Evaluation,
    FilesEvaluation,
    InstructionsEvaluation,
    RefusalEvaluation,
    RewardEvaluation,
    WorldEvaluation,
    WorldRefusal,
)
from alignlab.evaluation import compare as compare_stage
from alignlab.evaluation import preferences as preferences_stage
from alignlab.instructions import KINDS
from alignlab.metrics import Column
from alignlab.policy import Llama, Sampling
from alignlab.preferences import ImportJudgements, ImportPreferences, Label, Rank, label
from alignlab.preferences import rank as rank_stage
from alignlab.reward import Candidates, Order, Ranker
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import tiny_policy, tiny_policy_artifact, tiny_rankings_artifact
from alignlab.training import (
    AdamW,
    AnswerStage,
    Constant,
    LabelledStage,
    Loop,
    PolicyGradientStage,
    PreferenceStage,
    RankingStage,
)
from alignlab.training.step import step_constants

ROOT = docs_pages.DOCS.parent
JUDGED = Path(__file__).parent / "judgements" / "people.jsonl"
SECTIONS = yaml.safe_load((docs_pages.DOCS / "metrics.yaml").read_text(encoding="utf-8"))
NAMES = {"both": ("train/{}", "validation/{}", "validation_{}"), "train": ("train/{}",), "result": ("{}",)}
NAMES["validation"] = ("validation/{}", "validation_{}")


CHOSEN = {
    "PART": "words", "RATING": "likes", "SUBSET": "tea", "PROFILE": "profile", "KIND": "punctuation_no_comma",
    "TYPE": "drinks",
}  # fmt: skip
"""Names that the configurations below choose."""


def described(owners: set[str]) -> set[str]:
    """Names, as they are logged, of the metrics that are described for some classes."""
    sections = [s for s in SECTIONS if owners & set(s["of"])]
    pairs = [(name, about["where"]) for s in sections for name, about in s["metrics"].items()]
    return {pattern.format(name) for name, where in pairs for pattern in NAMES[where]}


def unknown(found: set[str], known: set[str]) -> set[str]:
    """Names that are not described; a word in capitals stands for the names that a configuration chooses."""
    chosen = {name.replace("GROUP", group) for name in known for group in ("policy", "critic")}
    chosen = {name.replace("REWARD", reward) for name in chosen for reward in ("true_taste", "reward")}
    for word, name in CHOSEN.items():
        chosen = {known.replace(word, name) for known in chosen}
    ends = {f"{name}_{end}" for name in found for end in ("low", "high")}  # of intervals
    return found - chosen - ends


# ---- objectives ------------------------------------------------------------------------------------------------------
def objectives() -> list[Objective[Any]]:
    """Each objective that an option of this repository names, unless it is made of others."""
    contents = [yaml.safe_load(f.read_text(encoding="utf-8")) for f in ROOT.glob("plugins/*/conf/objective/*.yaml")]
    plain = sorted((c for c in contents if not c.keys() & {"defaults", "objectives"}), key=lambda c: str(c["_target_"]))
    return [parse(content, "objective").build() for content in plain]


def batch_for(objective: Objective[Any]) -> Batch:
    """Four sequences with everything that the objective reads."""
    kinds = (LabelledBatch, PreferenceBatch, RolloutBatch, TokenBatch)
    kind = next(k for k in kinds if issubclass(k, objective.takes or Batch))
    paired = "mismatched" in objective.reads
    batch = kind.of([[1, 2, 3]] * 4, [[False, True, True]] * 4, unit=[0, 0, 1, 1] if paired else None)
    numbers = {name: torch.linspace(-1, 1, batch.num_tokens) for name in objective.reads}
    named = objective.reads & (PreferenceStage.PROVIDES | {"ratings"})
    notes = {name: torch.full((batch.num_units, 1) if name == "ratings" else (batch.num_units,), 0.5) for name in named}
    return batch.with_tokens(**numbers).with_units(**notes, desirable=torch.arange(batch.num_units).float())


@pytest.mark.parametrize("objective", objectives(), ids=lambda o: type(o).__name__)
def test_an_objectives_metrics_are_described(objective: Objective[Any]) -> None:
    def stats(part: Batch) -> TokenStats:
        sizes = {"score": (part.num_sequences,), "scores": (part.num_sequences, 1)}
        return TokenStats({n: -torch.ones(sizes.get(n, (part.num_tokens,))) for n in objective.needs})

    batch = batch_for(objective)
    part = batch.trained().with_constants(step_constants(objective, [batch], stats))
    found = {f"train/{name}" for name in objective(stats(part), part).metrics}
    assert found == {n for n in described({type(objective).__name__}) if n.startswith("train/")}


# ---- stages ----------------------------------------------------------------------------------------------------------
class Tiny(DataSource):
    """A few records of every kind, in the words of the tiny tokenizer."""

    VERSION: ClassVar[str] = "1"
    NAMES: ClassVar[tuple[str, ...]] = ("ana", "bo", "cy")

    def documents(self, split: Split) -> Sequence[Document]:
        return [Document(f"{n} does like tea") for n in self.NAMES]

    def instructions(self, split: Split) -> Sequence[Example]:
        asked = [(Prompt.user(f"what does {n} like ?"), f"{n} does like tea") for n in self.NAMES]
        return [Example(prompt, answer, scores={"likes": 1.0}) for prompt, answer in asked]

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        asked = [replace(e.prompt, facts=(("subset", "tea"),)) for e in self.instructions(split)]
        return [Comparison(p, e.answer, "i think not") for p, e in zip(asked, self.instructions(split), strict=True)]


class Brief(RewardSource):
    """A tenth of a unit off per word."""

    VERSION: ClassVar[str] = "1"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
        return torch.tensor([-0.1 * len(answer.split()) for answer in answers])


class BriefInParts(Brief):
    """The same, and the number of words."""

    VERSION: ClassVar[str] = "1"
    parts = ("words",)

    def score_in_parts(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        total = self.score(prompts, answers)
        return Scores(total, {"words": -10 * total})


class First(Preference):
    """Always the first answer."""

    VERSION: ClassVar[str] = "1"

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        return [Choice(True, 1.0, "first") for _ in pairs]


class AsShown(Ranker):
    """The order in which the answers are shown."""

    VERSION: ClassVar[str] = "1"

    def rank(self, lists: Sequence[Candidates], index: Sequence[int]) -> list[Order]:
        return [Order(tuple(range(len(shown.answers))), 1.0, "as shown") for shown in lists]


PARTS: dict[str, Any] = {
    "optimizer": AdamW(lr=1e-3, schedule=Constant(warmup_steps=0)),
    "loop": Loop(steps=1, batch_size=2, validate_every=1, log_every=1),
}
FEW = Sampling(max_new_tokens=3)
DATA: dict[str, Any] = {"data": Tiny()}
ONLINE: dict[str, Any] = {**PARTS, **DATA, "reward": BriefInParts(), "sampling": FEW, "prompts_per_rollout": 2}
STAGES: dict[str, Callable[[], Stage]] = {
    "pretrain": lambda: Pretrain(
        **PARTS, **DATA, objective=CausalLM(), model=Llama(layers=1, width=16, heads=2, feedforward=16, context=32),
        tokenizer=TrainTokenizer("word", 64),
    ),
    "sft": lambda: SFT(**PARTS, **DATA, objective=AnswerNLL()),
    "distill": lambda: AnswerStage(**PARTS, **DATA, objective=ForwardKL()),
    "on_policy_distill": lambda: OnPolicyDistillation(
        **{**ONLINE, "reward": None}, objective=ReverseKL(), samples_per_prompt=1
    ),
    "dpo": lambda: PreferenceStage(**PARTS, objective=DPO()),
    "reward_model": lambda: RewardModel(**PARTS, objective=BradleyTerry()),
    "rated_reward_model": lambda: RatedRewardModel(**PARTS, **DATA, objective=ScoreRegression(), ratings=["likes"]),
    "kto": lambda: LabelledStage(**PARTS, objective=KTO()),
    "online_dpo": lambda: OnlinePreferences(**ONLINE, objective=DPO(), samples_per_prompt=2),
    "grpo": lambda: PolicyGradientStage(**ONLINE, objective=GRPO(), advantage=GroupRelative(), samples_per_prompt=2),
    "dapo": lambda: DynamicSampling(**ONLINE, objective=DAPO(), advantage=GroupRelative(), samples_per_prompt=2),
    "truncated_importance": lambda: PolicyGradientStage(
        **ONLINE, objective=TruncatedImportance(DAPO()), advantage=GroupRelative(), samples_per_prompt=2
    ),
    "ppo": lambda: PPOStage(**ONLINE, objective=PPO(), advantage=GAE(), samples_per_prompt=1),
    "label": lambda: Label(**DATA, preference=First(), sampling=FEW, pairs=8, validation_pairs=8, reference=Brief()),
    "label_several": lambda: Label(
        **DATA, preference=First(), sampling=FEW, pairs=8, validation_pairs=8, reference=Brief(), judgements_per_pair=3
    ),
    "plackett_luce": lambda: RankingStage(**PARTS, objective=PlackettLuce(), inputs={"rankings": "rank"}),
    "rank": lambda: Rank(
        **DATA, preference=AsShown(), sampling=FEW, answers=3, lists=8, validation_lists=8, reference=Brief()
    ),
    "best_of_n": lambda: BestOfN(
        **DATA, reward=BriefInParts(), sampling=Sampling(max_new_tokens=12), prompts=8, validation_prompts=4
    ),
    "average": lambda: Average(),
    "import_preferences": lambda: ImportPreferences(**DATA),
    "import_judgements": lambda: ImportJudgements(files=str(JUDGED)),
    "compare": lambda: Compare(**DATA, preference=First(), sampling=FEW),
    "evaluate_preferences": lambda: EvaluatePreferences(**DATA, preference=First()),
    "evaluate_rewarded": lambda: EvaluatePreferences(**DATA, reward=BriefInParts(), by="subset"),
    "drift": lambda: Drift(**DATA, sampling=FEW, rewards={"true_taste": Brief()}),
    "by_reward": lambda: Evaluate(evaluations={"reward": RewardEvaluation(BriefInParts(), Tiny())}, sampling=FEW),
}  # fmt: skip
"""One stage for each kind; what they log is described for their classes and those of their objectives."""
GIVEN: dict[str, tuple[str, ...]] = {
    "pretrain": (),
    **dict.fromkeys(("distill", "on_policy_distill"), ("policy", "teacher")),
    **dict.fromkeys(("import_preferences", "import_judgements"), ()),
    "plackett_luce": ("policy", "rankings"),
    **dict.fromkeys(("dpo", "reward_model", "kto"), ("policy", "preferences")),
    **dict.fromkeys(("evaluate_preferences", "evaluate_rewarded"), ()),
    "compare": ("policy", "baseline"),
    "drift": ("policy", "reference"),
}
"""Inputs of a stage, where they are more or less than a policy."""
CONDITIONAL = {
    "accuracy_ceiling_one_score", "agreement_with_reference", "accuracy_ceiling_known_rater", "raters_agree",
    "krippendorff_alpha", "tied", "length_controlled_win_rate", "accuracy_of_subsets", "prefers_shown_first",
    "consistent", "proxy_reward",
}  # fmt: skip
"""Logged for raters, simulated ones, subsets, several judgements of a pair, a reward model, or where lengths differ."""


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("artifacts")
    policy = tiny_policy_artifact(folder / "policy")
    preferences = folder / "preferences"
    preferences.mkdir()
    splits: tuple[Split, ...] = ("train", "validation")
    write(preferences, [row(pair, split) for split in splits for pair in Tiny().comparisons(split)])
    given = {"preferences": Artifact.open(preferences), "rankings": tiny_rankings_artifact(folder / "rankings")}
    return {**dict.fromkeys(("policy", "teacher", "baseline", "reference"), policy), **given}


def run(stage: Stage, inputs: Mapping[str, Artifact], folder: Path) -> set[str]:
    """Names of all that a stage logs and returns."""
    heard = Heard()
    context = StageContext("metrics", folder / "out", folder / "work", Runtime("cpu"), heard)
    for path in (context.folder, context.work):
        path.mkdir()
    result = stage.run(inputs, context)
    return {name for line in heard.logged for name in line if name != "step"} | set(result)


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_logs_is_described(name: str, artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    stage: Any = STAGES[name]()
    found = run(stage, {key: artifacts[key] for key in GIVEN.get(name, ("policy",))}, tmp_path)
    objective = getattr(stage, "objective", None)
    parts = [stage, objective, getattr(objective, "objective", None), *getattr(stage, "evaluations", {}).values()]
    known = described({cls.__name__ for part in parts for cls in type(part).__mro__})
    assert found and not unknown(found, known)
    promised = {n for n in described({type(stage).__name__}) if n.isidentifier() and n.islower()}
    assert not promised - found - CONDITIONAL


# ---- evaluations -----------------------------------------------------------------------------------------------------
def evaluations(folder: Path) -> list[Any]:
    """The evaluations that the lifecycles run, on very little."""
    names = [*Tiny.NAMES, "somebody", "nobody"]
    pairs = [{"prompt": f"what does {n} like ?", "chosen": "tea", "rejected": "rain"} for n in names]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    (folder / "corpus.txt").write_text("\n\n".join(f"{n} does like tea" for n in names), encoding="utf-8")
    given = {"corpus": str(folder / "corpus.txt"), "preferences": str(folder / "pairs.jsonl")}
    files = Files(**given, instructions=given["preferences"], validation_fraction=0.5, document_characters=0)
    world = World(entities=8, unknown=2, relations=2, training_documents=40, training_instructions=40)
    told = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    lines = [{"prompt": p["prompt"], **told} for p in pairs]
    (folder / "told.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    following = InstructionsEvaluation(str(folder / "told.jsonl"))
    asked = [{"prompt": p["prompt"], "refuse": bool(n % 2), "type": "drinks"} for n, p in enumerate(pairs)]
    (folder / "refuse.jsonl").write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    return [
        WorldEvaluation(world, 1, {"true_taste": Brief()}),
        FilesEvaluation(files),
        RewardEvaluation(BriefInParts(), Tiny()),
        CalibrationEvaluation(world),
        StyleEvaluation(Tiny()),
        following,
        RefusalEvaluation(str(folder / "refuse.jsonl")),
    ]


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 6])
def test_what_an_evaluation_measures_is_described(number: int, tmp_path: Path) -> None:
    evaluation = evaluations(tmp_path)[number]
    found = set(evaluation(tiny_policy(), FEW, seed=0).metrics)
    assert found and not unknown(found, described({type(evaluation).__name__}))


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 6])
def test_an_evaluations_columns_are_the_references(number: int, tmp_path: Path) -> None:
    """One text for each metric: what `docs/metrics.md` says is what tables and the report show."""
    evaluation: Evaluation = evaluations(tmp_path)[number]
    source = (BriefInParts() if number == 2 else Brief()).describe()
    (section,) = (s for s in SECTIONS if type(evaluation).__name__ in s["of"])
    shown = {}
    for name, about in section["metrics"].items():
        name = name.replace("REWARD", "true_taste" if number == 0 else "reward").replace("PART", "words")
        name = name.replace("PROFILE", "profile").replace("TYPE", "drinks")
        text = re.sub(r"(?:that|the) reward source", source, about["text"]).replace("TYPE", "drinks")
        for kind in KINDS if "KIND" in name else [""]:
            one = name.replace("KIND", kind.replace(":", "_"))
            shown[one] = (text.replace("KIND", kind), about["unit"], about.get("better"))
    assert shown == as_shown(evaluation.columns)


def test_what_the_worlds_refusals_add_is_the_references() -> None:
    (section,) = (s for s in SECTIONS if "WorldRefusal" in s["of"])
    shown = {name: (about["text"], about["unit"], about.get("better")) for name, about in section["metrics"].items()}
    assert shown == as_shown(WorldRefusal.MORE)


@pytest.mark.parametrize(
    ("owner", "columns"),
    [
        ("Label", label.COLUMNS),
        ("Rank", rank_stage.COLUMNS),
        ("RewardModel", reward_stage.COLUMNS),
        ("BestOfN", best_of_n.COLUMNS),
        ("Compare", compare_stage.columns("")),
        ("EvaluatePreferences", preferences_stage.columns("", ["SUBSET"], ["PART"])),
    ],
)
def test_a_stages_columns_are_the_references(owner: str, columns: Sequence[Column]) -> None:
    (section,) = (s for s in SECTIONS if owner in s["of"])
    shown = {name: (m["text"], m["unit"], m.get("better")) for name, m in section["metrics"].items()}
    assert shown == as_shown(columns)


def as_shown(columns: Sequence[Column]) -> dict[str, tuple[str, str, str | None]]:
    """Text, unit and direction of each metric, as docs/metrics.yaml has them."""
    words = {1: "higher", -1: "lower", 0: None}
    return {c.metric: (c.meaning, "share" if c.share else c.unit, words[c.better]) for c in columns}
