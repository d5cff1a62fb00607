"""Merging: sums worked out by hand, identities to the bit, refusals, and the conformance kit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from alignlab_merge import Average, Merge, TaskArithmetic
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import PipelineError
from alignlab.policy import Llama, Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import Check, conforms_stage, tiny_policy, tiny_policy_artifact


def constant(folder: Path, value: float) -> Artifact:
    """A policy whose weights are all one number."""
    policy = tiny_policy()
    with torch.no_grad():
        for p in policy.parameters():
            p.fill_(value)
    folder.mkdir()
    policy.save(folder)
    return Artifact.open(folder)


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in Policy.load(folder).named_parameters()}


def merged(stage: Merge, inputs: Mapping[str, Artifact], folder: Path) -> tuple[Mapping[str, float], Sequence[Tensor]]:
    for name in ("out", "work"):
        (folder / name).mkdir()
    metrics = stage.run(inputs, StageContext("merged", folder / "out", folder / "work", Runtime("cpu")))
    return metrics, list(weights(folder / "out").values())


def all_are(tensors: Sequence[Tensor], value: float) -> bool:
    return all(torch.equal(t, torch.full_like(t, value)) for t in tensors)


def test_an_average_by_hand(tmp_path: Path) -> None:
    """0.25 * 1 + 0.75 * 5 = 4, which is 3 above a start of 1."""
    inputs = {"a": constant(tmp_path / "a", 1.0), "b": constant(tmp_path / "b", 5.0)}
    metrics, found = merged(Average(weights={"a": 0.25, "b": 0.75}), inputs, tmp_path)
    assert all_are(found, 4.0)
    assert metrics == {"models": 2.0, "moved": pytest.approx(3.0)}


def test_models_are_weighed_alike_by_default(tmp_path: Path) -> None:
    inputs = {name: constant(tmp_path / name, value) for name, value in (("a", 1.0), ("b", 5.0))}
    assert all_are(merged(Average(), inputs, tmp_path)[1], 3.0)


def test_task_arithmetic_by_hand(tmp_path: Path) -> None:
    """2 + 0.5 (3 - 2) - 1 (6 - 2) = -1.5; the weights need not add up to 1."""
    values = {"policy": 2.0, "good": 3.0, "bad": 6.0}
    inputs = {name: constant(tmp_path / name, value) for name, value in values.items()}
    metrics, found = merged(TaskArithmetic(weights={"good": 0.5, "bad": -1.0}), inputs, tmp_path)
    assert all_are(found, -1.5)
    assert metrics == {"models": 3.0, "moved": pytest.approx(3.5 / 2)}


def test_a_model_merged_with_itself_is_itself_to_the_bit(tmp_path: Path) -> None:
    one = tiny_policy_artifact(tmp_path / "one")
    metrics, found = merged(Average(), {"a": one, "b": one, "c": one}, tmp_path)
    assert all(map(torch.equal, found, weights(one.path).values()))
    assert metrics["moved"] == 0


def test_no_weight_gives_the_base_to_the_bit(tmp_path: Path) -> None:
    base, other = tiny_policy_artifact(tmp_path / "base"), tiny_policy_artifact(tmp_path / "other", seed=1)
    _, found = merged(TaskArithmetic(weights={"a": 0.0}), {"policy": base, "a": other}, tmp_path)
    assert all(map(torch.equal, found, weights(base.path).values()))


def test_the_whole_of_one_model_gives_that_model(tmp_path: Path) -> None:
    base, other = tiny_policy_artifact(tmp_path / "base"), tiny_policy_artifact(tmp_path / "other", seed=1)
    _, found = merged(TaskArithmetic(weights={"a": 1.0}), {"policy": base, "a": other}, tmp_path)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, weights(other.path).values(), strict=True))


def built(folder: Path, words: str, width: int = 16, tied: bool = False) -> Artifact:
    tokenizer = TrainTokenizer("word", 64).train([words] * 2)
    shape = Llama(layers=1, width=width, heads=2, feedforward=32, context=32, tie_embeddings=tied)
    folder.mkdir()
    Policy(shape.build(tokenizer, 0), tokenizer).save(folder)
    return Artifact.open(folder)


def test_tied_weights_are_moved_once(tmp_path: Path) -> None:
    inputs = {name: built(tmp_path / name, "a b c", tied=True) for name in ("a", "b")}
    with torch.no_grad():
        policy = Policy.load(inputs["b"])
        for p in policy.parameters():
            p.add_(1.0)
        policy.save(inputs["b"].path)
    before = list(weights(inputs["a"].path).values())
    _, found = merged(Average(), {**inputs, "b": Artifact.open(inputs["b"].path)}, tmp_path)
    assert all(torch.allclose(now, old + 0.5, atol=1e-6) for now, old in zip(found, before, strict=True))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"words": "a b d"}, r"merged.inputs.b: its vocabulary differs from that of inputs.a"),
        ({"width": 32}, r"merged.inputs.b: \d+ of its parameters differ in shape from those of inputs.a"),
        ({"tied": True}, r"merged.inputs.b: 1 of its parameters differ .* is missing"),
    ],
)
def test_other_models_are_refused(other: dict[str, object], message: str, tmp_path: Path) -> None:
    settings: dict[str, object] = {"words": "a b c", **other}
    inputs = {"a": built(tmp_path / "a", "a b c"), "b": built(tmp_path / "b", **settings)}  # type: ignore[arg-type]
    with pytest.raises(PipelineError, match=message):
        merged(Average(), inputs, tmp_path)


@pytest.mark.parametrize(
    ("stage", "names", "message"),
    [
        (Average(), (), "Average: there is nothing to merge"),
        (TaskArithmetic(), ("policy",), "TaskArithmetic: there is nothing to merge"),
        (Average(weights={"a": 1.0}), ("a", "b"), "Average: weights are of a, but the models are a, b"),
        (Average(weights={"a": 1.0, "b": 1.0}), ("a", "b"), "Average: weights must add up to 1, got 2"),
        (TaskArithmetic(weights={"policy": 1.0}), ("policy", "a"), "weights are of policy, but the models are a"),
    ],
)
def test_weights_that_do_not_fit(stage: Merge, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage.check_inputs(frozenset(names))


def test_weights_are_finite() -> None:
    with pytest.raises(ValueError, match="Average: weights must be finite"):
        Average(weights={"a": float("nan")})


NO_TRAINING = dict.fromkeys(
    ("memory_budget_changes_nothing", "the_stop_token_is_scored", "the_reference_stays", "batches_hold_what_was_given"),
    "trains no policy",
)


def inputs(folder: Path) -> dict[str, Artifact]:
    return {name: tiny_policy_artifact(folder / name, seed) for seed, name in enumerate(("policy", "a", "b"))}


@conforms_stage(Average, inputs=inputs, skip=NO_TRAINING)
def test_average_conforms(check: Check) -> None:
    check()


@conforms_stage(lambda: TaskArithmetic(weights={"a": 0.5, "b": -0.5}), inputs=inputs, skip=NO_TRAINING)
def test_task_arithmetic_conforms(check: Check) -> None:
    check()
