"""The kit's checks of evaluations: an honest one passes, and every check catches a mutant."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_raters import Rater

from alignlab.data.files import Files
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.data.world import World
from alignlab.evaluation import CalibrationEvaluation, Evaluation, FilesEvaluation, RewardEvaluation, WorldEvaluation
from alignlab.evaluation.base import EvaluationResult
from alignlab.metrics import Column, Panel, Text
from alignlab.policy import Llama, Policy, Progress, Sampling, generate
from alignlab.testing import Check, check_evaluation, conforms_evaluation
from alignlab.testing.apply import outcome_of
from alignlab.testing.evaluation import CHECKS, EvaluationSubject


class Questions(DataSource):
    """Three questions in the words of the tiny tokenizer."""

    VERSION: ClassVar[str] = "1"

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return [Prompt.user(f"what does {name} like ?") for name in ("ana", "bo", "cy")]


class Length(Evaluation):
    """Mean answer length, in words."""

    VERSION: ClassVar[str] = "1"
    columns = (Column("length", "mean length of the answers", unit="words"),)

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        samples = generate(policy, Questions().prompts("validation"), sampling, seed, progress=progress)
        rows = [{"prompt": s.prompt.text, "answer": s.text, "kind": "length", "finished": s.finished} for s in samples]
        return EvaluationResult({"length": sum(len(s.text.split()) for s in samples) / len(samples)}, rows)


@conforms_evaluation(lambda: RewardEvaluation(Rater("brief", {"words": 1.0}), Questions()))
def test_reward_evaluation(check: Check) -> None:
    check()


@conforms_evaluation(Length)
def test_length(check: Check) -> None:
    check()


def policy_on(texts: Sequence[str]) -> Policy:
    """A small policy of random weights, with the words of some texts."""
    tokenizer = TrainTokenizer(kind="word", vocab_size=400).train(texts)
    shape = Llama(layers=1, width=16, heads=2, feedforward=32, context=64)
    return Policy(shape.build(tokenizer, seed=0), tokenizer)


WORLD = World(entities=8, unknown=2, relations=2, values=4, training_documents=20, training_instructions=20)


@conforms_evaluation(
    lambda: WorldEvaluation(WORLD, samples_per_question=1),
    policy=lambda: policy_on([f"{e.prompt.text} {e.answer}" for e in WORLD.instructions("train")]),
)
def test_world_evaluation(check: Check) -> None:
    check()


@conforms_evaluation(
    lambda: CalibrationEvaluation(WORLD, samples_per_question=1),
    policy=lambda: policy_on([f"{e.prompt.text} {e.answer}" for e in WORLD.instructions("train")]),
)
def test_calibration_evaluation(check: Check) -> None:
    check()


def test_files_evaluation(tmp_path: Path) -> None:
    pairs = [{"prompt": f"what is {n} ?", "chosen": f"it is {n} .", "rejected": "no ."} for n in range(8)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
    files = Files(preferences=str(file), validation_fraction=0.5)
    words = [f"{p['prompt']} {p['chosen']} {p['rejected']}" for p in pairs]
    subject = EvaluationSubject(lambda: FilesEvaluation(files, prompts=3), lambda: policy_on(words))
    results = [outcome_of(check, subject, {}) for check in CHECKS]
    assert results and [r for r in results if r.outcome != "ok"] == []


class NoVersion(Length):
    """Inherits what it should state."""


class Renamed(Length):
    """Keeps its argument under another name."""

    VERSION: ClassVar[str] = "1"

    def __init__(self, scale: float = 1.0) -> None:
        self.factor = scale


class Undefined(Length):
    """Divides by nothing."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, *arguments: Any) -> EvaluationResult:
        return EvaluationResult({"length": float("nan")}, super().__call__(*arguments).samples)


class Nothing(Length):
    """Measures nothing."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, *arguments: Any) -> EvaluationResult:
        return EvaluationResult({})


class Unlisted(Length):
    """Measures what it does not declare."""

    VERSION: ClassVar[str] = "1"
    columns = (Column("words", "mean length of the answers"),)


class Twice(Length):
    """Declares its metric twice."""

    VERSION: ClassVar[str] = "1"
    columns = (*Length.columns, *Length.columns)


class NotAShare(Length):
    """Declares a length as a share."""

    VERSION: ClassVar[str] = "1"
    columns = (Column("length", "mean length of the answers", share=True),)


class Unnamed(Length):
    """Its samples lack the prompt."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, *arguments: Any) -> EvaluationResult:
        found = super().__call__(*arguments)
        return EvaluationResult(found.metrics, [{k: v for k, v in s.items() if k != "prompt"} for s in found.samples])


class Tensors(Length):
    """Its samples hold what JSON does not."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, *arguments: Any) -> EvaluationResult:
        found = super().__call__(*arguments)
        return EvaluationResult(found.metrics, [{**s, "score": torch.ones(())} for s in found.samples])


class Undeclared(Length):
    """Its panel names a metric that it does not declare."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, *arguments: Any) -> EvaluationResult:
        found = super().__call__(*arguments)
        return EvaluationResult(found.metrics, found.samples, [Panel("A text", Text("x"), metrics=["words"])])


class SameTitle(Length):
    """Its panels cannot be told apart."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, *arguments: Any) -> EvaluationResult:
        found = super().__call__(*arguments)
        return EvaluationResult(found.metrics, found.samples, [Panel("A text", Text("x")), Panel("A text", Text("y"))])


class OtherPanel(Length):
    """Its panel is another one each time."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, *arguments: Any) -> EvaluationResult:
        found = super().__call__(*arguments)
        vars(self)["calls"] = vars(self).get("calls", 0) + 1
        return EvaluationResult(found.metrics, found.samples, [Panel("A text", Text(str(vars(self)["calls"])))])


class Counting(Length):
    """Counts its calls."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, *arguments: Any) -> EvaluationResult:
        vars(self)["calls"] = vars(self).get("calls", 0) + 1
        return EvaluationResult({"length": float(vars(self)["calls"])})


class GlobalNoise(Length):
    """Draws from the global generator."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, *arguments: Any) -> EvaluationResult:
        return EvaluationResult({"length": float(torch.rand(()))})


class Training(Length):
    """Leaves the policy in training mode."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, policy: Policy, *arguments: Any) -> EvaluationResult:
        found = super().__call__(policy, *arguments)
        policy.train()
        return found


class Vandal(Length):
    """Changes the policy's weights."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, policy: Policy, *arguments: Any) -> EvaluationResult:
        with torch.no_grad():
            next(policy.parameters()).mul_(2)
        return super().__call__(policy, *arguments)


class Silent(Length):
    """Reports no progress."""

    VERSION: ClassVar[str] = "1"

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        return super().__call__(policy, sampling, seed)


class Backwards(Length):
    """Reports what is left, not what is done."""

    VERSION: ClassVar[str] = "1"

    def __call__(
        self, policy: Policy, sampling: Sampling, seed: int, progress: Progress | None = None
    ) -> EvaluationResult:
        if progress is not None:
            progress(3, 3)
            progress(0, 3)
        return super().__call__(policy, sampling, seed)


MUTANTS: list[tuple[str, type[Evaluation]]] = [
    ("version_is_a_literal", NoVersion),
    ("arguments_are_attributes", Renamed),
    ("metrics_are_finite_numbers", Undefined),
    ("metrics_are_finite_numbers", Nothing),
    ("columns_declare_every_metric", Unlisted),
    ("columns_declare_every_metric", Twice),
    ("columns_declare_every_metric", NotAShare),
    ("samples_can_be_stored", Unnamed),
    ("samples_can_be_stored", Tensors),
    ("panels_are_plain_data", Undeclared),
    ("panels_are_plain_data", SameTitle),
    ("same_policy_gives_the_same_numbers", OtherPanel),
    ("same_policy_gives_the_same_numbers", Counting),
    ("same_policy_gives_the_same_numbers", GlobalNoise),
    ("policy_is_only_read", Training),
    ("policy_is_only_read", Vandal),
    ("reports_progress", Silent),
    ("reports_progress", Backwards),
]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_mutant_is_caught(name: str, mutant: type[Evaluation]) -> None:
    check = next(c for c in CHECKS if c.__name__ == name)
    with pytest.raises(AssertionError, match=f"^{mutant.__name__}: "):
        check(EvaluationSubject(mutant))


def test_every_check_has_a_mutant() -> None:
    assert {c.__name__ for c in CHECKS} == {name for name, _ in MUTANTS}


def test_the_table_names_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_evaluation(Length()) and not check_evaluation(Silent())
    assert "Silent: 1 of 9 checks failed" in capsys.readouterr().out
