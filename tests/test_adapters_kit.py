"""Stages that train an adapter, on top of another one, pass the conformance kit."""

from collections.abc import Callable
from pathlib import Path

import pytest
from adapter_cases import adapted, dpo, loop, online, ppo, settings, start
from alignlab_reward_model import BradleyTerry, RewardModel

from alignlab.artifact import Artifact
from alignlab.policy import LoRA
from alignlab.testing import Check, conforms_stage, tiny_policy_artifact


def an_adapter_as_policy(folder: Path) -> dict[str, Artifact]:
    """The policy that is trained is itself an adapter on a base."""
    inputs = start(folder)
    return {**inputs, "policy": adapted(inputs["policy"], folder / "adapter", LoRA(r=1, target=("q_proj", "up_proj")))}


def of(*names: str) -> Callable[[Path], dict[str, Artifact]]:
    def write(folder: Path) -> dict[str, Artifact]:
        reward = tiny_policy_artifact(folder / "reward", seed=1, scalar_head=True)
        return {k: v for k, v in {**an_adapter_as_policy(folder), "reward": reward}.items() if k in names}

    return write


@conforms_stage(lambda: dpo(loop=loop(log_every=1, save_every=1)), inputs=of("policy", "preferences"))
def test_dpo_with_an_adapter(check: Check) -> None:
    check()


@conforms_stage(
    lambda: RewardModel(objective=BradleyTerry(), **settings(loop=loop(log_every=1, save_every=1))),
    inputs=of("policy", "preferences"),
    skip={"the_reference_stays": "has no reference"},
)
def test_a_reward_model_with_an_adapter(check: Check) -> None:
    check()


@pytest.mark.slow
@conforms_stage(online, inputs=of("policy"), skip={"batches_hold_what_was_given": "takes no preferences"})
def test_online_preferences_with_an_adapter(check: Check) -> None:
    check()


@pytest.mark.slow
@conforms_stage(ppo, inputs=of("policy", "reward"), skip={"batches_hold_what_was_given": "takes no preferences"})
def test_ppo_with_an_adapter(check: Check) -> None:
    check()
