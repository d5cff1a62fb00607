"""A PPO run of a few seconds on a tiny random policy."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_ppo import GAE, PPO, PPOStage
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.policy import Sampling
from alignlab.reward import RewardSource
from alignlab.runtime import Runtime
from alignlab.stage import NullTracker, StageContext
from alignlab.testing import tiny_policy_artifact
from alignlab.training import AdamW, Constant, Loop


class Questions(DataSource):
    """Nine questions, of which the last three are held out."""

    VERSION: ClassVar[str] = "1"

    def prompts(self, split: Split) -> Sequence[Prompt]:
        asked = [Prompt.user(f"what does {n} {v} ?") for n in ("ana", "bo", "cy") for v in ("like", "think", "not")]
        return asked[:6] if split == "train" else asked[6:]


class Tea(RewardSource):
    """One reward unit for every "tea", less a tenth for every other word."""

    VERSION: ClassVar[str] = "1"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        words = [a.split() for a in answers]
        return torch.tensor([1.1 * w.count("tea") - 0.1 * len(w) for w in words])


class Heard(NullTracker):
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.logged.append((step, dict(metrics)))


MakeStage = Callable[..., PPOStage]


@pytest.fixture
def make_stage() -> MakeStage:
    """Builds a stage; keyword arguments replace its own, those of `loop`, `sampling` and `optimizer` by prefix."""

    def make(kind: type[PPOStage] = PPOStage, **changes: Any) -> PPOStage:
        def part(prefix: str, **default: Any) -> dict[str, Any]:
            own = {k.removeprefix(prefix): changes.pop(k) for k in list(changes) if k.startswith(prefix)}
            return default | own

        loop = Loop(**part("loop_", steps=6, batch_size=6, validate_every=3, log_every=1, save_every=100))
        sampling = Sampling(**part("sampling_", temperature=0.6, max_new_tokens=6))
        optimizer = AdamW(**part("optimizer_", lr=1e-3, eps=1e-5, schedule=Constant(warmup_steps=0)))
        arguments: dict[str, Any] = {"data": Questions(), "objective": PPO(), "advantage": GAE(), "seed": 3}
        arguments |= {"prompts_per_rollout": 4, "samples_per_prompt": 3, "validation_prompts": 3, "epochs": 2}
        return kind(loop=loop, sampling=sampling, optimizer=optimizer, **(arguments | changes))

    return make


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Where training begins; read only."""
    return tiny_policy_artifact(tmp_path_factory.mktemp("ppo") / "policy")


@pytest.fixture(scope="session")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A random reward model with the same vocabulary; read only."""
    return tiny_policy_artifact(tmp_path_factory.mktemp("ppo") / "reward", seed=5, scalar_head=True)


@pytest.fixture
def context_in() -> Callable[[Path], StageContext]:
    """A context with a tracker that remembers, in a folder."""

    def make(folder: Path) -> StageContext:
        (folder / "out").mkdir(parents=True, exist_ok=True)
        (folder / "work").mkdir(exist_ok=True)
        return StageContext("ppo", folder / "out", folder / "work", Runtime("cpu", threads=1), Heard())

    return make


@pytest.fixture
def context(tmp_path: Path, context_in: Callable[[Path], StageContext]) -> StageContext:
    """One in a fresh folder."""
    return context_in(tmp_path)


@pytest.fixture
def prepared(
    make_stage: MakeStage, tea: RewardSource, policy: Artifact, context: StageContext
) -> Callable[..., PPOStage]:
    """Builds a stage that is ready to make its first buffer."""

    def make(**changes: Any) -> PPOStage:
        stage = make_stage(reward=tea, **changes)
        stage.context = context
        stage.prepare({"policy": policy}, context)
        return stage

    return make


@pytest.fixture
def tea() -> RewardSource:
    """A reward that needs no model."""
    return Tea()
