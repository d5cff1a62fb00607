"""SampledStage: the prompts, sampler, reward and validation of stages that train on their policy's own answers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from alignlab import distributed
from alignlab.artifact import Artifact, Kind
from alignlab.batch import Batch, RolloutBatch
from alignlab.data.records import Prompt
from alignlab.data.rows import permutation
from alignlab.data.source import DataSource, Need, Split
from alignlab.errors import DataError
from alignlab.objective import Objective
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
from alignlab.runtime import Runtime
from alignlab.seed import fold_in
from alignlab.stage import StageContext
from alignlab.training.loop import Loop
from alignlab.training.mixed_in import MixedIn
from alignlab.training.optimizer import OptimizerSpec
from alignlab.training.rollouts import (
    COMPARED,
    LOGP_EXTRAS,
    Collector,
    Drift,
    check_on_policy,
    summary,
)
from alignlab.training.stage import TrainingStage

B = TypeVar("B", bound=Batch)

_VALIDATION = 4
"""Stream of random numbers."""


class SampledStage(TrainingStage[B], Generic[B]):
    """Sample and score answers of the policy, to learn from and to validate on; when, is stated by a subclass.

    `sampler_logp`, where it is read, is the sampler's own: in `bf16-mixed` it differs from `old_logp`, because answers
    are sampled in full precision.

    Args:
        data: gives the prompts.
        sampling: how the policy answers; top_p and top_k must keep every token.
        reward: scores answers, also where the input `reward` is given; by default that reward model does. A method that
            does without (`NEEDS_REWARD`) has it logged.
        samples_per_prompt: answers to each prompt that is learnt from.
        validation_prompts: held-out prompts that are answered at each validation.
        rollout: what samples the answers; null is the built-in sampler. Where another one does, its log-probabilities
            are compared with the trainer's in every buffer, which takes a forward pass where `old_logp` is not read.
        inputs: `policy`, the initial policy, also the frozen KL reference; `reward`, a reward model; `teacher`; and
            under other names the reward models that `reward` scores with (`RewardSource.inputs`).
        seed: of sampling.
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
        samples_per_prompt: int = 4,
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
        self.samples_per_prompt = samples_per_prompt
        self.validation_prompts = validation_prompts
        check_on_policy(self.sampling, type(self).__name__)
        self._further = frozenset[str]()
        self._reference_reward: float | None = None
        self._sampled_tokens = 0
        self._drift: Drift | None = None
        self._sampler: Sampler | None = None

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse to train without anything that scores, and reward models that nothing scores with."""
        super().check_inputs(names)
        check_scored(self, self.reward, names, self.NEEDS_REWARD)

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Prompts, held-out ones to validate on."""
        return [(self.data, Need("prompts", held_out=True)), *self.mixed_needs()]

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

    # ---- models and data ------------------------------------------------------------------------------------------
    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Load the policy, its frozen copy where it is read, the reward, the prompts."""
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

    # ---- answers --------------------------------------------------------------------------------------------------
    def reads(self) -> frozenset[str]:
        """Extras of the rollouts that are read; others are not computed."""
        return self.objective.reads

    def sample(self, prompts: Sequence[Prompt], seed: int) -> RolloutBatch:
        """Answer and score some prompts; override it for several rounds or turns."""
        compared = frozenset[str]() if self.rollout.IS_THE_TRAINERS else COMPARED
        read = self.reads() | self._further
        rollouts = self.collector.collect(self.policy, prompts, self.samples_per_prompt, seed, read | compared)
        self._sampled_tokens += int(rollouts.response_mask.sum())
        if rollouts.per_token.keys() >= COMPARED:
            drift = Drift.of(rollouts)
            self._drift = drift if self._drift is None else self._drift + drift
        return rollouts.without_tokens(compared - read)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log numbers of a buffer, on the first process."""
        if distributed.rank() == 0:
            self.context.tracker.log(step, {f"train/{k}": v for k, v in metrics.items()})

    # ---- validation -----------------------------------------------------------------------------------------------
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
