"""Dropout and seeds of the training loop: on while training alone, and a function of the step."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from training_cases import Fixed, parameters
from training_runs import furthest, killed_and_resumed, run_in, with_kind

from alignlab.artifact import Artifact
from alignlab.batch import Batch
from alignlab.policy import Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.training import AdamW
from alignlab.training.module import StageModule


# ---- dropout --------------------------------------------------------------------------------------------------------
class Dropping(Fixed):
    """Every second attention weight is dropped while it trains."""

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        super().prepare(inputs, context)
        dropping(self.policy)


class Never(Dropping):
    """Its configuration asks for dropout, its method forbids it."""

    DROPOUT = False


def dropping(policy: Policy) -> None:
    """Drop half of what is attended to, and make it matter."""
    for name, parameter in policy.model.named_parameters():
        if name.endswith(("v_proj.weight", "o_proj.weight")):
            parameter.data.mul_(30)
    for module in policy.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5


class Steady(Dropping):
    """Attends in the same way, and drops nothing."""

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        super().prepare(inputs, context)
        for module in self.policy.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0


def test_dropout_is_on_while_training_and_off_where_the_method_says_so(tmp_path: Path) -> None:
    found = {}
    for kind in (Steady, Dropping, Never):
        stage = with_kind(kind)
        _, heard = run_in(tmp_path / kind.__name__, stage)
        found[kind] = parameters(stage), heard.values("train/loss")[0]
    assert furthest(found[Never][0], found[Steady][0]) == 0.0
    assert furthest(found[Dropping][0], found[Steady][0]) > 1e-4
    assert abs(found[Dropping][1] - found[Steady][1]) > 1e-4


def test_training_goes_on_in_training_mode_after_a_validation(tmp_path: Path) -> None:
    often, once = with_kind(Dropping, steps=4, validate_every=1), with_kind(Dropping, steps=4)
    heard = [run_in(tmp_path / n, s)[1].values("train/loss") for n, s in (("often", often), ("once", once))]
    assert heard[0] == heard[1]


def test_validation_drops_nothing_and_says_the_same_twice(tmp_path: Path) -> None:
    stage = with_kind(Dropping)
    stage.prepare({}, StageContext("loop", tmp_path, tmp_path, Runtime("cpu")))
    stage.policy.train()
    first = stage.validate_now()
    stage.policy.train()
    assert stage.validate_now() == first
    steady = with_kind(Steady)
    steady.prepare({}, StageContext("loop", tmp_path, tmp_path, Runtime("cpu")))
    steady.policy.eval()
    assert steady.validate_now() == first


class Looks(Fixed):
    """Validates by itself, as online methods do, and remembers the mode that it was in."""

    def validate_now(self) -> dict[str, float]:
        vars(self).setdefault("modes", []).append((self.policy.training, self.policy.model.training))
        return {"loss": 1.0}


def test_a_method_that_validates_by_itself_is_in_evaluation_mode(tmp_path: Path) -> None:
    stage = with_kind(Looks, steps=2, validate_every=1)
    run_in(tmp_path, stage)
    assert stage.modes == [(False, False)] * 3  # type: ignore[attr-defined]


# ---- seeds ----------------------------------------------------------------------------------------------------------
class Draws(Dropping):
    """Draws a part of its batch from the global generator."""

    def batch_at(self, step: int) -> Batch:
        batch = super().batch_at(step)
        return batch.with_tokens(reference_logp=batch.reference_logp + torch.randn(batch.num_tokens))


@pytest.mark.parametrize("kind", [Dropping, Draws])
def test_a_killed_run_drops_and_draws_the_same_when_it_goes_on(kind: type[Fixed], tmp_path: Path) -> None:
    def make() -> Fixed:
        return with_kind(kind, "dpo", steps=6, save_every=1)

    whole = make()
    _, heard = run_in(tmp_path / "whole", whole)
    resumed, again = killed_and_resumed(tmp_path / "killed", make)
    assert again.values("train/loss") == heard.values("train/loss")[3:]
    assert furthest(parameters(resumed), parameters(whole)) == 0.0


def test_every_step_drops_other_weights_and_so_does_another_seed(tmp_path: Path) -> None:
    """The same batch three times at a learning rate of 0: three losses."""

    class Same(Dropping):
        def batch_at(self, step: int) -> Batch:
            return super().batch_at(0)

    losses = []
    for seed in (0, 1):
        stage = with_kind(Same, steps=3)
        stage.seed, stage.optimizer = seed, AdamW(lr=0.0)
        losses += run_in(tmp_path / str(seed), stage)[1].values("train/loss")
    assert len(set(losses)) == 6


def test_processes_draw_the_same_batch_and_drop_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run is the second process of a group, as far as seeds are concerned."""
    batches, losses = [], []

    class Watched(Draws):
        def batch_at(self, step: int) -> Batch:
            batches.append(super().batch_at(step))
            return batches[-1]

    for rank in (0, 1):
        monkeypatch.setattr(StageModule, "global_rank", rank)
        monkeypatch.setattr(Batch, "shard", lambda self, *_: self)
        losses += run_in(tmp_path / str(rank), with_kind(Watched, "dpo"))[1].values("train/loss")
    assert torch.equal(batches[0].reference_logp, batches[1].reference_logp)
    assert abs(losses[0] - losses[1]) > 1e-4
