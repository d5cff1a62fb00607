"""Label: what is sampled, what is skipped, what is written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.data import preferences
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import DataError
from alignlab.policy import Llama, Policy, Sample, Sampling
from alignlab.preferences import Label, sampled
from alignlab.reward import Choice, Pair, Preference, RewardSource
from alignlab.runtime import Runtime
from alignlab.stage import StageContext


class Questions(DataSource):
    """Ten prompts for training, three for validation."""

    VERSION: ClassVar[str] = "1"

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Different ones in each split."""
        return [Prompt.user(f"{split} {i}") for i in range(10 if split == "train" else 3)]


class Empty(Questions):
    """No prompt at all."""

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """None."""
        return []


class Longer(Preference):
    """Prefers the longer answer, always."""

    VERSION: ClassVar[str] = "1"

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        """By length."""
        return [Choice(len(p.first) > len(p.second), 0.75, f"rater{i % 2}") for p, i in zip(pairs, index, strict=True)]


class Opposed(Preference):
    """Two raters of opposite minds, of whom each makes half of the judgements, and now and then both agree."""

    VERSION: ClassVar[str] = "1"

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        """By turns."""
        return [Choice(True, 0.9 if i % 2 else 0.1, f"rater{i % 2}", 0.5 if i % 4 else 0.9) for i in index]


class Length(RewardSource):
    """Likes long answers too, or, with a negative sign, short ones."""

    VERSION: ClassVar[str] = "1"

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """Its letters."""
        return torch.tensor([self.sign * len(a) for a in answers])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = [f"{s} {i}" for s in ("train", "validation") for i in range(10)]
    tokenizer = TrainTokenizer("word").train(words)
    policy = Policy(Llama(layers=1, width=16, heads=2, feedforward=16, context=32).build(tokenizer, 0), tokenizer)
    (tmp_path / "policy").mkdir()
    policy.save(tmp_path / "policy")
    return tmp_path


def answers(monkeypatch: pytest.MonkeyPatch, *texts: str) -> list[Prompt]:
    """Every policy now gives these answers in turn; returns the list in which it notes what it was asked."""
    asked: list[Prompt] = []

    def generate(policy: Policy, prompts: Sequence[Prompt], *_: Any, **__: Any) -> list[Sample]:
        asked.extend(prompts)
        return [Sample(p, (0,), (0,), texts[i % len(texts)], True) for i, p in enumerate(prompts)]

    monkeypatch.setattr(sampled, "generate", generate)
    return asked


def label(folder: Path, **arguments: Any) -> tuple[dict[str, float], list[dict[str, Any]]]:
    settings: dict[str, Any] = {"data": Questions(), "preference": Longer(), "sampling": Sampling(max_new_tokens=4)}
    stage = Label(**{**settings, "pairs": 20, "validation_pairs": 6, **arguments})
    context = StageContext("label", folder, folder, Runtime(accelerator="cpu"))
    metrics = dict(stage.run({"policy": Artifact.open(folder / "policy")}, context))
    return metrics, [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]


def test_every_pair_is_judged_and_written_in_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "short", "much longer", "middling", "no")
    metrics, rows = label(folder)
    assert len(rows) == 26
    assert [r["index"] for r in rows] == list(range(26))
    for i, row in enumerate(rows):
        assert (row["chosen"], row["rejected"]) == (("much longer", "short") if i % 2 == 0 else ("middling", "no"))
        assert (row["rater"], row["probability"]) == (f"rater{i % 2}", 0.75)
        assert row["first_preferred"] == (i % 2 == 1)
    assert metrics["chosen_length"] == pytest.approx(1.5)
    assert metrics["rejected_length"] == 1
    assert metrics["first_preferred"] == 0.5
    assert metrics["accuracy_ceiling_known_rater"] == 0.75
    assert "accuracy_ceiling_one_score" not in metrics, "nobody knows what the other raters would have said"
    assert metrics["first_preferred_low"] < 0.5 < metrics["first_preferred_high"]
    columns = json.loads((folder / "columns.json").read_text())
    ends = {f"{name}{end}" for name in metrics for end in ("_low", "_high")}
    assert metrics.keys() - ends <= {column["metric"] for column in columns}
    assert (metrics["train_pairs"], metrics["validation_pairs"], metrics["identical"]) == (20, 6, 0)


def test_the_accuracy_ceiling_depends_on_whether_one_knows_who_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "a", "bb")
    metrics, _ = label(folder, preference=Opposed(), pairs=20, validation_pairs=4)
    assert metrics["accuracy_ceiling_known_rater"] == pytest.approx(0.9)
    assert metrics["accuracy_ceiling_one_score"] == pytest.approx(0.75 * 0.5 + 0.25 * 0.9)


def test_prompts_come_round_and_splits_stay_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, "a", "bb")
    label(folder)
    train, validation = asked[:40:2], asked[40::2]
    assert asked[::2] == asked[1::2]
    assert {p.text: train.count(p) for p in train} == {f"train {i}": 2 for i in range(10)}
    assert {p.text: validation.count(p) for p in validation} == {f"validation {i}": 2 for i in range(3)}
    artifact = Artifact(folder, "preferences", "x")
    assert all(c.prompt.text.startswith("train") for c in preferences.read(artifact, "train"))
    assert all(c.prompt.text.startswith("validation") for c in preferences.read(artifact, "validation"))


def test_identical_answers_are_skipped_and_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "same", "same", "a", "bb")
    metrics, rows = label(folder)
    assert metrics["identical"] == 0.5
    assert [r["index"] for r in rows] == list(range(1, 26, 2))  # the numbers of the others are not given again


def test_nothing_but_identical_answers_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "same")
    with pytest.raises(DataError, match="all 26 pairs of answers are identical"):
        label(folder)


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, 0.0)])
def test_agreement_with_a_reference(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sign: float, expected: float
) -> None:
    answers(monkeypatch, "a", "bbb")
    metrics, _ = label(folder, reference=Length(sign))
    assert metrics["agreement_with_reference"] == expected


def test_without_a_reference_nothing_is_claimed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "a", "bbb")
    metrics, _ = label(folder)
    assert "agreement_with_reference" not in metrics


def test_a_real_policy_gives_the_same_labels_twice(folder: Path) -> None:
    first = label(folder, seed=3)
    assert first == label(folder, seed=3)
    assert first[1] != label(folder, seed=4)[1]


def test_no_prompts_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match="Empty has no train prompts"):
        label(folder, data=Empty())


@pytest.mark.parametrize("argument", ["pairs", "validation_pairs"])
def test_bad_arguments_are_named(folder: Path, argument: str) -> None:
    with pytest.raises(ValueError, match=f"Label: {argument} must be >= 1"):
        label(folder, **{argument: 0})
