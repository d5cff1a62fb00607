"""On-policy distillation: the student's own tokens, with and without given answers, without anything that scores."""

from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_distill import OnPolicyDistillation, ReverseKL
from alignlab_dpo import DPO
from regimes import Questions, Tea, online, prepared, run

from alignlab.artifact import Artifact
from alignlab.data.chat import encode_answer
from alignlab.data.records import Example
from alignlab.data.source import Split
from alignlab.errors import DataError
from alignlab.testing import tiny_policy_artifact


def stage(**changes: Any) -> OnPolicyDistillation:
    own: dict[str, Any] = {"objective": ReverseKL(), "reward": None, "sampling_temperature": 1.0}
    found: OnPolicyDistillation = online(OnPolicyDistillation, **{**own, **changes})
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("on_policy")
    return {
        "policy": tiny_policy_artifact(folder / "student"),
        "teacher": tiny_policy_artifact(folder / "teacher", seed=4),
    }


def test_a_student_learns_from_its_teacher_on_its_own_answers(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    learner = stage(loop_steps=15, loop_batch_size=12, loop_validate_every=5, lr=1e-2)
    assert learner.reads() == frozenset()
    metrics, seen = run(learner, inputs, tmp_path)
    losses, held_out = seen.values("train/loss"), seen.values("validation/loss")
    assert losses[0] > 0.3 and sum(losses[-3:]) / 3 < losses[0] / 3
    assert len(held_out) == 3 and held_out[-1] < held_out[0]
    assert metrics["validation_loss"] == pytest.approx(held_out[-1])
    assert (
        not any("reward" in name for _, logged in seen.logged for name in logged)
        and "6 prompts, 3 held out" in seen.said
    )


def test_a_reward_that_is_given_is_logged_and_changes_nothing(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    plain, scored = ({}, {"reward": Tea()})
    runs = [run(stage(loop_steps=3, **more), inputs, tmp_path / str(len(more)))[1] for more in (plain, scored)]
    assert runs[0].values("train/loss") == runs[1].values("train/loss")
    assert runs[1].values("train/reward") and runs[1].values("validation/reward")


def test_a_share_of_the_prompts_is_answered_by_the_data(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    learner = prepared(stage(given_share=0.5, loop_batch_size=12), inputs, tmp_path)
    batch = learner.batch_at(0)
    given = {
        tuple(encode_answer(learner.policy.tokenizer, e.prompt, e.answer)[0]) for e in Questions().instructions("train")
    }
    rows = [tuple(row.tolist()) for row in batch.tokens.split(batch.lengths().tolist())]
    groups = batch.group
    own = torch.tensor([row in given for row in rows])
    answered = {int(g) for g in groups.unique() if bool(own[groups == g].all())}
    assert batch.num_units == 12 and len(groups.unique()) == 4 and len(answered) >= 2
    alone = prepared(stage(given_share=1.0, loop_batch_size=12), inputs, tmp_path).batch_at(0)
    assert all(tuple(row.tolist()) in given for row in alone.tokens.split(alone.lengths().tolist()))
    assert bool(alone.sequence("finished").all())


class Unanswered(Questions):
    """One prompt has no answer."""

    def instructions(self, split: Split) -> list[Example]:
        return list(super().instructions(split))[1:]


def test_a_prompt_without_an_answer_is_named(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    learner = prepared(stage(given_share=1.0, prompts_per_rollout=6, data=Unanswered()), inputs, tmp_path)
    with pytest.raises(DataError, match=r"no instruction answers the prompt 'what does ana like \?'.*given_share"):
        learner.batch_at(0)


def test_what_it_cannot_do_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"given_share must be from 0 to 1, got 1\.5"):
        stage(given_share=1.5)
    with pytest.raises(
        ValueError, match="DPO takes a PreferenceBatch, but OnPolicyDistillation trains on a RolloutBatch"
    ):
        stage(objective=DPO())
    with pytest.raises(ValueError, match=r"OnPolicyDistillation: ReverseKL needs a teacher; set inputs\.teacher"):
        stage().check_inputs(frozenset({"policy"}))
