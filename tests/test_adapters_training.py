"""Training adapters: the reference, what is stored, a kill in the middle, several processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_cases import (
    ADAPTER,
    Likes,
    adapted,
    disturb,
    dpo,
    logp,
    loop,
    made,
    ppo,
    saved,
    settings,
    sft,
    start,
    trainable_names,
)
from alignlab_merge import Average
from alignlab_pretrain import CausalLM, Pretrain
from together import run_together
from training_cases import Dies

from alignlab.artifact import Artifact
from alignlab.config import compose
from alignlab.config.experiment import check
from alignlab.config.spec import Spec
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.policy import Llama, LoRA, Policy, frozen_copy, low_rank
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import tiny_policy_artifact
from alignlab.training import MixedIn


@pytest.fixture
def base(tmp_path: Path) -> Artifact:
    return tiny_policy_artifact(tmp_path / "base")


# ---- training --------------------------------------------------------------------------------------------------------
def test_the_reference_is_the_adapter_switched_off(tmp_path: Path) -> None:
    inputs = start(tmp_path)
    first = {**inputs, "policy": made(tmp_path / "sft", sft(), inputs)}
    stage = dpo()
    made(tmp_path / "dpo", stage, first)
    batch = stage.batch_at(0)
    with torch.no_grad():
        saved_reference = Policy.load(first["policy"]).token_stats(batch, frozenset({"logp"})).logp
        trained = stage.policy.eval().token_stats(batch, frozenset({"logp"})).logp
        off = frozen_copy(stage.policy).token_stats(batch, frozenset({"logp"})).logp
    torch.testing.assert_close(batch.reference_logp, saved_reference, atol=1e-5, rtol=0)
    torch.testing.assert_close(off, saved_reference, atol=1e-5, rtol=0)
    assert (trained - saved_reference).abs().max() > 0.01
    assert stage.validate_now()["loss"] > 0


def test_a_reference_shares_what_is_not_trained_and_copies_what_is(base: Artifact) -> None:
    policy = Policy.load(base).add_adapter(ADAPTER, seed=1)
    reference = frozen_copy(policy)
    assert {p.data_ptr() for p in reference.parameters()} <= {p.data_ptr() for p in policy.parameters()}
    assert not trainable_names(reference) and not low_rank.has_adapter(reference.model)
    whole = Policy.load(base)
    apart = frozen_copy(whole)
    assert not {p.data_ptr() for p in apart.parameters()} & {p.data_ptr() for p in whole.parameters()}
    assert trainable_names(whole) and not trainable_names(apart)


def test_a_stage_publishes_its_adapter_and_leaves_its_base(tmp_path: Path) -> None:
    inputs = start(tmp_path)
    made(tmp_path / "one", dpo(), inputs)
    size = sum(f.stat().st_size for f in (tmp_path / "one" / "out").glob("adapter*"))
    shapes = [(16, 16)] * 4 + [(32, 16)] * 3
    assert size < 4 * sum(2 * (o + i) for o, i in shapes) + 5000  # rank 2 in float32, and two small files
    inputs["policy"].verify()
    assert logp(tmp_path / "one" / "out").shape == logp(inputs["policy"]).shape


def test_all_weights_can_be_trained_from_an_adapter(tmp_path: Path) -> None:
    inputs = start(tmp_path)
    first = made(tmp_path / "sft", sft(), inputs)
    stage = dpo(adapter=None, loop=loop(steps=1))
    whole = made(tmp_path / "dpo", stage, {**inputs, "policy": first})
    assert not low_rank.has_adapter(stage.policy.model) and (whole.path / "model.safetensors").is_file()
    assert (logp(whole) - logp(first)).abs().max() > 1e-4


def test_a_run_that_was_killed_continues_to_the_bit_without_its_base_in_the_checkpoint(tmp_path: Path) -> None:
    inputs = start(tmp_path)
    whole = dpo(loop=loop(save_every=1, ema=0.5))
    made(tmp_path / "whole", whole, inputs)

    class Mortal(type(whole)):  # type: ignore[misc]
        def batch_at(self, step: int) -> Any:
            if step == 3:
                raise Dies
            return super().batch_at(step)

    killed = dpo(loop=loop(save_every=1, ema=0.5))
    killed.__class__ = Mortal
    with pytest.raises(Dies):
        made(tmp_path / "killed", killed, inputs)
    checkpoint = torch.load(tmp_path / "killed" / "work" / "last.ckpt", weights_only=True)
    kept = [name for name in checkpoint["state_dict"] if not name.startswith("_average")]
    assert kept and all(".lora_" in name for name in kept)
    assert all(
        ".lora_" in n
        for n in torch.load(next((tmp_path / "killed/work").glob("best-*.pt")))
        if not n.startswith("_average")
    )
    resumed = dpo(loop=loop(save_every=1, ema=0.5))
    made(tmp_path / "killed", resumed, inputs)
    for name, weight in whole.policy.named_parameters():
        assert torch.equal(weight, resumed.policy.get_parameter(name)), name


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    alone = dpo()
    made(tmp_path / "alone", alone, start(tmp_path))
    (tmp_path / "two").mkdir()
    run_together(Path(__file__).with_name("adapter_cases.py"), tmp_path / "two")
    for rank in range(2):
        found = torch.load(tmp_path / "two" / str(rank) / "weights.pt", weights_only=True)
        for name, weight in alone.policy.named_parameters():
            torch.testing.assert_close(found[name], weight.detach(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_every_precision_trains_an_adapter(precision: Any, tmp_path: Path) -> None:
    inputs = start(tmp_path)
    stage = sft()
    stored = made(tmp_path / "sft", stage, inputs, precision=precision)
    dtype = Runtime(precision=precision).dtype
    assert all(p.dtype == dtype for p in stage.policy.model.parameters())
    assert (logp(stored, dtype) - logp(inputs["policy"], dtype)).abs().max() > 0.01


def test_a_critic_trains_an_adapter_of_its_own(tmp_path: Path) -> None:
    inputs = start(tmp_path)
    reward = tiny_policy_artifact(tmp_path / "reward", seed=1, scalar_head=True)
    stage = ppo()
    made(tmp_path / "ppo", stage, {"policy": inputs["policy"], "reward": reward})
    assert stage.critic is not None
    names = {n for n, p in stage.critic.named_parameters() if p.requires_grad}
    assert {"bias", "policy.score_head.weight"} < names
    assert all(".lora_" in n for n in names - {"bias", "policy.score_head.weight"})


def test_models_with_adapters_are_averaged_as_whole_ones(base: Artifact, tmp_path: Path) -> None:
    one = adapted(base, tmp_path / "one")
    two = saved(disturb(Policy.load(base).add_adapter(LoRA(r=3), 4), seed=5), tmp_path / "two")
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
    Average().run({"a": one, "b": two}, StageContext("mean", tmp_path / "out", tmp_path / "work", Runtime("cpu")))
    found = Policy.load(tmp_path / "out").model
    parts = [Policy.load(x).merge_adapter().model for x in (one, two)]
    for name, weight in found.named_parameters():
        torch.testing.assert_close(weight, sum(p.get_parameter(name) for p in parts) / 2)


# ---- configuration ---------------------------------------------------------------------------------------------------
def test_an_adapter_is_part_of_a_stages_identity_where_there_is_one() -> None:
    from alignlab.training import PreferenceStage

    def identity(**adapter: Any) -> dict[str, Any]:
        return Spec(PreferenceStage, "pipeline.dpo", adapter).identity()

    lowrank = Spec(LoRA, "pipeline.dpo.adapter", {"r": 4})
    assert identity() == identity(adapter=None) and "adapter" not in identity()
    assert identity(adapter=lowrank)["adapter"]["r"] == 4


@pytest.mark.parametrize(
    ("override", "adapted_stages"),
    [
        ("adapter=lora", {"sft", "reward_model", "dpo", "ppo"}),
        ("pipeline.dpo.adapter=lora", {"dpo"}),
        ("seed=0", set()),
    ],
)
def test_one_setting_reaches_the_stages_that_continue_a_model(override: str, adapted_stages: set[str]) -> None:
    typed = ("experiment=lifecycle", override)
    with compose.session(typed) as hydra:
        pipeline = check(hydra.compose(typed), typed).pipeline
    assert {name for name, spec in pipeline.items() if spec.arguments.get("adapter")} == adapted_stages
    assert {name for name, spec in pipeline.items() if "adapter" in spec.identity()} == adapted_stages


def test_pretraining_from_scratch_takes_no_adapter() -> None:
    words = TrainTokenizer(kind="word", vocab_size=64)
    stage = Pretrain(data=Likes(), model=Llama(), tokenizer=words, objective=CausalLM(), **settings())
    stage.check_inputs(frozenset({"policy"}))
    with pytest.raises(ValueError, match=r"Pretrain: an adapter changes a model that has learnt something"):
        stage.check_inputs(frozenset())


def test_old_documents_can_be_mixed_into_reading_on(tmp_path: Path) -> None:
    """Continued pretraining takes what every other stage takes: another adapter, and replay."""
    words = TrainTokenizer(kind="word", vocab_size=64)
    replay = {"old": MixedIn(CausalLM(), Likes(), batch_size=2)}
    stage = Pretrain(data=Likes(), model=Llama(), tokenizer=words, objective=CausalLM(), mixed_in=replay, **settings())
    made(tmp_path / "on", stage, {"policy": tiny_policy_artifact(tmp_path / "policy")})
    assert "old/loss" in stage.last_step.means
    assert "mixed_in" not in Spec(Pretrain, "pipeline.pretrain", {}).identity()
