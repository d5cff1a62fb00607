"""OnlineStage: the data regime of methods that sample answers, score them, and learn from those.

`OnlineStage` samples, scores and keeps the buffer; `train_on` is what a method makes of it: advantages
(`PolicyGradientStage`), pairs, winners, or the rollouts as they are.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast

from alignlab import distributed
from alignlab.artifact import Artifact, Kind
from alignlab.batch import Batch, RolloutBatch
from alignlab.data.records import Prompt
from alignlab.data.rows import order_at, permutation
from alignlab.data.source import DataSource, Need, Split
from alignlab.errors import DataError
from alignlab.objective import Objective, OnPolicy
from alignlab.policy import (
    BuiltinRollout,
    LoRA,
    Policy,
    Rollout,
    Sampler,
    Sampling,
    check_scored,
    fitting,
    frozen_copy,
    learned,
    previews,
)
from alignlab.reward import RewardSource
from alignlab.seed import fold_in
from alignlab.stage import Runtime, StageContext
from alignlab.training.loop import Loop
from alignlab.training.mixed_in import MixedIn
from alignlab.training.optimizer import OptimizerSpec
from alignlab.training.rollouts import (
    COMPARED,
    LOGP_EXTRAS,
    Collector,
    Drift,
    as_state,
    check_on_policy,
    from_state,
    summary,
)
from alignlab.training.stage import TrainingStage

B = TypeVar("B", bound=Batch)

_ORDER, _SAMPLES, _MINIBATCHES, _VALIDATION = 1, 2, 3, 4
"""Streams of random numbers."""


class OnlineStage(TrainingStage[B], Generic[B]):
    """Train a policy on its own sampled answers and their rewards.

    Every `steps_per_rollout` optimizer steps, the policy answers `prompts_per_rollout` prompts `samples_per_prompt`
    times (`sample`), and a batch is made of the rollouts (`train_on`), which is visited `epochs` times in shuffled
    minibatches of `loop.batch_size` units. The buffer is part of the resumable checkpoint, so that a run killed in the
    middle of it continues exactly.

    On-policy ratios are 1: `old_logp` comes from the trainer, not from the sampler, at the sampling temperature, and
    dropout is off. Where each buffer is stepped on once, by an optimizer that asks for one gradient, the step itself
    computes it (`OnPolicy`). Reference log-probabilities are computed where they are read. `sampler_logp`, where it
    is read, is the sampler's own: in `bf16-mixed` it differs from `old_logp`, because answers are sampled in full
    precision.

    Args:
        data: gives the prompts.
        sampling: how the policy answers; top_p and top_k must keep every token.
        reward: scores answers, also where the input `reward` is given; by default that reward model does. A method that
            does without (`NEEDS_REWARD`) has it logged.
        prompts_per_rollout: prompts of one buffer.
        samples_per_prompt: answers to each.
        epochs: visits to each buffer; 1 to 4 is usual.
        validation_prompts: held-out prompts that are answered at each validation.
        rollout: what samples the answers; null is the built-in sampler. Where another one does, its log-probabilities
            are compared with the trainer's in every buffer, which takes a forward pass where `old_logp` is not read.
        inputs: `policy`, the initial policy, also the frozen KL reference; `reward`, a reward model; `teacher`; and
            under other names the reward models that `reward` scores with (`RewardSource.inputs`).
        seed: of sampling, and of the order of prompts and minibatches.
    """

    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {
        **TrainingStage.OPTIONAL,
        "reward": frozenset({"reward_model"}),
    }
    FURTHER: ClassVar[frozenset[Kind]] = frozenset({"reward_model"})
    IDENTITY_IF_SET: ClassVar[frozenset[str]] = TrainingStage.IDENTITY_IF_SET | {"rollout"}
    PRODUCES: ClassVar[Kind] = "policy"
    FROZEN_MODELS: ClassVar[int] = 1
    MONITOR: ClassVar[str] = "reward"
    HIGHER_IS_BETTER: ClassVar[bool] = True
    DROPOUT: ClassVar[bool] = False
    NEEDS_REWARD: ClassVar[bool] = True
    """Whether something must score the answers; a method that does without (a teacher's) monitors something else."""
    PROVIDES: ClassVar[frozenset[str]] = frozenset(
        {"old_logp", "sampler_logp", "reference_logp", "reward", "finished", "group"}
    )

    def __init__(
        self,
        *,
        data: DataSource,
        objective: Objective[B],
        optimizer: OptimizerSpec,
        loop: Loop,
        sampling: Sampling,
        reward: RewardSource | None = None,
        prompts_per_rollout: int = 64,
        samples_per_prompt: int = 4,
        epochs: int = 1,
        validation_prompts: int = 128,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        mixed_in: Mapping[str, MixedIn] | None = None,
        adapter: LoRA | None = None,
        rollout: Rollout | None = None,
    ) -> None:
        super().__init__(
            inputs=inputs,
            seed=seed,
            objective=objective,
            optimizer=optimizer,
            loop=loop,
            mixed_in=mixed_in,
            adapter=adapter,
        )
        self.data = data
        self.rollout = rollout or BuiltinRollout()
        self.sampling = sampling
        self.reward = reward
        self.prompts_per_rollout = prompts_per_rollout
        self.samples_per_prompt = samples_per_prompt
        self.epochs = epochs
        self.validation_prompts = validation_prompts
        self._check()
        self._number = -1
        self._buffer: B | None = None
        self._reference_reward: float | None = None
        self._sampled_tokens = 0
        self._drift: Drift | None = None
        self._sampler: Sampler | None = None

    def _check(self) -> None:
        name, buffer = type(self).__name__, self.units_per_rollout
        for key in ("prompts_per_rollout", "samples_per_prompt", "epochs", "validation_prompts"):
            if getattr(self, key) < 1:
                raise ValueError(f"{name}: {key} must be >= 1, got {getattr(self, key)}")
        check_on_policy(self.sampling, name)
        if buffer % self.loop.batch_size:
            raise ValueError(
                f"{name}: loop.batch_size must divide the {buffer} units of a buffer (prompts_per_rollout "
                f"{self.prompts_per_rollout}, samples_per_prompt {self.samples_per_prompt}), got {self.loop.batch_size}"
            )

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse to train without anything that scores, and reward models that nothing scores with."""
        super().check_inputs(names)
        check_scored(self, self.reward, names, self.NEEDS_REWARD)

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Prompts, held-out ones to validate on."""
        return [(self.data, Need("prompts", held_out=True)), *self.mixed_needs()]

    # ---- stated by a method ---------------------------------------------------------------------------------------
    @abc.abstractmethod
    def train_on(self, rollouts: RolloutBatch, step: int) -> B:
        """Turn a buffer of rollouts into a batch of `units_per_rollout` units to learn from. Runs once per buffer.

        Args:
            rollouts: all samples, the same on every process, on the CPU.
            step: optimizer step that the buffer is made before.
        """

    def sample(self, prompts: Sequence[Prompt], seed: int) -> RolloutBatch:
        """Answer and score some prompts; override it for several rounds or turns."""
        compared = frozenset[str]() if self.rollout.IS_THE_TRAINERS else COMPARED
        extras = self._extras | compared
        rollouts = self.collector.collect(self.policy, prompts, self.samples_per_prompt, seed, extras)
        self._sampled_tokens += int(rollouts.response_mask.sum())
        if rollouts.per_token.keys() >= COMPARED:
            drift = Drift.of(rollouts)
            self._drift = drift if self._drift is None else self._drift + drift
        return rollouts.without_tokens(compared - self._extras)

    def reads(self) -> frozenset[str]:
        """Extras of the rollouts that are read; others are not computed."""
        return self.objective.reads

    def reads_beforehand(self) -> frozenset[str]:
        """Those of `reads` that something reads before the first step on a buffer; by default any of them may be."""
        return self.reads()

    @property
    def units_per_rollout(self) -> int:
        """Units of the batch that `train_on` makes; by default one per sample."""
        return self.prompts_per_rollout * self.samples_per_prompt

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps between two buffers."""
        return self.epochs * (self.units_per_rollout // self.loop.batch_size)

    # ---- models and data ------------------------------------------------------------------------------------------
    def check_runtime(self, runtime: Runtime) -> None:
        """Refuse a runtime that answers cannot be sampled on."""
        super().check_runtime(runtime)
        self.rollout.check_runtime(runtime)

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """As every training stage; what samples is closed in the end."""
        try:
            return super().run(inputs, context)
        finally:
            if self._sampler is not None:
                self._sampler.close()

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Load the policy, its frozen copy where it is read, the reward, the prompts."""
        self._extras = self.reads()
        late = "old_logp" in self._extras - self.reads_beforehand()
        once = self.steps_per_rollout == 1 and self.optimizer.ASKS_ONCE
        if once and late and self.rollout.IS_THE_TRAINERS:  # others are compared by it
            self.objective = cast(Objective[B], OnPolicy(cast(Objective[RolloutBatch], self.objective)))
            self._extras = self.reads() | {"sampler_logp"}  # costs nothing, and the KL can be logged
        self.policy = self.load_trainable(inputs["policy"], context)
        self._start = inputs["policy"]
        context.check_lengths(self.policy.tokenizer, self.policy.context)
        read = "reference_logp" in self.reads()
        reference = frozen_copy(self.policy) if read else None
        budget = self.loop.micro_batch_tokens
        source, scorers = learned(self.reward, inputs, budget)
        self._sampler = sampler = self.rollout.open(self.policy, context.runtime)
        self.collector = Collector(reference, source, scorers, self.sampling, sampler, context.runtime, budget)
        self._prompts = self._fitting("train", context)
        self._held_out = self._held_out_prompts(context)
        counts = f"{len(self._prompts)} prompts, {len(self._held_out)} held out"
        context.tracker.say(counts if source is None else f"{counts}, scored by {type(source).__name__}")

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

    # ---- the buffer -----------------------------------------------------------------------------------------------
    def batch_at(self, step: int) -> B:
        """A minibatch of the buffer that step `step` belongs to; its first step makes the buffer."""
        number, within = divmod(step, self.steps_per_rollout)
        if self._buffer is None or self._number != number:
            self._buffer, self._number = self._collect(number, step), number
        units, size = self.units_per_rollout, self.loop.batch_size
        epoch, minibatch = divmod(within, units // size)
        order = permutation(units, fold_in(self.seed, _MINIBATCHES, number), epoch)
        return self._buffer.select_units(order[minibatch * size : (minibatch + 1) * size])

    def _collect(self, number: int, step: int) -> B:
        index = order_at(number, len(self._prompts), self.prompts_per_rollout, fold_in(self.seed, _ORDER))
        rollouts = self.sample([self._prompts[i] for i in index], fold_in(self.seed, _SAMPLES, number))
        means = summary(rollouts)
        drift = {} if self._drift is None else self._drift.metrics()
        self._drift = None
        self.log(step, {**means, **drift, "sampled_tokens": float(self._sampled_tokens)})
        if means.get("without_signal") == 1.0 and distributed.rank() == 0:
            self.context.tracker.say(f"step {step}: all answers to each prompt have the same reward; nothing is learnt")
        batch: object = self.train_on(rollouts, step)
        wanted, made = self.units_per_rollout, batch.num_units if isinstance(batch, Batch) else 0
        if made != wanted:
            raise ValueError(
                f"{type(self).__name__}: train_on() must return a batch of {wanted} units (its units_per_rollout), got "
                f"a {type(batch).__name__} of {made}; give units that must not count the weight 0"
            )
        return cast(B, batch)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log numbers of a buffer, on the first process."""
        if distributed.rank() == 0:
            self.context.tracker.log(step, {f"train/{k}": v for k, v in metrics.items()})

    # ---- validation and resuming ----------------------------------------------------------------------------------
    def validation_batches(self) -> Sequence[B]:
        """No batches: a loss on old answers has no meaning; `validate_now` samples new ones."""
        return []

    def validate_now(self) -> dict[str, float]:
        """Reward (raw), KL to the reference, length and finished share of answers to held-out prompts."""
        extras = LOGP_EXTRAS if self.collector.reference else frozenset()  # without a reference there is no KL
        if self._reference_reward is None:
            start = self.collector.reference or self._as_it_was()
            self._reference_reward = summary(self.held_out_rollouts(start.to(self.policy.device), extras))["reward"]
        found = summary(self.held_out_rollouts(self.policy, extras))
        counted = {"reference_reward": self._reference_reward, "sampled_tokens": float(self._sampled_tokens)}
        return {**found, **counted}

    def _as_it_was(self) -> Policy:
        """The policy before it was trained: what is below its adapter, or the input."""
        if self.policy.trains_adapter:
            return frozen_copy(self.policy)
        return Policy.load(self._start, self.context.runtime.dtype)

    def held_out_rollouts(self, policy: Policy, extras: frozenset[str]) -> RolloutBatch:
        """A policy's answer to each held-out prompt; always by the same random numbers."""
        return self.collector.collect(policy, self._held_out, 1, fold_in(self.seed, _VALIDATION, 1), extras)

    def samples(self) -> Sequence[Mapping[str, object]]:
        """The policy's answers to held-out prompts, and their raw rewards where something scores them."""
        seed = fold_in(self.seed, _VALIDATION, 2)
        return previews.rewarded(self.policy, self._held_out, self.collector.source, self.sampling, seed)

    def state(self) -> dict[str, Any]:
        """The buffer: with weights, optimizer and step, all that the next step depends on; and what it has cost."""
        buffer = None if self._buffer is None else as_state(self._buffer)
        return {"number": self._number, "buffer": buffer, "sampled_tokens": self._sampled_tokens}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue with the buffer that the killed run was visiting."""
        self._number, self._sampled_tokens = state["number"], state.get("sampled_tokens", 0)
        self._buffer = None if state["buffer"] is None else cast(B, from_state(state["buffer"]))
