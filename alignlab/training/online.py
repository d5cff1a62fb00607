"""OnlineStage: the data regime of methods that sample answers, score them, and learn from those.

`OnlineStage` samples, scores and keeps the buffer; `train_on` is what a method makes of it: advantages
(`PolicyGradientStage`), pairs, winners, or the rollouts as they are.
"""

import abc
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, cast

from alignlab import distributed
from alignlab.artifact import Artifact
from alignlab.batch import Batch, RolloutBatch
from alignlab.data.rows import order_at, permutation
from alignlab.objective import Objective, OnPolicy
from alignlab.seed import fold_in
from alignlab.stage import StageContext
from alignlab.training.rollouts import (
    as_state,
    from_state,
    summary,
)
from alignlab.training.sampled import SampledStage

B = TypeVar("B", bound=Batch)

_ORDER, _SAMPLES, _MINIBATCHES = 1, 2, 3
"""Streams of random numbers."""


class OnlineStage(SampledStage[B], Generic[B]):
    """Train a policy on its own sampled answers and their rewards.

    Every `steps_per_rollout` optimizer steps, the policy answers `prompts_per_rollout` prompts `samples_per_prompt`
    times (`sample`), and a batch is made of the rollouts (`train_on`), which is visited `epochs` times in shuffled
    minibatches of `loop.batch_size` units. The buffer is part of the resumable checkpoint, so that a run killed in the
    middle of it continues exactly.

    On-policy ratios are 1: `old_logp` comes from the trainer, not from the sampler, at the sampling temperature, and
    dropout is off. Where each buffer is stepped on once, by an optimizer that asks for one gradient, the step itself
    computes it (`OnPolicy`). Reference log-probabilities are computed where they are read.

    Args:
        prompts_per_rollout: prompts of one buffer.
        samples_per_prompt: answers to each.
        epochs: visits to each buffer; 1 to 4 is usual.
        seed: of sampling, and of the order of prompts and minibatches.
    """

    def __init__(
        self, *, prompts_per_rollout: int = 64, samples_per_prompt: int = 4, epochs: int = 1, **arguments: Any
    ) -> None:
        super().__init__(samples_per_prompt=samples_per_prompt, **arguments)
        self.prompts_per_rollout = prompts_per_rollout
        self.epochs = epochs
        self._check()
        self._number = -1
        self._buffer: B | None = None

    def _check(self) -> None:
        name, buffer = type(self).__name__, self.units_per_rollout
        for key in ("prompts_per_rollout", "samples_per_prompt", "epochs", "validation_prompts"):
            if getattr(self, key) < 1:
                raise ValueError(f"{name}: {key} must be >= 1, got {getattr(self, key)}")
        if buffer % self.loop.batch_size:
            raise ValueError(
                f"{name}: loop.batch_size must divide the {buffer} units of a buffer (prompts_per_rollout "
                f"{self.prompts_per_rollout}, samples_per_prompt {self.samples_per_prompt}), got {self.loop.batch_size}"
            )

    # ---- stated by a method ---------------------------------------------------------------------------------------
    @abc.abstractmethod
    def train_on(self, rollouts: RolloutBatch, step: int) -> B:
        """Turn a buffer of rollouts into a batch of `units_per_rollout` units to learn from. Runs once per buffer.

        Args:
            rollouts: all samples, the same on every process, on the CPU.
            step: optimizer step that the buffer is made before.
        """

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

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Let the step compute `old_logp` itself where that is the same; then as every stage that samples."""
        late = "old_logp" in self.reads() - self.reads_beforehand()
        once = self.steps_per_rollout == 1 and self.optimizer.ASKS_ONCE
        if once and late and self.rollout.IS_THE_TRAINERS:  # others are compared by it
            self.objective = cast(Objective[B], OnPolicy(cast(Objective[RolloutBatch], self.objective)))
            self._further = frozenset({"sampler_logp"})  # costs nothing, and the KL can be logged
        super().prepare(inputs, context)

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

    # ---- resuming -------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Any]:
        """The buffer: with weights, optimizer and step, all that the next step depends on; and what it has cost."""
        buffer = None if self._buffer is None else as_state(self._buffer)
        return {"number": self._number, "buffer": buffer, "sampled_tokens": self._sampled_tokens}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue with the buffer that the killed run was visiting."""
        self._number, self._sampled_tokens = state["number"], state.get("sampled_tokens", 0)
        self._buffer = None if state["buffer"] is None else cast(B, from_state(state["buffer"]))
