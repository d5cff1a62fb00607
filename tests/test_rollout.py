"""Rollouts: the interface of what samples, the built-in sampler, and vLLM's, by an engine that stands for it."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from adapter_cases import adapted, disturb
from alignlab_grpo import GRPO, GroupRelative, Reinforce, TruncatedImportance
from alignlab_online_dpo import OnlinePreferences
from regimes import killed_before, online, parameters, run

from alignlab.artifact import Artifact
from alignlab.config.check import parse
from alignlab.data.records import Prompt
from alignlab.errors import ConfigError
from alignlab.pipeline.plan import plan
from alignlab.policy import (
    BuiltinRollout,
    Drawn,
    LoRA,
    Policy,
    Rollout,
    Sampler,
    Sampling,
    VLLMRollout,
    answers,
    generate,
    gpu,
    low_rank,
)
from alignlab.runtime import Runtime
from alignlab.testing import Check, check_rollout, conforms_rollout, tiny_policy, tiny_policy_artifact
from alignlab.testing.rollout import CHECKS, RolloutSubject
from alignlab.training import PolicyGradientStage

CPU = Runtime("cpu", threads=1)
ENGINES = str(Path(__file__).parent / "fake_engines")


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stand-in, importable as vllm, on a machine that has a GPU."""
    yield from _vllm(monkeypatch)


def _vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ENGINES)
    monkeypatch.setattr(gpu, "has_gpu", lambda: True)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    import vllm

    vllm.MADE.clear()
    yield vllm
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        del sys.modules[name]


# ---- the kit ---------------------------------------------------------------------------------------------------------
@conforms_rollout(BuiltinRollout)
def test_the_built_in_sampler_conforms(check: Check) -> None:
    check()


@conforms_rollout(BuiltinRollout, runtime=Runtime("cpu", precision="bf16-true"), tolerance=0.05)
def test_the_built_in_sampler_conforms_in_half_precision(check: Check) -> None:
    check()


@pytest.mark.usefixtures("vllm")
@conforms_rollout(VLLMRollout)
def test_vllm_conforms(check: Check) -> None:
    check()


@pytest.mark.usefixtures("vllm")
@conforms_rollout(lambda: VLLMRollout(sleep=False))
def test_vllm_that_never_sleeps_conforms(check: Check) -> None:
    check()


class Mistaken(Sampler):
    """The built-in sampler, with one mistake."""

    def __init__(self, policy: Policy, how: str) -> None:
        self._first = self._inner_policy = policy
        self._how = how
        self._calls = 0

    def update(self, policy: Policy) -> None:
        if self._how == "stale weights":
            policy = self._first
        self._inner_policy = policy

    def sample(
        self, prompts: Sequence[Sequence[int]], each: int, sampling: Sampling, seed: int, first_index: int = 0
    ) -> list[Drawn]:
        self._calls += 1
        how, inner = self._how, BuiltinRollout().open(self._inner_policy, CPU)
        inner.update(self._inner_policy)
        hot = Sampling(temperature=1.0, max_new_tokens=sampling.max_new_tokens)
        longer = Sampling(temperature=sampling.temperature, max_new_tokens=sampling.max_new_tokens + 1)
        if how == "greedy":
            found = inner.sample(prompts, each, Sampling(temperature=0, max_new_tokens=sampling.max_new_tokens), seed)
            return [[(token, -0.5) for token, _ in answer] for answer in found]
        seed = seed + self._calls if how == "seed by calls" else seed
        first_index = 0 if how == "index from 0" else first_index
        used = {"temperature forgotten": hot, "one too long": longer}.get(how, sampling)
        found = inner.sample(prompts, each, used, seed, first_index)
        if how == "stop token left out":
            return [a[:-1] if len(a) > 1 and a[-1][0] in self._inner_policy.stop_ids else a for a in found]
        if how == "logp of temperature 1":
            return [[(token, logp * sampling.temperature) for token, logp in answer] for answer in found]
        return found


@dataclass(frozen=True)
class WithAMistake(Rollout):
    VERSION: ClassVar[str] = "1"
    how: str = ""

    def open(self, policy: Policy, runtime: Runtime) -> Sampler:
        return Mistaken(policy, self.how)


@dataclass
class Thawed(Rollout):
    """Neither frozen nor with a version of its own."""

    size: int = 1

    def open(self, policy: Policy, runtime: Runtime) -> Sampler:
        return Mistaken(policy, "")


@pytest.mark.parametrize(
    ("make", "caught_by"),
    [
        (Thawed, "version_is_a_literal"),
        (Thawed, "arguments_are_attributes"),
        (lambda: WithAMistake("stop token left out"), "answers_end_where_they_must"),
        (lambda: WithAMistake("one too long"), "answers_end_where_they_must"),
        (lambda: WithAMistake("seed by calls"), "a_seed_gives_the_same_answers"),
        (lambda: WithAMistake("greedy"), "a_seed_gives_the_same_answers"),
        (lambda: WithAMistake("index from 0"), "neighbours_change_nothing"),
        (lambda: WithAMistake("logp of temperature 1"), "log_probabilities_are_tempered"),
        (lambda: WithAMistake("temperature forgotten"), "log_probabilities_are_tempered"),
        (lambda: WithAMistake("temperature forgotten"), "tokens_are_as_frequent_as_they_are_likely"),
        (lambda: WithAMistake("stale weights"), "an_update_changes_who_answers"),
    ],
)
def test_every_check_catches_a_mistake(make: Any, caught_by: str) -> None:
    (check,) = (c for c in CHECKS if c.__name__ == caught_by)
    with pytest.raises(AssertionError, match=type(make()).__name__):
        check(RolloutSubject(make))


def test_the_sampler_without_a_mistake_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_rollout(WithAMistake())
    assert not check_rollout(WithAMistake("stale weights"))
    assert "an_update_changes_who_answers" in capsys.readouterr().out


# ---- the built-in sampler --------------------------------------------------------------------------------------------
def test_the_built_in_sampler_gives_what_generate_gives() -> None:
    policy, few = tiny_policy(), Sampling(temperature=0.8, max_new_tokens=5)
    prompts = [Prompt.user(text) for text in ("tea", "what does ana like ?", "rain")]
    sampler = BuiltinRollout().open(policy, CPU)
    found = answers(sampler, policy, prompts, 3, few, seed=4, first_index=7)
    wanted = generate(policy, [p for p in prompts for _ in range(3)], few, seed=4, first_index=7)
    assert found == wanted and [s.logp for s in found] == [s.logp for s in wanted]


# ---- vLLM ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Artifact]:
    return {"policy": tiny_policy_artifact(tmp_path / "policy")}


def grpo(rollout: Rollout | None, **changes: Any) -> Any:
    own = {"objective": Reinforce(), "advantage": GroupRelative(), "rollout": rollout, "loop_steps": 4, **changes}
    return online(PolicyGradientStage, **own)


def test_a_policy_trains_on_what_vllm_samples(vllm: Any, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    """The engine's weights are the policy's in every buffer, as the drift shows, and it sleeps in between."""
    stage = grpo(VLLMRollout(), lr=3e-2)
    metrics, seen = run(stage, inputs, tmp_path)
    assert len(seen.values("train/sampler_drift")) == 2 and metrics["steps"] == 4
    assert max(seen.values("train/sampler_drift_max")) < 1e-4, "it would grow, had an update been left out"
    assert seen.values("train/sampler_ratio") == pytest.approx([1, 1], abs=1e-4)
    (engine,) = vllm.MADE
    assert engine.mapped == set() and vllm.distributed.CLEANED
    start = Policy.load(inputs["policy"])
    pairs = zip(stage.policy.parameters(), start.parameters(), strict=True)
    assert max(float((p - q).detach().abs().max()) for p, q in pairs) > 1e-3


def test_drift_is_what_was_not_synchronised(
    vllm: Any, inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that keeps its first weights is seen in the metrics; the ratio's mean stays near 1."""
    load = vllm.LLM._load_weights
    monkeypatch.setattr(
        vllm.LLM, "_load_weights", lambda self, weights: vars(self).setdefault("kept", None) or self.keep(load, weights)
    )

    def keep(self: Any, load: Any, weights: Any) -> None:
        first = vars(self).setdefault("first", {name: weight.clone() for name, weight in weights})
        load(self, first.items())

    monkeypatch.setattr(vllm.LLM, "keep", keep, raising=False)
    _, seen = run(grpo(VLLMRollout(), lr=3e-2), inputs, tmp_path)
    first, second = seen.values("train/sampler_drift")
    assert first < 1e-4 and second > 1e-2
    assert seen.values("train/sampler_drift_max")[1] > second


def test_what_is_trained_does_not_depend_on_being_compared(
    vllm: Any, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    """The extras that only the comparison needs do not stay in the buffer."""
    stage = grpo(VLLMRollout())
    run(stage, inputs, tmp_path)
    assert stage.batch_at(3).per_token.keys() == {"advantage"}


def test_the_built_in_sampler_is_compared_where_the_objective_reads_both(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    objective = TruncatedImportance(GRPO())
    _, seen = run(grpo(None, objective=objective), inputs, tmp_path / "both")
    assert max(seen.values("train/sampler_drift")) < 1e-5
    _, seen = run(grpo(None), inputs, tmp_path / "neither")
    assert seen.values("train/sampler_drift") == []


def test_truncated_importance_takes_the_engines_probabilities(
    vllm: Any, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    stage = grpo(VLLMRollout(), objective=TruncatedImportance(GRPO()))
    run(stage, inputs, tmp_path)
    batch = stage.batch_at(3)
    mask = batch.response_mask
    assert torch.allclose(batch.sampler_logp[mask], batch.old_logp[mask], atol=1e-4)


def test_methods_on_pairs_sample_by_it_too(vllm: Any, inputs: dict[str, Artifact], tmp_path: Path) -> None:
    from alignlab_dpo import DPO

    changes = {"objective": DPO(), "rollout": VLLMRollout(), "loop_steps": 2, "loop_batch_size": 4}
    _, seen = run(online(OnlinePreferences, **changes), inputs, tmp_path)
    assert seen.values("train/sampler_drift")


def test_two_runs_sample_the_same_answers_also_after_a_kill(
    vllm: Any, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    def stage() -> Any:
        return grpo(VLLMRollout(), loop_save_every=1)

    whole, resumed = stage(), stage()
    run(whole, inputs, tmp_path / "whole")
    killed_before(3, stage(), inputs, tmp_path / "killed")
    run(resumed, inputs, tmp_path / "killed")
    one, other = parameters(whole), parameters(resumed)
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("own", [None, LoRA(r=2)], ids=["all weights", "adapter"])
@pytest.mark.parametrize("start", ["whole", "adapted"])
def test_the_engine_has_the_weights_with_their_adapters(
    own: LoRA | None, start: str, vllm: Any, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    artifact = inputs["policy"] if start == "whole" else adapted(inputs["policy"], tmp_path / "adapted")
    policy = Policy.load(artifact)
    policy = disturb(policy.add_adapter(own, seed=1)) if own else policy.merge_adapter()
    sampler = VLLMRollout().open(policy, CPU)
    few = Sampling(temperature=0.7, max_new_tokens=5)
    samples = answers(sampler, policy, [Prompt.user("tea"), Prompt.user("what does ana like ?")], 3, few, seed=1)
    from alignlab.training.rollouts import rollout_batch, sampler_logp

    batch = rollout_batch(samples, 3, few.temperature)
    with torch.no_grad():
        logp = policy.eval().token_stats(batch, frozenset({"logp"})).logp
    assert torch.allclose(logp[batch.response_mask], sampler_logp(samples)[batch.response_mask], atol=1e-4)


def test_merged_weights_are_those_of_the_merged_model(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    policy = disturb(Policy.load(adapted(inputs["policy"], tmp_path / "adapted")).add_adapter(LoRA(r=2), seed=1))
    names = dict(low_rank.merged_weights(policy.model))
    merged = dict(policy.merge_adapter().model.named_parameters())
    assert names.keys() == merged.keys() and all(torch.equal(names[k], merged[k]) for k in names)


def test_what_the_engine_is_asked_for(vllm: Any, inputs: dict[str, Artifact]) -> None:
    policy = Policy.load(inputs["policy"])
    sampler = VLLMRollout(gpu_memory=0.3, eager=True).open(policy, Runtime("cpu", precision="bf16-true"))
    sampler.update(policy)
    (engine,) = vllm.MADE
    assert engine.settings["dtype"] == "bfloat16" and engine.settings["gpu_memory_utilization"] == 0.3
    assert engine.settings["max_model_len"] == policy.context and engine.settings["enforce_eager"]
    sampler.sample([[1, 5], [1, 6]], 2, Sampling(temperature=0.5, max_new_tokens=4), seed=9)
    asked = engine.generated
    assert len({s.seed for s in asked}) == 4 and {s.temperature for s in asked} == {0.5}
    assert all(set(s.stop_token_ids) == set(policy.stop_ids) and s.ignore_eos for s in asked)
    assert sampler.sample([], 2, Sampling(), seed=9) == []


def test_a_prompt_that_leaves_no_room_is_refused(vllm: Any, inputs: dict[str, Artifact]) -> None:
    policy = Policy.load(inputs["policy"])
    sampler = VLLMRollout(max_length=4).open(policy, CPU)
    sampler.update(policy)
    with pytest.raises(ConfigError, match=r"a prompt has 4 tokens, and rollout\.max_length=4 leaves no room"):
        sampler.sample([[1, 5, 6, 7]], 1, Sampling(), seed=0)


def test_what_cuts_answers_short_is_part_of_what_a_stage_is() -> None:
    """An artifact of longer answers must not be taken for one of shorter ones; how much memory they took may."""

    def identity(**arguments: Any) -> Any:
        return parse({"_target_": "alignlab.policy.VLLMRollout", **arguments}, "rollout").identity()

    assert identity(max_length=64) != identity() == identity(gpu_memory=0.3, sleep=False)


# ---- what is missing -------------------------------------------------------------------------------------------------
def asked(**runtime: Any) -> None:
    """Plan a stage that samples by vLLM."""
    node = {
        "_target_": "alignlab.training.PolicyGradientStage",
        "objective": {"_target_": "alignlab_grpo.Reinforce"},
        "advantage": {"_target_": "alignlab_grpo.GroupRelative"},
        "optimizer": {
            "_target_": "alignlab.training.AdamW",
            "lr": 1e-3,
            "schedule": {"_target_": "alignlab.training.Constant"},
        },
        "loop": {"_target_": "alignlab.training.Loop", "steps": 2, "batch_size": 4},
        "sampling": {"_target_": "alignlab.policy.Sampling"},
        "data": {"_target_": "alignlab.data.world.World"},
        "rollout": {"_target_": "alignlab.policy.VLLMRollout"},
        "inputs": {"policy": "nowhere"},
    }
    plan({"grpo": parse(node, "pipeline.grpo")}, Runtime(**runtime))


def test_a_missing_package_and_gpu_are_one_message_before_anything_trains() -> None:
    with pytest.raises(ConfigError, match=r"rollout=vllm: needs vLLM, .*pip install 'alignlab\[vllm\]'.* and a CUDA"):
        asked()


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"accelerator": "cpu"}, r"needs a CUDA GPU, which is not there or not used \(runtime=gpu\)"),
        ({"devices": 2, "strategy": "ddp_spawn"}, r"shares one GPU with the trainer, got 2 devices on 1"),
        ({"precision": "64-true"}, r"float32 or bfloat16"),
    ],
)
def test_a_runtime_that_it_cannot_work_on_is_refused_before_anything_trains(
    runtime: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        asked(**runtime)


@pytest.mark.parametrize("arguments", [{"gpu_memory": 0.0}, {"gpu_memory": 1.0}, {"max_length": 1}])
def test_arguments_are_checked(arguments: Any) -> None:
    with pytest.raises(ValueError, match="VLLMRollout: "):
        VLLMRollout(**arguments)
