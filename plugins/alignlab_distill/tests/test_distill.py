"""Distillation: divergences as losses, a student that reaches its teacher on given answers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_distill import ForwardKL, ReverseKL
from alignlab_sft import AnswerNLL
from regimes import Questions, adam, furthest, loop, parameters, planned, run
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.batch import Batch, RolloutBatch, TokenBatch
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import PipelineError
from alignlab.objective import Objective, WeightedSum
from alignlab.optimum import Taught
from alignlab.policy import Llama, Policy
from alignlab.stats import TokenStats
from alignlab.testing import tiny_policy, tiny_policy_artifact
from alignlab.training import AnswerStage

OBJECTIVES = [ForwardKL(), ReverseKL()]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("distill")
    return {
        "policy": tiny_policy_artifact(folder / "student"),
        "teacher": tiny_policy_artifact(folder / "teacher", seed=4),
    }


# ---- the losses -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", [TokenBatch, RolloutBatch])
def test_the_loss_is_a_mean_over_response_tokens_of_any_batch(objective: Objective[Batch], kind: type[Batch]) -> None:
    batch = kind.of([[1, 2, 3, 4], [5, 6]], [[False, True, True, False], [False, True]])
    kl = torch.tensor([9.0, 0.5, 1.0, 9.0, 9.0, 3.0], dtype=torch.float64).requires_grad_()
    (name,) = objective.needs

    def cost(of: Batch) -> Tensor:
        return objective(TokenStats({name: kl}), of).mean(objective.units(of))

    assert float(cost(batch).detach()) == pytest.approx((0.5 + 1.0 + 3.0) / 3)
    heavy = replace(batch, weight=torch.tensor([1.0, 4.0]))
    assert float(cost(heavy).detach()) == pytest.approx((0.5 + 1.0 + 4 * 3.0) / 6)
    (gradient,) = torch.autograd.grad(cost(batch), kl)
    assert gradient.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 0, 0, 1 / 3])


@pytest.mark.parametrize(("objective", "student_first"), [(ForwardKL(), False), (ReverseKL(), True)])
def test_forward_is_seen_from_the_teacher_and_reverse_from_the_student(objective: Any, student_first: bool) -> None:
    """Against whole logits, and against the other direction, which is another number."""
    student, teacher = tiny_policy().double(), tiny_policy(seed=4).double()
    batch = TokenBatch.of([[3, 5, 7, 9, 4]], [[False, False, True, True, True]])
    with torch.no_grad():
        stats = student.token_stats(batch, objective.needs, teacher=teacher)
        p, q = (m.model(input_ids=batch.tokens[None]).logits[0, 1:-1].log_softmax(-1) for m in (student, teacher))
    found = float(objective(stats, batch).mean(objective.units(batch)))
    of_both = [float((a.exp() * (a - b)).sum(-1).mean()) for a, b in ((p, q), (q, p))]
    assert found == pytest.approx(of_both[0 if student_first else 1], abs=1e-10)
    assert abs(of_both[0] - of_both[1]) > 0.1


def test_a_mixture_is_the_weighted_sum_of_both_and_ends_at_the_teacher() -> None:
    batch = TokenBatch.of([[1, 2, 3]], [[False, True, True]])
    mixed = WeightedSum({"forward": ForwardKL(), "reverse": ReverseKL()}, {"forward": 0.25, "reverse": 0.75})
    kl = {"kl_from_teacher": torch.tensor([9.0, 1.0, 3.0]), "kl_to_teacher": torch.tensor([9.0, 4.0, 0.0])}
    assert float(mixed(TokenStats(kl), batch).mean(mixed.units(batch))) == pytest.approx(0.25 * 2 + 0.75 * 2)
    assert mixed.optimum() == Taught()


# ---- on given answers -----------------------------------------------------------------------------------------------
def stage(objective: Any = OBJECTIVES[0], lr: float = 3e-3, **changes: Any) -> AnswerStage:
    return AnswerStage(data=Questions(), objective=objective, optimizer=adam(lr), loop=loop(**changes), seed=3)


@pytest.fixture(scope="module")
def mild(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A student and a teacher whose next-token distributions leave some doubt, half a nat apart."""
    folder, found = tmp_path_factory.mktemp("mild"), {}
    for name, seed in (("policy", 0), ("teacher", 4)):
        model = tiny_policy(seed)
        with torch.no_grad():
            model.model.get_output_embeddings().weight.mul_(0.3)
        (folder / name).mkdir()
        model.save(folder / name)
        found[name] = Artifact.open(folder / name)
    return found


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_student_reaches_its_teacher(objective: Any, mild: dict[str, Artifact], tmp_path: Path) -> None:
    learner = stage(objective, lr=2e-2, steps=55, validate_every=55, clip_norm=None)
    _, seen = run(learner, mild, tmp_path)
    losses = seen.values("train/loss")
    assert losses[0] > 0.4 and losses[-1] < 1e-3
    batch = learner.batch_at(0)
    with torch.no_grad():
        both = frozenset({"kl_to_teacher", "kl_from_teacher"})
        found = learner.policy.eval().token_stats(batch, both, learner.teacher)
    mask = batch.response_mask
    assert float(found.kl_to_teacher[mask].mean()) < 2e-3 and float(found.kl_from_teacher[mask].mean()) < 2e-3


def test_the_teacher_stays_as_it_was_and_is_not_published(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    learner = stage(save_every=1)
    run(learner, inputs, tmp_path)
    assert learner.teacher is not None and not learner.teacher.training
    before = Policy.load(inputs["teacher"]).state_dict()
    assert all(torch.equal(v, before[k]) for k, v in learner.teacher.state_dict().items())
    assert not any(p.requires_grad for p in learner.teacher.parameters())
    kept = torch.load(tmp_path / "work" / "last.ckpt", weights_only=True)["state_dict"]
    assert kept.keys() == parameters(learner).keys()
    assert not any("teacher" in p.name for p in (tmp_path / "out").rglob("*"))


def test_the_memory_budget_does_not_change_what_is_learnt(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    stages = [stage(steps=2, micro_batch_tokens=budget) for budget in (1, 10_000)]
    for number, learner in enumerate(stages):
        run(learner, inputs, tmp_path / str(number))
    assert furthest(*stages) < 1e-5


# ---- teachers that are missing, superfluous or foreign --------------------------------------------------------------
def test_a_missing_or_superfluous_teacher_is_refused_at_the_run(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"AnswerStage: ForwardKL needs a teacher; set inputs\.teacher"):
        run(stage(), {"policy": inputs["policy"]}, tmp_path)
    with pytest.raises(ValueError, match=r"AnswerStage: AnswerNLL does not use inputs\.teacher; remove it"):
        run(stage(AnswerNLL()), inputs, tmp_path)


def node(objective: str, inputs: Mapping[str, Artifact]) -> dict[str, Any]:
    """A stage's configuration, as composed."""
    return {
        "_target_": "alignlab.training.AnswerStage",
        "inputs": {name: str(artifact.path) for name, artifact in inputs.items()},
        "data": {"_target_": "alignlab.data.world.World"},
        "objective": {"_target_": objective},
        "optimizer": {"_target_": "alignlab.training.AdamW"},
        "loop": {"_target_": "alignlab.training.Loop", "steps": 1, "batch_size": 1},
    }


def test_and_already_when_the_run_is_planned(inputs: dict[str, Artifact]) -> None:
    alone = {"policy": inputs["policy"]}
    with pytest.raises(PipelineError, match=r"pipeline\.distill: AnswerStage: ReverseKL needs a teacher; set inputs"):
        planned("distill", node("alignlab_distill.ReverseKL", alone))
    with pytest.raises(PipelineError, match=r"pipeline\.sft: AnswerStage: AnswerNLL does not use inputs\.teacher"):
        planned("sft", node("alignlab_sft.AnswerNLL", inputs))
    step = planned("distill", node("alignlab_distill.ReverseKL", inputs))
    assert step.inputs.keys() == {"policy", "teacher"}


def test_a_teacher_with_another_vocabulary_is_refused(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    words = TrainTokenizer("word", 50).train(["a b c d e f g h"])
    (tmp_path / "foreign").mkdir()
    Policy(Llama(layers=1, width=16, heads=2, feedforward=16).build(words, 0), words).save(tmp_path / "foreign")
    given = {**inputs, "teacher": Artifact.open(tmp_path / "foreign")}
    with pytest.raises(PipelineError, match=r"regime\.inputs\.teacher: its vocabulary differs from the policy's"):
        run(stage(), given, tmp_path)
