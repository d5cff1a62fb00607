"""The LightningModule that drives a stage's training: one `training_step` is one optimizer step.

Left out: epochs (a step gets its data by its number), Lightning's own accumulation and clipping (both would divide by
the wrong count).
"""

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from alignlab import distributed
from alignlab.batch import Batch
from alignlab.errors import ConfigError, NonFiniteError
from alignlab.policy import Policy
from alignlab.policy.blocks import blocks_of
from alignlab.seed import fold_in, seed_torch
from alignlab.stats import Mean, TokenStats
from alignlab.training.average import WeightAverage
from alignlab.training.loop import StepNumbers, StepReport
from alignlab.training.mixed_in import MixedIn
from alignlab.training.optimizer import build_optimizer, set_lr
from alignlab.training.step import backward, whole_step
from alignlab.training.strategy import Sharded
from alignlab.training.trainable import Trainable


class StageModule(pl.LightningModule):
    """Trains the modules of a stage.

    Args:
        stage: prepared; its modules are registered under their own names.
    """

    def __init__(self, stage: Trainable[Any]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.stage = stage
        for name, module in stage.modules().items():
            self.add_module(name, module)
        for policy in [m for m in self.modules() if isinstance(m, Policy)]:
            policy.as_loaded()  # so that it can be sent to another process
        decay = stage.loop.ema
        self._average = None if decay is None else WeightAverage(self._trained(), decay)

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.requires_grad]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """All weights but those below an adapter, which are in the stage's input, too."""
        found: dict[str, Any] = super().state_dict(*args, **kwargs)
        known = self._in_the_input()
        return {name: weight for name, weight in found.items() if not known.intersection(_prefixes(name))}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Continue with the weights of `state_dict`, and those below an adapter as they are."""
        own = super().state_dict()
        given = {k: distributed.placed_as(v, own[k]) if k in own else v for k, v in state_dict.items()}
        return super().load_state_dict({**{k: own[k] for k in self._in_the_input()}, **given}, strict, assign)

    def whole_state(self) -> dict[str, Any]:
        """`state_dict` with all of every weight, on every process at once."""
        return dict(distributed.full_state(self.state_dict()))

    def _in_the_input(self) -> set[str]:
        """Names of frozen weights of policies that train an adapter."""
        policies = ((n, m) for n, m in self.named_modules() if isinstance(m, Policy) and m.trains_adapter)
        weights = ((f"{n}.{k}", p) for n, m in policies for k, p in m.named_parameters(remove_duplicate=False))
        return {name for name, weight in weights if not weight.requires_grad}

    def published(self) -> contextlib.AbstractContextManager[None]:
        """Context within which the weights are those that are validated and published."""
        return contextlib.nullcontext() if self._average is None else self._average.in_place_of(self._trained())

    def keep_published(self) -> None:
        """Make the weights for good those that are published; training has ended."""
        if self._average is not None:
            self._average.copy_to(self._trained())

    def configure_model(self) -> None:
        """Split the modules among the processes, where the runtime asks for it."""
        strategy = self.trainer.strategy
        if not isinstance(strategy, Sharded):
            return
        for module in (m.to(strategy.root_device) for m in self.stage.modules().values()):
            policies = [m for m in module.modules() if isinstance(m, Policy)]
            blocks = [block for policy in policies for block in blocks_of(policy.model)]
            distributed.shard(module, blocks, strategy.device_mesh["data_parallel"])
        if self._average is not None:
            self._average.split_as(self._trained())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The one optimizer over all parameter groups."""
        return build_optimizer(self.stage.optimizer, self.stage.parameter_groups())

    def train_dataloader(self) -> Iterable[int]:
        """Step numbers, from the next one on: the data follows from the number."""
        return StepNumbers(lambda: int(self.trainer.global_step))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the state that the stage's next step depends on."""
        checkpoint["stage"] = self.stage.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from it."""
        self.stage.load_state(checkpoint["stage"])

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the modules; a dtype is given to their parameters alone.

        Lightning asks for bfloat16 in `bf16-true`; rotary frequencies rounded to it turn positions by wrong angles.
        """
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None:
            for parameter in (p for p in self.parameters() if p.is_floating_point()):  # not the codes of 4 bits
                parameter.data = parameter.data.to(dtype)
        return self if device is None else super().to(device=device, non_blocking=non_blocking)

    def training_step(self, step: int, _: int) -> None:
        """Make one optimizer step."""
        with _numbers_in_full_precision():
            self._step(step)

    def _step(self, step: int) -> None:
        started = time.perf_counter()
        stage = self.stage
        # Functions of the step, so that a resumed run draws the same: the batch alike on every process, dropout not.
        self.train(stage.DROPOUT)
        seed_torch(fold_in(stage.seed, step))
        whole = stage.batch_at(step)
        seed_torch(fold_in(stage.seed, step, self.global_rank))
        batch = self._mine(whole)
        mixed = {name: (part, self._mine(texts)) for name, (part, texts) in stage.mixed_at(step).items()}
        optimizer: Any = self.optimizers()
        lr = set_lr(optimizer, stage.optimizer.schedule, step, stage.loop.steps)
        seen: list[tuple[Mean, dict[str, Mean], dict[str, Tensor]]] = []

        @torch.enable_grad()
        def evaluate() -> Tensor:
            """Loss and gradient at the current weights: once per step, or as often as the optimizer asks for it."""
            optimizer.zero_grad(set_to_none=True)
            loss, metrics = self._backward(batch)
            for name, (part, texts) in mixed.items():
                added, own = self._backward_mixed(part, texts)
                loss = Mean(loss.total + part.weight * added.value() * loss.weight, loss.weight)
                metrics |= {f"{name}/loss": added, **{f"{name}/{key}": mean for key, mean in own.items()}}
            norms = self._clip()
            self._check_finite(step, loss, norms, whole, moved=bool(seen))
            seen.append((loss, metrics, norms))
            return loss.value()

        optimizer.step(evaluate)
        optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update(self._trained())
        if not seen:
            name = type(stage.optimizer).__name__
            raise ConfigError(f"{name}: its optimizer never called the closure that gives it the loss")
        loss, metrics, norms = seen[0]
        seconds = time.perf_counter() - started
        stage.last_step = StepReport({"loss": loss, **metrics}, norms, lr, whole.num_tokens, seconds)
        stage.after_step(step)

    def _mine(self, whole: Batch) -> Batch:
        """This process's share."""
        return whole.shard(self.global_rank, self.trainer.world_size).to(self.device)

    def _backward_mixed(self, part: MixedIn, batch: Batch) -> tuple[Mean, dict[str, Mean]]:
        """Add the gradient of a part that is mixed in to that of the step."""
        stage = self.stage

        def stats(texts: Batch) -> TokenStats:
            return part.token_stats(stage.policy, texts)

        def differentiate(scalar: Tensor) -> None:
            # DDP exchanges gradients once every trained parameter has one: a critic's is 0 here.
            sharded = distributed.is_sharded(self)
            every = (p for group in stage.parameter_groups() for p in group.parameters if not sharded)
            self.manual_backward(part.weight * scalar + sum((p.reshape(-1)[:1].sum() * 0 for p in every), scalar * 0))

        step = whole_step(part.objective, batch, stats, stage.loop.micro_batch_tokens)
        return backward(part.objective, step, stats, differentiate, self._part_of_step)

    def _backward(self, batch: Batch) -> tuple[Mean, dict[str, Mean]]:
        stage, objective = self.stage, self.stage.objective
        step = whole_step(objective, batch, stage.token_stats, stage.loop.micro_batch_tokens)
        return backward(objective, step, stage.token_stats, self.manual_backward, self._part_of_step)

    def _part_of_step(self, last: bool) -> contextlib.AbstractContextManager[None]:
        wrapped = self.trainer.strategy.model
        policies = [m for m in self.modules() if isinstance(m, Policy)]
        return distributed.part_of_a_step(wrapped or self, policies, last)

    def _clip(self) -> dict[str, Tensor]:
        """Clip each group's gradient by its norm; returns the norms before clipping."""
        norms = {}
        for group in self.stage.parameter_groups():
            limit = self.stage.loop.clip_norm if group.clip_norm is None else group.clip_norm
            limit = float("inf") if limit is None else limit
            norms[group.name] = distributed.full(torch.nn.utils.clip_grad_norm_(group.parameters, limit))
        return norms

    def _check_finite(self, step: int, loss: Mean, norms: Mapping[str, Tensor], batch: Batch, moved: bool) -> None:
        """Refuse to step by a number that is not finite.

        Args:
            moved: the optimizer has moved the weights in this step already, and asks for the loss once more.
        """
        values = {"loss": loss.value(), **{f"gradient norm of {k}": v for k, v in norms.items()}}
        bad = {k: float(v) for k, v in values.items() if not torch.isfinite(v)}
        if not bad:
            return
        context = self.stage.context
        names = ", ".join(batch.names[:4]) + (f", ... ({len(batch.names)} in all)" if len(batch.names) > 4 else "")
        what = ", ".join(f"{k} is {v}" for k, v in bad.items())
        good = not moved and step > 0 and not distributed.max_of(int(self._has_bad_weights()), self.device)
        kept = f"; the weights as of step {step} are kept in {context.work}" if good else ""
        raise NonFiniteError(
            f"{context.name}: {what} at step {step}, before the optimizer stepped{kept}. Batch: "
            f"{names or 'unnamed'}. {self._advice(step)}",
            weights_are_good=good,
        )

    def _has_bad_weights(self) -> bool:
        """Whether a weight that this process holds is not finite."""
        held = (getattr(p, "to_local", lambda p=p: p)() for p in self.parameters())
        return any(not bool(p.isfinite().all()) for p in held)

    def _advice(self, step: int) -> str:
        its = type(self.stage.objective).__name__
        if step == 0:
            return f"No weight has moved yet: look at those records, and at {its} (check_objective of alignlab.testing)"
        return "Lower optimizer.lr, or look at those records"


def _prefixes(name: str) -> Iterator[str]:
    """A dotted name and those that it begins with: the scales of `weight` are `weight.absmax` and the like."""
    return itertools.accumulate(name.split("."), lambda above, part: f"{above}.{part}")


@contextlib.contextmanager
def _numbers_in_full_precision() -> Iterator[None]:
    """Undo Lightning's default of half precision: rewards and advantages are made within a step, and are numbers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.promote_types(before, torch.float32))
    try:
        yield
    finally:
        torch.set_default_dtype(before)
