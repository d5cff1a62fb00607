"""A reward model of rated answers: from ratings to heads that score held-out answers."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_reward_model import RatedRewardModel, ScoreRegression
from regimes import Remembering, adam, context_in, loop, prepared, run

from alignlab.artifact import Artifact
from alignlab.data import answers
from alignlab.data.files import Files
from alignlab.data.preflight import check_settings
from alignlab.data.records import Example, Prompt
from alignlab.data.source import Split
from alignlab.errors import DataError, MissingDataError
from alignlab.policy import LearnedScores, Policy
from alignlab.testing import Check, conforms_stage, tiny_policy_artifact

NAMES = ("ana", "bo", "cy")
RATED = {"tea": {"good": 2.0, "brief": 1.0}, "rain and bread": {"good": -1.0}}
"""The longer answer was not rated by its brevity."""


def row(name: str, text: str, split: Split, scores: dict[str, float]) -> dict[str, Any]:
    return answers.row(Example(Prompt.user(f"what does {name} like ?"), text, scores={**scores, "other": 5.0}), split)


def inputs(folder: Path, *more: dict[str, Any]) -> dict[str, Artifact]:
    given = folder / "answers"
    given.mkdir(parents=True)
    rows = [row(n, text, "validation" if n == "cy" else "train", RATED[text]) for n in NAMES for text in RATED]
    answers.write(given, [*rows, *more])
    return {"policy": tiny_policy_artifact(folder / "policy"), "answers": Artifact.open(given)}


def stage(*ratings: str, **changes: Any) -> RatedRewardModel:
    own = {"objective": ScoreRegression(), "optimizer": adam(changes.pop("lr", 1e-2)), "seed": 3}
    steps = loop(**{"batch_size": 2, "steps": 3, "save_every": 1, **changes})
    return RatedRewardModel(ratings=list(ratings or ("good", "brief")), **own, loop=steps)


@conforms_stage(stage, inputs=inputs)
def test_stage_conforms(check: Check) -> None:
    check()


def test_each_answer_carries_its_own_ratings(tmp_path: Path) -> None:
    learner = prepared(stage(), inputs(tmp_path), tmp_path)
    for batch in [*(learner.batch_at(step) for step in range(3)), *learner.validation_batches()]:
        texts = [str(learner.policy.tokenizer.decode(r)) for r in batch.tokens.split(batch.lengths().tolist())]
        wanted = [[2.0, 1.0] if "tea" in text else [-1.0, math.nan] for text in texts]
        torch.testing.assert_close(batch.of_unit("ratings"), torch.tensor(wanted), equal_nan=True)


def test_scores_come_to_the_ratings_of_held_out_answers(tmp_path: Path) -> None:
    metrics, _ = run(stage(steps=40, batch_size=4, validate_every=40), inputs(tmp_path), tmp_path)
    model = LearnedScores(Policy.load(tmp_path / "out"))
    found = model.scores([Prompt.user("what does cy like ?")] * 2, list(RATED))
    assert model.attributes == ("good", "brief")
    assert found[:, 0].tolist() == pytest.approx([2.0, -1.0], abs=0.7)
    assert metrics["absolute_error_good"] == pytest.approx(
        float((found[:, 0] - torch.tensor([2.0, -1.0])).abs().mean())
    )
    assert metrics["absolute_error_brief"] == pytest.approx(abs(float(found[0, 1]) - 1.0), abs=1e-5)


def test_an_answer_without_any_of_the_ratings_is_left_out_and_counted(tmp_path: Path) -> None:
    given = inputs(tmp_path, row("ana", "bread", "train", {}), row("bo", "bread", "train", {"brief": 0.0}))
    learner = stage("good")
    context = context_in(tmp_path)
    learner.context = context
    learner.prepare(given, context)
    assert isinstance(context.tracker, Remembering)
    assert context.tracker.said[-1] == "2 answers without any of these ratings are left out"
    assert all(bool(learner.batch_at(k).of_unit("ratings").isfinite().all()) for k in range(4))


def test_a_rating_that_no_answer_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no answer to train on has the score bad \(they have brief, good, other\)"):
        prepared(stage("good", "bad"), inputs(tmp_path), tmp_path)


def test_a_plan_asks_for_the_columns_of_the_ratings(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "Hi", "completion": "Hello", "good": 1}\n')
    learner = stage("good")
    learner.data = Files(instructions=str(tmp_path / "a.jsonl"), validation_fraction=0.0)
    with pytest.raises(MissingDataError, match=r"set data\.scores=\[good\], columns of numbers for rated"):
        check_settings({"rated": learner.data_needs()})


def test_heads_of_the_same_attributes_are_continued_and_others_replaced(tmp_path: Path) -> None:
    given = inputs(tmp_path)
    run(stage(lr=0.0), given, tmp_path)
    first = Policy.load(tmp_path / "out").score_head
    again = {**given, "policy": Artifact.open(tmp_path / "out")}
    kept = prepared(stage(), again, tmp_path / "a").policy.score_head
    new = prepared(stage("good"), again, tmp_path / "b").policy.score_head
    assert first is not None and kept is not None and new is not None
    assert torch.equal(first.weight, kept.weight) and new.attributes == ("good",)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [([], "a list of different names"), (["a", "a"], "different names"), (["Very Good"], "cannot name a metric")],
)
def test_arguments_are_checked(ratings: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"RatedRewardModel: .*{message}"):
        RatedRewardModel(ratings=ratings, objective=ScoreRegression(), optimizer=adam(), loop=loop())
