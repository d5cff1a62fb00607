"""Online training: sample answers, score them, learn from them for a few epochs, sample again."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from alignlab import distributed
from alignlab.advantage import Advantage
from alignlab.artifact import Artifact, Kind
from alignlab.batch import RolloutBatch
from alignlab.data.records import Prompt
from alignlab.data.rows import order_at, permutation
from alignlab.data.source import DataSource, Split
from alignlab.errors import DataError, PipelineError
from alignlab.objective import Objective
from alignlab.policy import LearnedReward, Policy, Sampling, fitting, previews
from alignlab.reward import RewardSource
from alignlab.seed import fold_in
from alignlab.stage import StageContext
from alignlab.stats import TokenStats
from alignlab.training import Loop, OptimizerSpec, ParameterGroup, TrainingStage
from alignlab_ppo.collector import Collector, check_on_policy
from alignlab_ppo.critic import Critic
from alignlab_ppo.rollouts import as_state, explained_variance, from_state, summary

_ORDER, _SAMPLES, _MINIBATCHES, _VALIDATION = 1, 2, 3, 4
"""Streams of random numbers, one for each purpose."""


class PPOStage(TrainingStage[RolloutBatch]):
    """Train a policy by sampled answers and a reward, held near where it began by a price on the KL.

    Every `steps_per_rollout` optimizer steps, the policy answers `prompts_per_rollout` prompts `samples_per_prompt`
    times; the buffer so made is scored by the reward, by the frozen initial policy and by the critic, turned into
    advantages once, and then visited `epochs` times in shuffled minibatches of `loop.batch_size` answers. The buffer
    is part of the resumable checkpoint, so that a run killed in the middle of it goes on exactly.

    What is compared is computed alike: the trainer recomputes `old_logp` (the sampler's own numbers come by another
    path), at the sampling temperature, and dropout is off throughout, so that on-policy ratios are 1.

    The reward is normalised once, by the mean and standard deviation over the first buffer, when the policy still is
    the reference. Buffer by buffer, the price of a nat would drift as the policy improves, and with it the optimum.

    Args:
        data: gives the prompts.
        advantage: turns rewards into advantages; run once over each whole buffer.
        sampling: how the policy answers; top_p and top_k must keep every token.
        reward: scores answers; by default the reward model that is the input `reward`. When both are given this one
            scores, and the critic starts from the reward model.
        prompts_per_rollout: prompts of one buffer.
        samples_per_prompt: answers to each.
        epochs: visits to each buffer; 1 to 4 is usual.
        normalize_reward: see above; false takes rewards as they are.
        critic_lr: peak learning rate of the critic; null takes the optimizer's.
        critic_clip_norm: largest gradient norm of the critic; null takes the optimizer's.
        validation_prompts: held-out prompts that are answered at each validation.
        inputs: `policy`, where it begins and what it is held near; `reward`, a reward model.
        seed: of sampling, and of the order of prompts and minibatches.
    """

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {"reward": frozenset({"reward_model"})}
    PRODUCES: ClassVar[Kind] = "policy"
    MONITOR: ClassVar[str] = "reward"
    HIGHER_IS_BETTER: ClassVar[bool] = True
    DROPOUT: ClassVar[bool] = False
    FILLS: ClassVar[frozenset[str]] = frozenset({"old_logp", "reference_logp", "old_value", "advantage", "returns"})

    critic: Critic | None
    """None where neither the objective nor the advantage asks for values."""

    def __init__(
        self,
        *,
        data: DataSource,
        objective: Objective[RolloutBatch],
        advantage: Advantage,
        optimizer: OptimizerSpec,
        loop: Loop,
        sampling: Sampling,
        reward: RewardSource | None = None,
        prompts_per_rollout: int = 64,
        samples_per_prompt: int = 4,
        epochs: int = 2,
        normalize_reward: bool = True,
        critic_lr: float | None = None,
        critic_clip_norm: float | None = None,
        validation_prompts: int = 128,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs=inputs, seed=seed, objective=objective, optimizer=optimizer, loop=loop)
        self.data = data
        self.advantage = advantage
        self.sampling = sampling
        self.reward = reward
        self.prompts_per_rollout = prompts_per_rollout
        self.samples_per_prompt = samples_per_prompt
        self.epochs = epochs
        self.normalize_reward = normalize_reward
        self.critic_lr = critic_lr
        self.critic_clip_norm = critic_clip_norm
        self.validation_prompts = validation_prompts
        self._check()
        self._number = -1
        self._buffer: RolloutBatch | None = None
        self._scale: tuple[float, float] | None = None if normalize_reward else (0.0, 1.0)
        self._reference_reward: float | None = None

    def _check(self) -> None:
        for name in ("prompts_per_rollout", "samples_per_prompt", "epochs", "validation_prompts"):
            if getattr(self, name) < 1:
                raise ValueError(f"PPOStage: {name} must be >= 1, got {getattr(self, name)}")
        if self.critic_lr is not None and self.critic_lr < 0:
            raise ValueError(f"PPOStage: critic_lr must be >= 0 or null, got {self.critic_lr}")
        if self.critic_clip_norm is not None and self.critic_clip_norm <= 0:
            raise ValueError(f"PPOStage: critic_clip_norm must be > 0 or null, got {self.critic_clip_norm}")
        check_on_policy(self.sampling, type(self).__name__)
        if self.rollout_size % self.loop.batch_size:
            raise ValueError(
                f"PPOStage: loop.batch_size must divide prompts_per_rollout * samples_per_prompt = "
                f"{self.rollout_size}, got {self.loop.batch_size}; a minibatch is cut from one buffer"
            )

    @property
    def rollout_size(self) -> int:
        """Answers in a buffer."""
        return self.prompts_per_rollout * self.samples_per_prompt

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps between two buffers."""
        return self.epochs * (self.rollout_size // self.loop.batch_size)

    # ---- models ---------------------------------------------------------------------------------------------------
    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Policy, its frozen copy, the critic, the reward, the prompts."""
        dtype, budget = context.runtime.dtype, self.loop.micro_batch_tokens
        self.policy = Policy.load(inputs["policy"], dtype)
        self.critic = None
        if "value" in self.objective.needs or "old_value" in self.advantage.reads | self.objective.reads:
            self.critic = Critic.start(self.policy, inputs["policy"], inputs.get("reward"), dtype)
        reference, scorer = copy.deepcopy(self.policy), self._scorer(inputs)
        source = self.reward if scorer is None else LearnedReward(scorer, budget)
        assert source is not None
        self.collector = Collector(reference, source, scorer, self.sampling, context.runtime, budget)
        self._prompts = self._fitting("train", context)
        self._held_out = self._held_out_prompts(context)
        context.tracker.say(
            f"{len(self._prompts)} prompts, {len(self._held_out)} held out, scored by {type(source).__name__}; "
            f"{'no critic' if self.critic is None else f'the critic starts from the {self.critic.origin}'}"
        )

    def _scorer(self, inputs: Mapping[str, Artifact]) -> Policy | None:
        """The reward model; none where a reward source was given."""
        if self.reward is not None:
            return None
        if "reward" not in inputs:
            raise PipelineError(
                f"{type(self).__name__}: nothing scores the answers; set inputs.reward to a reward model (a stage or a "
                f"folder), or reward to a reward source"
            )
        return Policy.load(inputs["reward"])

    def _fitting(self, split: Split, context: StageContext) -> list[Prompt]:
        skip = self.data.on_bad_record == "skip"
        return fitting(self.policy, self.data.prompts(split), skip, context.tracker.say)

    def _held_out_prompts(self, context: StageContext) -> list[Prompt]:
        held = self._fitting("validation", context)
        if not self._prompts or not held:
            raise DataError(
                f"{type(self).__name__}: {type(self.data).__name__} has {len(self._prompts)} prompts to train on and "
                f"{len(held)} held out; both are needed"
            )
        order = permutation(len(held), fold_in(self.seed, _VALIDATION), 0)
        return [held[i] for i in order[: self.validation_prompts]]

    def parameter_groups(self) -> list[ParameterGroup]:
        """Policy and critic, stepped and clipped apart."""
        if self.critic is None:
            return super().parameter_groups()
        critic = [p for p in self.critic.parameters() if p.requires_grad]
        return [*super().parameter_groups(), ParameterGroup("critic", critic, self.critic_lr, self.critic_clip_norm)]

    def token_stats(self, batch: RolloutBatch) -> TokenStats:
        """The policy's statistics and the critic's values."""
        stats = self.policy.token_stats(batch, self.objective.needs - {"value"})
        if self.critic is None or "value" not in self.objective.needs:
            return stats
        return stats | TokenStats({"value": self.critic(batch)})

    # ---- the buffer -----------------------------------------------------------------------------------------------
    def batch_at(self, step: int) -> RolloutBatch:
        """A minibatch of the buffer that step `step` belongs to; the buffer is made when the first one asks for it."""
        number, within = divmod(step, self.steps_per_rollout)
        if self._buffer is None or self._number != number:
            self._buffer, self._number = self._collect(number, step), number
        epoch, minibatch = divmod(within, self.rollout_size // self.loop.batch_size)
        order = permutation(self.rollout_size, fold_in(self.seed, _MINIBATCHES, number), epoch)
        size = self.loop.batch_size
        chosen = self._buffer.select_sequences(torch.tensor(order[minibatch * size : (minibatch + 1) * size]))
        # Advantages stand, so groups have done their work; without them micro-batches are cut between answers.
        return replace(chosen, per_sequence={k: v for k, v in chosen.per_sequence.items() if k != "group"})

    def validation_batches(self) -> Sequence[RolloutBatch]:
        """None: PPO's loss on old answers says nothing; `validate_now` samples new ones."""
        return []

    def _collect(self, number: int, step: int) -> RolloutBatch:
        index = order_at(number, len(self._prompts), self.prompts_per_rollout, fold_in(self.seed, _ORDER))
        prompts = [self._prompts[i] for i in index]
        each, seed = self.samples_per_prompt, fold_in(self.seed, _SAMPLES, number)
        rollouts = self.collector.collect(self.policy, prompts, each, seed)
        metrics = summary(rollouts)
        mean, scale = self._calibrate(rollouts.sequence("reward"))
        rollouts = rollouts.with_sequences(reward=(rollouts.sequence("reward") - mean) / scale)
        if self.critic is not None:
            rollouts = rollouts.with_tokens(old_value=self.collector.measure(rollouts, self.critic, self.device))
        rollouts = self.advantage(rollouts)
        if self.critic is not None and "returns" in rollouts.per_token:
            metrics["explained_variance"] = explained_variance(rollouts)
        if distributed.rank() == 0:
            self.context.tracker.log(step, {f"train/{k}": v for k, v in metrics.items()})
        return rollouts

    def _calibrate(self, reward: Tensor) -> tuple[float, float]:
        """What is taken off a reward, and what it is then divided by; settled by the first buffer."""
        if self._scale is None:
            spread = float(reward.double().std(correction=0))
            self._scale = float(reward.double().mean()), spread if spread > 1e-6 else 1.0
            if self.critic is not None:
                self.critic.normalize(*self._scale)
        return self._scale

    # ---- validation and resuming ----------------------------------------------------------------------------------
    def validate_now(self) -> dict[str, float]:
        """Reward (raw), KL to the reference, length and finished share of answers to held-out prompts."""
        seed = fold_in(self.seed, _VALIDATION, 1)
        if self._reference_reward is None:
            start = self.collector.reference.to(self.device)
            self._reference_reward = summary(self.collector.collect(start, self._held_out, 1, seed))["reward"]
        now = summary(self.collector.collect(self.policy, self._held_out, 1, seed))
        return {**now, "reference_reward": self._reference_reward}

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Its answers to held-out prompts, and their raw rewards."""
        seed = fold_in(self.seed, _VALIDATION, 2)
        return previews.rewarded(self.policy, self._held_out, self.collector.source, self.sampling, seed)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The buffer and the reward's scale: with weights, optimizer and step, all that the next step depends on."""
        buffer = None if self._buffer is None else as_state(self._buffer)
        checkpoint["rollouts"] = {"number": self._number, "buffer": buffer, "scale": self._scale and list(self._scale)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the very buffer that the dead run was visiting."""
        state = checkpoint["rollouts"]
        self._number = state["number"]
        self._buffer = None if state["buffer"] is None else from_state(state["buffer"])
        self._scale = None if state["scale"] is None else (state["scale"][0], state["scale"][1])
