"""Rank: what is sampled, what is skipped, what is written; and a policy that is trained on it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_dpo import PlackettLuce
from alignlab_raters import Panel, Rater
from regimes import Questions, adam, context_in, loop, run
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.data import rankings
from alignlab.data.records import Prompt
from alignlab.errors import DataError
from alignlab.policy import Policy, Sample, Sampling, generate
from alignlab.preferences import Rank, sampled
from alignlab.reward import Candidates, Order, Ranker, RewardSource
from alignlab.testing import tiny_policy_artifact
from alignlab.training import RankingStage


class Longest(Ranker):
    """The longest answer first, always."""

    VERSION: ClassVar[str] = "1"

    def rank(self, lists: Sequence[Candidates], index: Sequence[int]) -> list[Order]:
        """By length, the order as shown among equals."""
        return [
            Order(tuple(sorted(range(len(x.answers)), key=lambda i: -len(x.answers[i]))), 1.0, f"rater{i}")
            for x, i in zip(lists, index, strict=True)
        ]


class Length(RewardSource):
    """Letters of an answer, times a sign."""

    VERSION: ClassVar[str] = "1"

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """By length."""
        return torch.tensor([self.sign * len(a) for a in answers])


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_policy_artifact(tmp_path_factory.mktemp("rank") / "policy")


def answers(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """Every policy now gives these answers in turn."""

    def generate(policy: Policy, prompts: Sequence[Prompt], *_: Any, **__: Any) -> list[Sample]:
        return [Sample(p, (0,), (0,), texts[i % len(texts)], True) for i, p in enumerate(prompts)]

    monkeypatch.setattr(sampled, "generate", generate)


def rank(policy: Artifact, folder: Path, **arguments: Any) -> tuple[dict[str, float], list[dict[str, Any]]]:
    settings: dict[str, Any] = {"preference": Longest(), "sampling": Sampling(max_new_tokens=6), "answers": 3}
    stage = Rank(data=Questions(), **{**settings, "lists": 8, "validation_lists": 4, **arguments})
    metrics = dict(stage.run({"policy": policy}, context_in(folder)))
    return metrics, [json.loads(line) for line in (folder / "out" / "rankings.jsonl").read_text().splitlines()]


def test_every_list_is_ranked_and_written_in_full(
    policy: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "a", "ccc ccc", "bb")
    metrics, rows = rank(policy, tmp_path)
    assert len(rows) == 12 and [r["index"] for r in rows] == list(range(12))
    assert all(r["answers"] == ["ccc ccc", "bb", "a"] and r["places"] == [1, 2, 0] for r in rows)
    assert [r["split"] for r in rows] == ["train"] * 8 + ["validation"] * 4
    assert (metrics["train_rankings"], metrics["validation_rankings"], metrics["identical"]) == (8, 4, 0)
    assert (metrics["answers_per_ranking"], metrics["best_length"], metrics["worst_length"]) == (3, 2, 1)
    assert "agreement_with_reference" not in metrics
    artifact = Artifact(tmp_path / "out", "rankings", "x")
    held_out = Questions().prompts("validation")
    assert all(r.prompt in held_out for r in rankings.read(artifact, "validation"))
    assert not any(r.prompt in held_out for r in rankings.read(artifact, "train"))


def test_an_answer_is_ranked_once_and_lists_of_one_are_skipped(
    policy: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "a", "bb", "a", "a", "a", "a")
    metrics, rows = rank(policy, tmp_path)
    assert all(r["answers"] == ["bb", "a"] for r in rows) and [r["index"] for r in rows] == list(range(0, 12, 2))
    assert metrics["identical"] == 0.5 and metrics["answers_per_ranking"] == 2


def test_nothing_but_identical_answers_is_an_error(
    policy: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, "a")
    with pytest.raises(DataError, match=r"all answers of each of 12 lists are identical.*raise sampling\.temperature"):
        rank(policy, tmp_path)


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, 0.0)])
def test_agreement_with_a_reference(
    policy: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: float, expected: float
) -> None:
    answers(monkeypatch, "a", "ccc", "bb")
    metrics, _ = rank(policy, tmp_path, reference=Length(sign))
    assert metrics["agreement_with_reference"] == expected


@pytest.mark.parametrize(("argument", "least"), [("answers", 2), ("lists", 1), ("validation_lists", 1)])
def test_bad_arguments_are_named(policy: Artifact, tmp_path: Path, argument: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"Rank: {argument} must be >= {least}, got {least - 1}"):
        rank(policy, tmp_path, **{argument: least - 1})


def test_a_policy_learns_the_raters_taste_from_rankings_of_its_answers(policy: Artifact, tmp_path: Path) -> None:
    """End to end: answers are sampled, a panel ranks them, and the policy comes to answer to the panel's taste."""
    brief = Panel({"brief": Rater("brief", {"words": -1.0})}, temperature=0.5)
    made, rows = rank(policy, tmp_path, preference=brief, answers=4, lists=60, validation_lists=20)
    assert made["best_length"] < made["worst_length"] and max(len(r["answers"]) for r in rows) == 4
    stage = RankingStage(
        objective=PlackettLuce(), optimizer=adam(3e-3), loop=loop(steps=40, validate_every=40), inputs={"rankings": "x"}
    )
    found, heard = run(stage, {"policy": policy, "rankings": Artifact.open(tmp_path / "out")}, tmp_path / "trained")
    losses = heard.values("train/loss")
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5]) and found["validation_accuracy"] > 0.5
    before, after = (words(a) for a in (policy, Artifact.open(tmp_path / "trained" / "out")))
    assert after < before - 0.5


def words(policy: Artifact) -> float:
    """Mean number of words of a policy's answers to questions that were held out."""
    asked = list(Questions().prompts("validation")) * 30
    found = generate(Policy.load(policy), asked, Sampling(max_new_tokens=6), seed=5)
    return sum(len(s.text.split()) for s in found) / len(found)
