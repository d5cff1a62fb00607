"""Best of n: which answer is kept, what is written, what is counted; and the conformance kit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_best_of_n import BestOfN, kl_bound, kl_estimate
from alignlab_best_of_n import stage as module
from jaxtyping import Float
from torch import Tensor

from alignlab import Artifact, RewardSource, Scores
from alignlab.data import answers
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.errors import DataError
from alignlab.policy import Policy, Sample, Sampling
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import Check, conforms_stage, tiny_policy_artifact


class Questions(DataSource):
    """Two questions for training, one held out."""

    VERSION: ClassVar[str] = "1"

    def prompts(self, split: Split) -> Sequence[Prompt]:
        names = ("ana", "bo") if split == "train" else ("cy",)
        return [replace(Prompt.user(f"what does {name} like ?"), facts=(("name", name),)) for name in names]


class Letters(RewardSource):
    """The number of letters, of which vowels are a part."""

    VERSION: ClassVar[str] = "1"
    parts = ("vowels",)

    def __init__(self, sign: float = 1.0) -> None:
        self.sign = sign

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        return torch.tensor([self.sign * len(a) for a in answers])

    def score_in_parts(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        vowels = torch.tensor([float(sum(c in "aeiou" for c in a)) for a in answers])
        return Scores(self.score(prompts, answers), {"vowels": vowels})


def stage(**arguments: Any) -> BestOfN:
    settings: dict[str, Any] = {"data": Questions(), "reward": Letters(), "sampling": Sampling(max_new_tokens=12)}
    return BestOfN(**{**settings, "samples_per_prompt": 3, "prompts": 4, "validation_prompts": 2, **arguments})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    tiny_policy_artifact(tmp_path / "policy")
    return tmp_path


def run(folder: Path, **arguments: Any) -> tuple[Mapping[str, float], list[dict[str, Any]]]:
    context = StageContext("best", folder / "out", folder / "work", Runtime("cpu"))
    metrics = stage(**arguments).run({"policy": Artifact.open(folder / "policy")}, context)
    return metrics, [json.loads(line) for line in (folder / "out" / "answers.jsonl").read_text().splitlines()]


def answered(monkeypatch: pytest.MonkeyPatch, *texts: str, cut: str = "") -> list[int]:
    """The policy now gives these texts in turn; `cut` does not end. Returns the first index of every call."""
    asked: list[int] = []

    def generate(policy: Policy, prompts: Sequence[Prompt], *_: Any, first_index: int, **__: Any) -> list[Sample]:
        asked.append(first_index)
        drawn = [texts[(first_index + i) % len(texts)] for i in range(len(prompts))]
        return [Sample(p, (0,), (0,), text, text != cut) for p, text in zip(prompts, drawn, strict=True)]

    monkeypatch.setattr(module, "generate", generate)
    return asked


def test_the_highest_reward_is_kept_and_the_first_of_several(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, "tea", "rain", "bath", "a", "no", "and")
    metrics, rows = run(folder)
    assert [r["answer"] for r in rows] == ["rain", "and"] * 3
    assert [r["index"] for r in rows] == list(range(6))
    assert rows[0]["rewards"] == [3.0, 4.0, 4.0]
    assert rows[0]["scores"] == {"reward": 4.0, "reward_vowels": 2.0}
    assert [r["split"] for r in rows] == ["train"] * 4 + ["validation"] * 2
    assert metrics["reward"] == pytest.approx((4 + 3) / 2)
    assert metrics["mean_reward"] == pytest.approx((11 / 3 + 2) / 2)
    assert metrics["gain"] == pytest.approx(metrics["reward"] - metrics["mean_reward"])
    assert metrics["gain_low"] <= metrics["gain"] <= metrics["gain_high"]
    assert metrics["kl_bound"] == pytest.approx(kl_bound(3))
    assert metrics["kl_estimate"] == pytest.approx((kl_estimate([3, 4, 4]) + kl_bound(3)) / 2)
    assert metrics["answer_length"] == 1
    assert (metrics["train_answers"], metrics["validation_answers"], metrics["without_signal"]) == (4, 2, 0)


def test_fine_tuning_reads_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, "tea", "rain", "bath", "a", "no", "and")
    run(folder)
    artifact = Artifact.open(folder / "out")
    assert artifact.kind == BestOfN.PRODUCES == "answers"
    train = answers.read(artifact, "train")
    assert {e.prompt.fact("name") for e in train} == {"ana", "bo"}
    assert {e.prompt.fact("name") for e in answers.read(artifact, "validation")} == {"cy"}
    assert train[0].scores == {"reward": 4.0, "reward_vowels": 2.0}


def test_a_best_answer_that_was_cut_off_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, "tea", "rain", "bath", "a", "no", "and", cut="rain")
    metrics, rows = run(folder)
    assert [(r["index"], r["answer"]) for r in rows] == [(1, "and"), (3, "and"), (5, "and")]
    assert metrics["unfinished"] == 0.5
    assert metrics["reward"] == pytest.approx(3.5), "the distribution is measured whole"


def test_nothing_but_cut_off_answers_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, "tea", cut="tea")
    with pytest.raises(DataError, match=r"none of the 6 best answers .* raise sampling.max_new_tokens"):
        run(folder)


def test_a_killed_run_keeps_its_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROMPTS_PER_PART", 2)
    asked = answered(monkeypatch, "tea", "rain", "bath", "a", "no", "and")
    first = run(folder)
    assert asked == [0, 6, 12]
    (folder / "work" / "part-000001.jsonl").unlink()
    assert run(folder) == first
    assert asked == [0, 6, 12, 6]


def test_the_size_of_a_part_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(folder, reward=Letters(-1.0))
    for file in (folder / "work").iterdir():
        file.unlink()
    monkeypatch.setattr(module, "PROMPTS_PER_PART", 1)
    assert run(folder, reward=Letters(-1.0)) == whole


def test_one_sample_is_the_policy(folder: Path) -> None:
    metrics, _ = run(folder, samples_per_prompt=1, sampling=Sampling(max_new_tokens=24))
    assert metrics["gain"] == metrics["kl_bound"] == metrics["kl_estimate"] == 0
    assert metrics["without_signal"] == 1


@pytest.mark.parametrize("argument", ["samples_per_prompt", "prompts", "validation_prompts"])
def test_bad_arguments_are_named(argument: str) -> None:
    with pytest.raises(ValueError, match=f"BestOfN: {argument} must be >= 1, got 0"):
        stage(**{argument: 0})


def test_greedy_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="greedy answers are all the same"):
        stage(sampling=Sampling(temperature=0))


def test_something_must_score() -> None:
    with pytest.raises(ValueError, match="BestOfN: nothing scores the answers"):
        stage(reward=None).check_inputs(frozenset({"policy"}))


def inputs(folder: Path) -> dict[str, Artifact]:
    reward = tiny_policy_artifact(folder / "reward", seed=1, scalar_head=True)
    return {"policy": tiny_policy_artifact(folder / "policy"), "reward": reward}


NO_TRAINING = dict.fromkeys(
    ("memory_budget_changes_nothing", "the_stop_token_is_scored", "the_reference_stays", "batches_hold_what_was_given"),
    "trains no policy",
)


@conforms_stage(lambda: stage(reward=None), inputs=inputs, skip=NO_TRAINING)
def test_stage_conforms(check: Check) -> None:
    check()
