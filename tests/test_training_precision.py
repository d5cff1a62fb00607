"""Half precision: what is in it, and what is not."""

from pathlib import Path

import pytest
import torch
from alignlab_dpo import DPO

from alignlab.artifact import Artifact
from alignlab.batch import PreferenceBatch
from alignlab.policy import Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact
from alignlab.training import AdamW, Loop, PreferenceStage

HALF = Runtime("cpu", precision="bf16-true")


class Watching(PreferenceStage):
    """Keeps its policy's log-probabilities of the first batch, and what kind of numbers are made within a step."""

    def batch_at(self, step: int) -> PreferenceBatch:
        batch = super().batch_at(step)
        if step == 0:
            self.default = torch.get_default_dtype()
            self.first = batch
            with torch.no_grad():
                self.logp = self.policy.token_stats(batch, frozenset({"logp"})).logp
        return batch


@pytest.fixture
def trained(tmp_path: Path) -> Watching:
    """After one step in bfloat16."""
    inputs = {
        "policy": tiny_policy_artifact(tmp_path / "policy"),
        "preferences": tiny_preferences_artifact(tmp_path / "preferences"),
    }
    stage = Watching(objective=DPO(), optimizer=AdamW(lr=0.0), loop=Loop(1, 4, log_every=1))
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    stage.run(inputs, StageContext("dpo", tmp_path / "out", tmp_path / "work", HALF))
    stage.inputs["start"] = str(tmp_path / "policy")
    return stage


def test_weights_are_in_bfloat16_and_rotary_frequencies_are_not(trained: Watching) -> None:
    assert {p.dtype for p in trained.policy.parameters()} == {torch.bfloat16}
    fresh = Policy.load(Artifact.open(trained.inputs["start"]))
    frequencies = {k: b for k, b in trained.policy.named_buffers() if "inv_freq" in k}
    assert frequencies
    for name, buffer in frequencies.items():
        assert torch.equal(buffer, dict(fresh.named_buffers())[name])


def test_the_policy_that_trains_is_the_one_that_was_loaded(trained: Watching) -> None:
    """With a learning rate of 0 nothing moves it, and the reference was computed by a policy of the same numbers."""
    same = Policy.load(Artifact.open(trained.inputs["start"]), torch.bfloat16)
    with torch.no_grad():
        logp = same.token_stats(trained.first, frozenset({"logp"})).logp
    torch.testing.assert_close(trained.logp, logp, rtol=0, atol=0)
    assert float((trained.logp - trained.first.reference_logp).abs().max()) < 2e-2  # padded to other lengths


def test_numbers_made_within_a_step_are_in_float32(trained: Watching) -> None:
    """Lightning makes bfloat16 the default there; a reward or a margin would have three digits."""
    assert trained.default == torch.float32
    assert trained.first.weight.dtype == torch.float32
