"""TrainingStage: a stage that trains a policy by an objective, through the one training loop."""

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from alignlab import distributed
from alignlab.artifact import Artifact, Kind
from alignlab.batch import Batch, TokenBatch
from alignlab.data.source import DataSource, Need
from alignlab.errors import AlignlabError, ConfigError
from alignlab.objective import Objective, batch_type
from alignlab.policy import LoRA, Policy, load_frozen, skeleton, trainable
from alignlab.policy.blocks import BlockOptions
from alignlab.policy.lora import ALL_LINEAR
from alignlab.runtime import Runtime
from alignlab.samples import write_samples
from alignlab.seed import fold_in
from alignlab.stage import Stage, StageContext
from alignlab.stats import TokenStats
from alignlab.training.device import prepare_for_new_lengths
from alignlab.training.loop import Loop
from alignlab.training.mixed_in import MixedIn
from alignlab.training.optimizer import OptimizerSpec, ParameterGroup
from alignlab.training.step import means
from alignlab.training.trainable import Trainable

B = TypeVar("B", bound=Batch)

FROM_TEACHER = frozenset({"kl_to_teacher", "kl_from_teacher"})
"""Statistics that need a teacher."""
_ADAPTER = 12
"""Stream of random numbers."""


class TrainingStage(Stage, Trainable[B]):
    """Train a policy by an objective.

    A data regime (or a stage of your own) states where its policy comes from (`prepare`), what the batch of step k is
    (`batch_at`) and what it is validated on (`validation_batches`). Everything else is here. An objective that asks for
    `kl_to_teacher` or `kl_from_teacher` gets them from the input `teacher`.

    Args:
        objective: turns token statistics into a loss.
        optimizer: with its schedule.
        loop: steps, batch size, memory budget, validation.
        inputs: name of a stage or folder for each input.
        mixed_in: further objectives on texts by a name of your own, added to the loss of every step; see `MixedIn`.
        adapter: is trained in place of the policy's weights; null trains all of them.
        seed: of data order, dropout and everything else random.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"inputs", "loop.micro_batch_tokens", "loop.log_every", "loop.save_every", "optimizer.fused"}
    )
    IDENTITY_IF_SET: ClassVar[frozenset[str]] = frozenset({"adapter"})
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {"teacher": frozenset({"policy"})}
    TOGETHER: ClassVar[bool] = True
    TRAINS: ClassVar[bool] = True
    TRAINED_MODELS: ClassVar[int] = 1
    """Models whose weights it trains, and below those that it holds besides; for estimates of memory."""
    FROZEN_MODELS: ClassVar[int] = 0
    PROVIDES: ClassVar[frozenset[str]] = frozenset()
    """Extras that its batches can carry (`reference_logp`, ...): what an objective may name in `reads`."""

    policy: Policy
    teacher: Policy | None = None

    def __init__(
        self,
        *,
        objective: Objective[B],
        optimizer: OptimizerSpec,
        loop: Loop,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        mixed_in: Mapping[str, MixedIn] | None = None,
        adapter: LoRA | None = None,
    ) -> None:
        super().__init__(inputs, seed)
        self.adapter = adapter
        self.mixed_in = dict(mixed_in or {})
        self.objective = objective
        self.optimizer = optimizer
        self.loop = loop
        self._check_objective()

    def _check_objective(self) -> None:
        """Refuse an objective that could not read this stage's batches, before anything is loaded."""
        mine, its = type(self).__name__, type(self.objective).__name__
        if missing := sorted(self.objective.reads - self.PROVIDES):
            provides = ", ".join(sorted(self.PROVIDES)) or "no extras"
            raise ValueError(
                f"{its} reads {', '.join(missing)}, but the batches of {mine} carry {provides}; choose another"
            )
        given, wanted = batch_type(type(self), TrainingStage), self.objective.takes
        if given and wanted and not issubclass(given, wanted):
            raise ValueError(
                f"{its} takes a {wanted.__name__}, but {mine} trains on a {given.__name__}; choose another"
            )

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse an objective without the teacher that it needs, and a teacher that the objective does not use."""
        super().check_inputs(names)
        if bool(self.objective.needs & FROM_TEACHER) != ("teacher" in names):
            its = type(self.objective).__name__
            given = "teacher" in names
            what = "does not use inputs.teacher; remove it" if given else "needs a teacher; set inputs.teacher"
            raise ValueError(f"{type(self).__name__}: {its} {what}")

    def check_runtime(self, runtime: Runtime) -> None:
        """Refuse a runtime that the adapter cannot be trained on."""
        super().check_runtime(runtime)
        self.optimizer.check_runtime(runtime)
        if self.adapter is not None:
            self.adapter.check_runtime(runtime)
        if runtime.strategy == "fsdp2" and self.adapter is not None and self.adapter.held:
            raise ConfigError(
                f"{type(self).__name__}: runtime=fsdp2 does not split weights that are held in 4 bits; use "
                f"runtime=ddp, or adapter=lora"
            )

    def check_start(self, start: Artifact | Stage) -> None:
        """Refuse an adapter whose layers the policy does not have."""
        if self.adapter is None or self.adapter.target == ALL_LINEAR:
            return
        layers = start.architecture() if isinstance(start, Stage) else skeleton(start)
        if layers is not None:
            self.adapter.layers(layers)

    # ---- what a regime states -------------------------------------------------------------------------------------
    @abc.abstractmethod
    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Load or build `self.policy`, read the data."""

    @abc.abstractmethod
    def validation_batches(self) -> Sequence[B]:
        """Batches to validate on; always the same ones in the same order."""

    def load_trainable(self, artifact: Artifact, context: StageContext) -> Policy:
        """The policy of an input, to be trained: with a new adapter, where there is to be one, or all its weights."""
        policy = Policy.load(artifact, context.runtime.dtype)
        if self.adapter is None and (note := policy.narrower_than(context.runtime.dtype)):
            context.tracker.say(note)
        found = trainable(policy, self.adapter, fold_in(self.seed, _ADAPTER))
        return found.run_as(options(context.runtime))

    def modules(self) -> Mapping[str, nn.Module]:
        """The policy."""
        return {"policy": self.policy}

    def token_stats(self, batch: B) -> TokenStats:
        """The policy's statistics, those relative to the teacher included."""
        return self.policy.token_stats(batch, self.objective.needs, teacher=self.teacher)

    def mixed_needs(self) -> list[tuple[DataSource, Need]]:
        """Records of the parts that are mixed in."""
        return [part.need for part in self.mixed_in.values()]

    def mixed_at(self, step: int) -> Mapping[str, tuple[MixedIn, TokenBatch]]:
        """The batch of every part that is mixed in, a function of (seed, step)."""
        parts = self.mixed_in.items()
        return {name: (part, part.batch_at(self._mixed_rows[name], step, self.seed)) for name, part in parts}

    def parameter_groups(self) -> list[ParameterGroup]:
        """The policy's trainable parameters, as one group."""
        return [ParameterGroup("policy", [p for p in self.policy.parameters() if p.requires_grad])]

    def after_step(self, step: int) -> None:
        """Nothing, by default."""

    def publish(self, folder: Path) -> None:
        """Write the trained policy."""
        self.policy.save(folder)

    def samples(self) -> Sequence[Mapping[str, object]]:
        """A few rows that show the trained model to a reader (see `alignlab.policy.previews`); none by default."""
        return ()

    def state(self) -> dict[str, Any]:
        """Nothing, by default: batches are functions of (seed, step)."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Nothing to continue from, by default."""

    # ---- running --------------------------------------------------------------------------------------------------
    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Train, keep the best or last weights, publish them with a few samples; returns their validation metrics."""
        # Lightning is imported where it is used, so that a plan does without it.
        from alignlab.training.fit import fit

        self.check_inputs(frozenset(inputs))
        self.begin(inputs, context)
        if "teacher" in inputs:
            self.teacher = self.load_frozen("teacher", inputs, context)
        for policy in [m for module in self.modules().values() for m in module.modules() if isinstance(m, Policy)]:
            policy.run_as(options(context.runtime))
        self.policy.freeze_idle(self.objective.needs.union(*(part.objective.needs for part in self.mixed_in.values())))
        self._mixed_rows = {name: part.rows(self.policy, self.policy.context) for name, part in self.mixed_in.items()}
        if warning := self.optimizer.schedule.warning(self.loop.steps):
            context.tracker.say(warning)
        metrics = fit(self, context)
        with distributed.whole(*self.modules().values()):
            if distributed.rank() == 0:
                write_samples(context.folder, self._samples())
        return metrics

    def begin(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Prepare for training as `run` does, whether or not training follows."""
        self.context = context
        options(context.runtime).check(context.runtime.device)
        prepare_for_new_lengths(context.runtime.device)
        torch.manual_seed(fold_in(self.seed, 0))
        self.prepare(inputs, context)

    def load_frozen(self, name: str, inputs: Mapping[str, Artifact], context: StageContext) -> Policy:
        """The policy of an input, frozen, in evaluation mode; `self.policy` must be loaded before.

        Raises:
            PipelineError: its vocabulary is not the policy's, so it would score other texts.
        """
        found = load_frozen(inputs[name], self.policy, context.runtime.dtype, f"{context.name}.inputs.{name}")
        return found.run_as(options(context.runtime))

    def _samples(self) -> Sequence[Mapping[str, object]]:
        """The samples; an error in them must not lose the trained model."""
        try:
            return self.samples()
        except AlignlabError as error:
            self.context.tracker.say(f"no samples: {error}")
            return ()

    def validate_now(self) -> dict[str, float]:
        """`loss` and the objective's metrics over all units of the validation batches, in evaluation mode."""
        return self.means_over(self.validation_batches())

    def means_over(self, batches: Sequence[B]) -> dict[str, float]:
        """`loss` and the objective's metrics over all units of some batches, in evaluation mode."""
        for module in self.modules().values():
            module.eval()
        rank, world = distributed.rank(), distributed.world_size()
        parts = (b.shard(rank, world).to(self.policy.device) for b in batches)
        return means(self.objective, parts, self.token_stats, self.loop.micro_batch_tokens)


def options(runtime: Runtime) -> BlockOptions:
    """How a runtime runs the blocks of models."""
    return BlockOptions(runtime.compile, runtime.checkpoint_activations)
