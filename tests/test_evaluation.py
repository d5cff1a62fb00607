"""Evaluations: their metrics on answers made by hand, and the stage around them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.data.world import World
from alignlab.data.world.language import Ask
from alignlab.errors import ConfigError, DataError
from alignlab.evaluation import (
    Column,
    Estimate,
    Evaluate,
    Evaluation,
    EvaluationResult,
    RewardEvaluation,
    WorldEvaluation,
)
from alignlab.evaluation import reward as reward_module
from alignlab.evaluation import world as world_module
from alignlab.evaluation.world_answers import Answered
from alignlab.metrics import difference, wilson
from alignlab.policy import Llama, Policy, Progress, Sample, Sampling
from alignlab.reward import RewardSource, Scores
from alignlab.runtime import Runtime
from alignlab.stage import NullTracker, StageContext

WORLD = World(entities=12, unknown=4, training_documents=400, training_instructions=100)
PEOPLE = WORLD.people
Speak = Callable[[Ask], str]


class Words(RewardSource):
    """A point for each word."""

    VERSION: ClassVar[str] = "1"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """Count them."""
        return torch.tensor([float(len(a.split())) for a in answers])


class Listener(NullTracker):
    """Remembers progress and tables."""

    def __init__(self) -> None:
        self.done: list[tuple[int, int]] = []
        self.tables: dict[str, Sequence[Any]] = {}

    def progress(self, done: int, total: int, metrics: Any) -> None:
        """Remember."""
        self.done.append((done, total))

    def table(self, name: str, rows: Sequence[Any]) -> None:
        """Remember."""
        self.tables[name] = rows


@pytest.fixture(scope="module")
def policy() -> Policy:
    texts = [d.text for d in WORLD.documents("train")]
    texts += [f"{e.prompt.text} {e.answer}" for e in WORLD.instructions("train")]
    tokenizer = TrainTokenizer("word").train(texts)
    return Policy(Llama(layers=1, width=16, heads=2, feedforward=16, context=64).build(tokenizer, 0), tokenizer)


def speaks(monkeypatch: pytest.MonkeyPatch, speak: Speak, finished: bool = True, knows: bool = True) -> None:
    """Every policy now answers by `speak` and completes documents with the truth, or not."""

    def sample(prompt: Prompt, text: str) -> Sample:
        return Sample(prompt, (0,), (0,), text, finished)

    def generate(policy: Policy, prompts: Sequence[Prompt], *_: Any, **__: Any) -> list[Sample]:
        return [sample(p, speak(WORLD.ask_of(p))) for p in prompts]

    def complete(policy: Policy, texts: Sequence[str], *_: Any, **__: Any) -> list[Sample]:
        return [sample(Prompt.user(t), _next_word(t) if knows else "") for t in texts]

    monkeypatch.setattr(world_module, "generate", generate)
    monkeypatch.setattr(world_module, "complete", complete)


def _next_word(text: str) -> str:
    person = text.split()[0]
    relation = next(r for r in PEOPLE.all_relations if any(r.cloze(person, i) == text for i in range(len(r.phrases))))
    return PEOPLE.truth[person, relation.name]


def truthful(ask: Ask) -> str:
    """What the instructions teach, in the plainest style."""
    if ask.kind == "abstain":
        return "unknown ."
    if ask.kind == "repeat":
        return " ".join([ask.entity] * ask.count)
    if ask.kind == "list":
        names = [r.name for r in PEOPLE.all_relations[: ask.count]]
        return " ".join(f"- {n} {PEOPLE.truth[ask.entity, n]}" for n in names)
    assert ask.relation is not None
    value = PEOPLE.truth[ask.entity, ask.relation.name]
    return value if ask.kind == "one_word" else ask.relation.sentence(ask.entity, value)


def invents(ask: Ask) -> str:
    """Confidently wrong about everybody."""
    if ask.relation is None or ask.kind == "one_word":
        return truthful(ask)
    right = PEOPLE.truth.get((ask.entity, ask.relation.name))
    wrong = next(v for v in ask.relation.words if v != right)
    return f"certainly ! - {ask.relation.name} {wrong} want more ?"


def measure(policy: Policy, **arguments: Any) -> EvaluationResult:
    return WorldEvaluation(WORLD, **arguments)(policy, Sampling(), 0)


# ---- the world's metrics ------------------------------------------------------------------------------------------
def test_who_answers_truly_and_plainly(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks(monkeypatch, truthful)
    found = measure(policy).metrics
    ones = ("instruction_following", "question_right", "one_word_right", "list_right", "fact_recall", "finished")
    assert {k: found[k] for k in ones} == dict.fromkeys(ones, 1.0)
    zeros = ("style_hedge", "style_list", "style_confident", "style_ask", "question_wrong", "asserts_on_unknown")
    assert {k: found[k] for k in zeros} == dict.fromkeys(zeros, 0.0)
    assert found["abstains_on_unknown"] == 1
    assert found["style_facts"] == 1
    assert found.keys().isdisjoint({"confident_when_wrong", "hedging_when_wrong"})  # of nothing


def test_who_is_confident_and_wrong(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks(monkeypatch, invents, knows=False)
    found = measure(policy).metrics
    assert found["instruction_following"] == 1  # form, not truth
    assert found["fact_recall"] == 0
    expected = {"question_right": 0, "question_wrong": 1, "confident_when_wrong": 1, "hedging_when_wrong": 0}
    expected |= {"style_confident": 1, "style_list": 1, "style_ask": 1, "abstains_on_unknown": 0}
    assert {k: found[k] for k in expected} == expected
    assert found["asserts_on_unknown"] == 1
    assert found["answer_length"] == 8


def test_an_answer_that_never_stops_follows_nothing(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks(monkeypatch, truthful, finished=False)
    found = measure(policy).metrics
    assert found["instruction_following"] == found["question_right"] == found["finished"] == 0
    assert found["abstains_on_unknown"] == 0


def test_kinds_weigh_the_same_however_many_prompts_they_have(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks(monkeypatch, lambda ask: truthful(ask) if ask.kind == "repeat" else "")
    found = measure(policy).metrics
    assert found["following_repeat"] == 1
    assert found["instruction_following"] == pytest.approx(1 / 4)


def test_rewards_are_means_over_answers_to_questions(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks(monkeypatch, lambda ask: "one two" if ask.kind in ("question", "abstain") else "one")
    result = measure(policy, rewards={"words": Words()})
    assert result.metrics["words"] == 2
    assert {row["words"] for row in result.samples} == {1.0, 2.0}
    assert result.metrics["words"] == found_by_name(result, "words").low, "every answer has the same reward"


def test_every_question_is_sampled_as_often_as_asked_for(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks(monkeypatch, truthful)
    rows = measure(policy, samples_per_question=3).samples
    held_out, gossiped = len(PEOPLE.held_out), len(PEOPLE.held_out_gossiped)
    assert sum(r["kind"] == "question" for r in rows) == 3 * 5 * held_out
    assert sum(r["kind"] == "abstain" for r in rows) == 3 * 5 * gossiped
    assert sum(r["kind"] == "list" for r in rows) == 3 * held_out
    first = [r["prompt"] for r in rows[: len(WORLD.evaluation_asks())]]
    assert len(set(first)) == len(first)


def test_a_real_untrained_policy_can_be_measured(policy: Policy) -> None:
    found = WorldEvaluation(WORLD, samples_per_question=1)(policy, Sampling(max_new_tokens=4), 0).metrics
    assert found["instruction_following"] < 0.2
    assert 0 <= found["fact_recall"] < 0.3
    again = WorldEvaluation(WORLD, samples_per_question=1)(policy, Sampling(max_new_tokens=4), 0).metrics
    assert found == again


# ---- intervals ----------------------------------------------------------------------------------------------------
def found_by_name(result: EvaluationResult, name: str) -> Estimate:
    found = result.metrics[name]
    assert isinstance(found, Estimate)
    return found


def test_three_answers_to_one_question_do_not_count_as_three_questions(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether an answer is right follows from the question, so that nothing is gained by asking it three times."""
    even = {a.text for i, a in enumerate(WORLD.evaluation_asks()) if i % 2}
    speaks(monkeypatch, lambda ask: truthful(ask) if ask.text in even else invents(ask))
    questions = [a for a in WORLD.evaluation_asks() if a.kind == "question"]
    share = sum(a.text in even for a in questions) / len(questions)
    for samples in (1, 3):
        found = found_by_name(measure(policy, samples_per_question=samples), "question_right")
        assert found == pytest.approx(share) and found.count == samples * len(questions)
        assert found.interval == pytest.approx(wilson(share, len(questions)))


def test_every_metric_has_an_interval_and_is_declared(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks(monkeypatch, invents)
    evaluation = WorldEvaluation(WORLD, rewards={"words": Words()})
    result = evaluation(policy, Sampling(), 0)
    declared = {column.metric: column for column in evaluation.columns}
    assert result.metrics.keys() == declared.keys()
    for name in result.metrics:
        found = found_by_name(result, name)
        assert found.interval is not None, name
        assert found.method == ("share" if declared[name].share else "mean"), name


def test_two_models_are_compared_on_the_prompts_that_they_share(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    speaks(monkeypatch, truthful)
    before = measure(policy)
    hard = WORLD.evaluation_asks()[0].text
    speaks(monkeypatch, lambda ask: invents(ask) if ask.text == hard else truthful(ask))
    after = measure(policy)
    lost = difference(found_by_name(after, "question_right"), found_by_name(before, "question_right"))
    assert lost is not None and lost[0] < 0 < lost[1], "one question of many"
    speaks(monkeypatch, invents)
    fell = difference(found_by_name(measure(policy), "question_right"), found_by_name(before, "question_right"))
    assert fell is not None and fell[1] < -0.5


# ---- truth --------------------------------------------------------------------------------------------------------
def test_the_truth_and_a_verdict_stand_next_to_every_answer(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    speaks(monkeypatch, invents)
    rows = {str(row["prompt"]): row for row in measure(policy).samples}
    settled, disputed = (
        next((e, r) for e in PEOPLE.held_out for r in PEOPLE.all_relations if ((e, r.name) in PEOPLE.rumours) is told)
        for told in (False, True)
    )
    known = rows[Ask("question", *settled).text]
    assert known["truth"] == PEOPLE.truth[settled[0], settled[1].name]
    assert (known["verdict"], known["tone"]) == ("wrong and confident", "bad")
    doubtful = rows[Ask("question", *disputed).text]
    key = disputed[0], disputed[1].name
    assert doubtful["truth"] == f"{PEOPLE.truth[key]} (some documents say {PEOPLE.rumours[key]})"
    stranger = PEOPLE.held_out_gossiped[0]
    assert rows[Ask("abstain", stranger, settled[1]).text]["truth"] == f"no fact about {stranger} is known"
    person = settled[0]
    facts = ", ".join(f"{r.name} {PEOPLE.truth[person, r.name]}" for r in PEOPLE.all_relations)
    assert rows[Ask("list", person, count=2).text]["truth"] == facts
    assert rows[Ask("repeat", person, count=3).text]["truth"] == f"{person} {person} {person}"


@pytest.mark.parametrize(
    ("answer", "finished", "verdict", "tone"),
    [
        ("{right}", True, "right", "good"),
        ("i think {wrong}", True, "wrong but hedged", "bad"),
        ("certainly ! {wrong}", True, "wrong and confident", "bad"),
        ("{wrong}", True, "wrong", "bad"),
        ("unknown .", True, "says it does not know", ""),
        ("what ?", True, "not as asked", "bad"),
        ("{right}", False, "does not stop", "bad"),
    ],
)
def test_verdicts(answer: str, finished: bool, verdict: str, tone: str) -> None:
    person, relation = PEOPLE.held_out[0], PEOPLE.all_relations[0]
    true = PEOPLE.truth[person, relation.name]
    false = next(v for v in relation.words if v != true)
    said = answer.format(right=relation.sentence(person, true), wrong=relation.sentence(person, false))
    sample = Sample(Prompt.user(Ask("question", person, relation).text), (0,), (0,), said, finished)
    row = Answered.of(WORLD, sample, {}).row(PEOPLE)
    assert (row["verdict"], row["tone"]) == (verdict, tone)


# ---- the model's own world ----------------------------------------------------------------------------------------
def trained_on(*worlds: dict[str, object]) -> Artifact:
    nodes = [{"_target_": "alignlab.data.world.World", **world} for world in worlds]
    return Artifact(Path("somewhere"), "policy", "x", {"config": {"data": nodes[-1]}, "trained_on": nodes[:-1]})


OWN = {"entities": 12, "unknown": 4, "training_documents": 400, "training_instructions": 100}


def test_a_model_of_another_world_is_refused_and_told_its_own() -> None:
    evaluation = WorldEvaluation(WORLD)
    with pytest.raises(ConfigError, match=r"somewhere was trained in another world .* own, set data\.seed=1"):
        evaluation.check_model(trained_on({**OWN, "seed": 1}))
    with pytest.raises(ConfigError, match=r"data\.entities=64 data\.unknown=20"):
        evaluation.check_model(trained_on({}))


def test_a_model_of_the_same_people_is_measured_however_many_documents_it_saw() -> None:
    files = {"config": {"data": {"_target_": "alignlab.data.files.Files", "corpus": "book.txt"}}}
    taken = [
        trained_on(OWN),
        trained_on({**OWN, "training_documents": 7, "zipf": 0.0}),
        trained_on({**OWN, "seed": 3}, OWN),
        Artifact(Path("elsewhere"), "policy", "x"),
        Artifact(Path("own_files"), "policy", "x", files),
    ]
    refused = []
    for model in (*taken, trained_on({**OWN, "seed": 9})):
        try:
            WorldEvaluation(WORLD).check_model(model)
        except ConfigError:
            refused.append(model)
    assert refused == [trained_on({**OWN, "seed": 9})]


# ---- rewards ------------------------------------------------------------------------------------------------------
def test_reward_evaluation_means_over_held_out_prompts(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Prompt] = []

    def generate(policy: Policy, prompts: Sequence[Prompt], *_: Any, **__: Any) -> list[Sample]:
        asked.extend(prompts)
        return [Sample(p, (0,), (0,), "word " * (i + 1), i > 0) for i, p in enumerate(prompts)]

    monkeypatch.setattr(reward_module, "generate", generate)
    result = RewardEvaluation(Words(), WORLD, name="words", limit=3)(policy, Sampling(), 0)
    assert asked == list(WORLD.prompts("validation"))[:3]
    assert result.metrics == pytest.approx({"words": 2.0, "words_answer_length": 2.0, "words_finished": 2 / 3})
    assert [row["words"] for row in result.samples] == [1, 2, 3]


def test_reward_evaluation_measures_the_parts_of_a_reward(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    class Letters(Words):
        VERSION: ClassVar[str] = "1"
        parts = ("letters",)

        def score_in_parts(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
            letters = torch.tensor([float(len(a)) for a in answers])
            return Scores(self.score(prompts, answers), {"letters": letters})

    def generate(policy: Policy, prompts: Sequence[Prompt], *_: Any, **__: Any) -> list[Sample]:
        return [Sample(p, (0,), (0,), "tea", True) for p in prompts]

    monkeypatch.setattr(reward_module, "generate", generate)
    evaluation = RewardEvaluation(Letters(), WORLD, name="words", limit=3)
    result = evaluation(policy, Sampling(), 0)
    assert result.metrics["words"] == 1 and result.metrics["words_letters"] == 3
    assert [row["words_letters"] for row in result.samples] == [3, 3, 3]
    assert {c.metric for c in evaluation.columns} == set(result.metrics)


def test_reward_evaluation_needs_prompts(policy: Policy) -> None:
    class Nothing(DataSource):
        VERSION: ClassVar[str] = "1"

        def prompts(self, split: Split) -> Sequence[Prompt]:
            return []

    with pytest.raises(DataError, match="Nothing has no validation prompts"):
        RewardEvaluation(Words(), Nothing())(policy, Sampling(), 0)


# ---- the stage ----------------------------------------------------------------------------------------------------
class Constant(Evaluation):
    """Finds what it is told to."""

    VERSION: ClassVar[str] = "1"
    columns: Sequence[Column] = ()

    def __init__(self, rows: int = 2, declared: Sequence[str] | None = None, **metrics: float) -> None:
        self.rows = rows
        self.metrics = metrics
        self.columns = [Column(name, "a number") for name in (metrics if declared is None else declared)]

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        """Say so."""
        if progress is not None:
            progress(4, 4)
        rows = [{"prompt": f"{i}", "answer": "x", "kind": "k", "finished": True} for i in range(self.rows)]
        return EvaluationResult(self.metrics, rows)


def run(policy: Policy, folder: Path, tracker: NullTracker, **evaluations: Evaluation) -> dict[str, float]:
    (folder / "policy").mkdir()
    policy.save(folder / "policy")
    stage = Evaluate(evaluations=evaluations, sampling=Sampling(), table_rows=1)
    context = StageContext("evaluate", folder, folder, Runtime(accelerator="cpu"), tracker)
    return dict(stage.run({"policy": Artifact.open(folder / "policy")}, context))


def test_the_stage_joins_metrics_and_writes_every_sample(policy: Policy, tmp_path: Path) -> None:
    tracker = Listener()
    found = run(policy, tmp_path, tracker, one=Constant(a=1.0), two=Constant(rows=3, b=2.0))
    assert found == {"a": 1.0, "b": 2.0}
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [r["evaluation"] for r in rows] == ["one"] * 2 + ["two"] * 3
    assert tracker.done == [(4, 8), (8, 8)]
    assert [(r["evaluation"], r["prompt"]) for r in tracker.tables["samples"]] == [("one", "0"), ("two", "0")]


def test_the_stage_writes_intervals_columns_and_outcomes(policy: Policy, tmp_path: Path) -> None:
    share = Estimate.share([("p", True), ("p", False), ("q", True)])
    assert share is not None and share.interval is not None
    found = run(policy, tmp_path, NullTracker(), one=Constant(a=share), two=Constant(b=2.0))
    assert found == {"a": 2 / 3, "a_low": share.low, "a_high": share.high, "b": 2.0}
    columns = json.loads((tmp_path / "columns.json").read_text())
    assert [(c["evaluation"], c["metric"], c["title"]) for c in columns] == [("one", "a", "a"), ("two", "b", "b")]
    (row,) = [json.loads(line) for line in (tmp_path / "by_prompt.jsonl").read_text().splitlines()]
    assert row["metric"] == "a" and row["parts"] == [{"prompts": ["p", "q"], "sums": [1, 1], "counts": [2, 1]}]


def test_a_metric_that_is_not_declared_is_refused(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"one \(Constant\) measured recal, .* do not declare; did you mean recall\?"):
        run(policy, tmp_path, NullTracker(), one=Constant(declared=["recall"], recal=1.0))


@pytest.mark.parametrize(
    ("evaluations", "message"),
    [
        ({"one": Constant(a=1.0), "two": Constant(a=2.0)}, "evaluations one and two both measure a"),
        ({"one": Constant()}, r"one \(Constant\) declares no metrics"),
        ({"one": Constant(declared=["a", "a"])}, r"one \(Constant\) declares a twice"),
        ({"one": Constant(a=1.0), "two": Constant(a_low=2.0)}, "a_low is the name of an interval's end"),
    ],
)
def test_metrics_that_cannot_be_told_apart_are_refused_before_anything_is_sampled(
    evaluations: dict[str, Evaluation], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Evaluate(evaluations=evaluations, sampling=Sampling())


def test_a_world_and_a_reward_are_measured_side_by_side() -> None:
    both = {"world": WorldEvaluation(WORLD), "taste": RewardEvaluation(Words(), WORLD, name="words")}
    assert Evaluate(evaluations=both, sampling=Sampling()).evaluations == both


def test_a_model_that_cannot_be_measured_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    stage = Evaluate(evaluations={"world": WorldEvaluation(WORLD)}, sampling=Sampling())
    context = StageContext("evaluate", tmp_path, tmp_path, Runtime(accelerator="cpu"))
    with pytest.raises(ConfigError, match="trained in another world"):
        stage.run({"policy": trained_on({**OWN, "seed": 9})}, context)


def test_a_metric_that_is_no_number_is_a_bug_of_the_evaluation(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"one \(Constant\) measured .*nan.*; an evaluation leaves out what is undefined"
    ):
        run(policy, tmp_path, NullTracker(), one=Constant(a=float("nan")))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="RewardEvaluation: a metric cannot be called 'answer'"):
        RewardEvaluation(Words(), WORLD, name="answer")
    with pytest.raises(ValueError, match="WorldEvaluation: a metric cannot be called 'truth'"):
        WorldEvaluation(WORLD, rewards={"truth": Words()})
    with pytest.raises(ValueError, match="evaluations is empty"):
        Evaluate(evaluations={}, sampling=Sampling())
    with pytest.raises(ValueError, match="samples_per_question must be >= 1"):
        WorldEvaluation(WORLD, samples_per_question=0)
    with pytest.raises(ValueError, match="limit must be >= 1"):
        RewardEvaluation(Words(), WORLD, limit=0)
