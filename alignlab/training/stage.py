"""TrainingStage: the one training loop, for every method.

One `training_step` is one optimizer step, whatever it takes to get there: the batch of the step is a pure function of
(seed, step); it is cut into micro-batches by a token budget; each loss term is divided by its units over the WHOLE
step, summed over all micro-batches and processes before anything is differentiated. So neither the memory budget nor
the number of processes changes what is learnt.

Left out: epochs (a step knows its data by its number), Lightning's own accumulation and clipping (both would divide by
the wrong count), `loss_type` switches of any kind.
"""

import abc
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from alignlab import distributed
from alignlab.artifact import SAMPLES, Artifact, write_lines
from alignlab.batch import Batch
from alignlab.errors import AlignlabError, ConfigError, NonFiniteError
from alignlab.objective import Loss, Objective, batch_type
from alignlab.policy import Policy
from alignlab.seed import fold_in
from alignlab.stage import Stage, StageContext
from alignlab.stats import Mean, TokenStats
from alignlab.training.loop import Loop, StepNumbers, StepReport
from alignlab.training.optimizer import OptimizerSpec, ParameterGroup

B = TypeVar("B", bound=Batch)


class TrainingStage(Stage, pl.LightningModule, Generic[B]):
    """A stage that trains a policy by an objective.

    A method says where its policy comes from (`prepare`), what the batch of step k is (`batch_at`) and what it is
    validated on (`validation_batches`). All else is here.

    Args:
        inputs: name of a stage or folder for each input.
        seed: of data order, dropout and everything else random.
        objective: turns token statistics into a loss.
        optimizer: and its schedule.
        loop: steps, batch size, memory budget, validation.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"inputs", "loop.micro_batch_tokens", "loop.log_every", "loop.save_every"}
    )
    MONITOR: ClassVar[str] = "loss"
    """The validation metric that early stopping and `keep: best` go by."""
    HIGHER_IS_BETTER: ClassVar[bool] = False
    DROPOUT: ClassVar[bool] = True
    """Whether dropout is on while training; off where a policy is compared with a reference or with its old self."""

    FILLS: ClassVar[frozenset[str]] = frozenset()
    """Extras that its batches carry (`reference_logp`, ...): what an objective may name in `reads`."""

    policy: Policy
    context: StageContext

    def __init__(
        self,
        *,
        objective: Objective[B],
        optimizer: OptimizerSpec,
        loop: Loop,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(inputs, seed)
        self.automatic_optimization = False
        self.objective = objective
        self.optimizer_spec = optimizer
        self.loop = loop
        self._check_objective()

    def _check_objective(self) -> None:
        """Refuse an objective that could not read this stage's batches, before anything is loaded."""
        mine, its = type(self).__name__, type(self.objective).__name__
        if missing := sorted(self.objective.reads - self.FILLS):
            fills = ", ".join(sorted(self.FILLS)) or "nothing more"
            raise ValueError(
                f"{its} reads {', '.join(missing)}, but the batches of {mine} carry {fills}; choose another"
            )
        given, wanted = batch_type(type(self), TrainingStage), batch_type(type(self.objective))
        if given and wanted and not issubclass(given, wanted):
            raise ValueError(
                f"{its} takes a {wanted.__name__}, but {mine} trains on a {given.__name__}; choose another"
            )

    # ---- what a method says ---------------------------------------------------------------------------------------
    @abc.abstractmethod
    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Load or build `self.policy`, read the data."""

    @abc.abstractmethod
    def batch_at(self, step: int) -> B:
        """All units of optimizer step `step`, for all processes: a function of (seed, step) and fixed data."""

    @abc.abstractmethod
    def validation_batches(self) -> Sequence[B]:
        """What is validated on; always the same batches in the same order."""

    def token_stats(self, batch: B) -> TokenStats:
        """What the objective needs to know; a critic adds its values here."""
        return self.policy.token_stats(batch, self.objective.needs)

    def parameter_groups(self) -> list[ParameterGroup]:
        """What is trained, in groups that are clipped apart."""
        return [ParameterGroup("policy", [p for p in self.policy.parameters() if p.requires_grad])]

    def publish(self, folder: Path) -> None:
        """Write the trained model."""
        self.policy.save(folder)

    def samples(self) -> Sequence[Mapping[str, object]]:
        """A few rows for a reader of what the trained model does (see `alignlab.samples`); none by default."""
        return ()

    def validate_now(self) -> dict[str, float]:
        """Validation metrics of the model as it is, in evaluation mode: `loss` and the objective's, over units.

        Empty where nothing was held out.
        """
        return self._means(self.validation_batches())

    # ---- running --------------------------------------------------------------------------------------------------
    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        """Train, keep the best or last weights, publish them with a few samples; returns their validation metrics."""
        # Here, not at the top: the fit module needs this one's names.
        from alignlab.training.fit import fit

        self.context = context
        torch.manual_seed(fold_in(self.seed, 0))
        self.prepare(inputs, context)
        self.policy.freeze_idle(self.objective.needs)
        metrics = fit(self, context)
        if distributed.rank() == 0:
            write_lines(context.folder / SAMPLES, self._samples())
        return metrics

    def _samples(self) -> Sequence[Mapping[str, object]]:
        """The samples; what cannot be shown is no reason to lose what was trained."""
        try:
            return self.samples()
        except AlignlabError as error:
            self.context.tracker.say(f"no samples: {error}")
            return ()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The one optimizer over all parameter groups."""
        return self.optimizer_spec.build(self.parameter_groups())

    def train_dataloader(self) -> Iterable[int]:
        """Step numbers, from the one that is next: the data itself follows from the number."""
        return StepNumbers(lambda: int(self.trainer.global_step))

    def training_step(self, step: int, _: int) -> None:
        """One optimizer step."""
        started = time.perf_counter()
        # Functions of the step, so that a resumed run draws the same: the batch alike on every process, dropout not.
        self.train(self.DROPOUT)
        torch.manual_seed(fold_in(self.seed, step))
        whole = self.batch_at(step)
        torch.manual_seed(fold_in(self.seed, step, self.global_rank))
        batch = whole.shard(self.global_rank, self.trainer.world_size).to(self.device)
        optimizer: Any = self.optimizers()
        lr = self.optimizer_spec.set_lr(optimizer, step, self.loop.steps)
        seen: list[tuple[Mean, dict[str, Mean], dict[str, Tensor]]] = []

        @torch.enable_grad()
        def evaluate() -> Tensor:
            """Loss and gradient at the weights as they are: once a step, or as often as the optimizer asks for it."""
            optimizer.zero_grad(set_to_none=True)
            loss, metrics = self._backward(batch)
            norms = self._clip()
            self._check_finite(step, loss, norms, whole, moved=bool(seen))
            seen.append((loss, metrics, norms))
            return loss.value()

        optimizer.step(evaluate)
        optimizer.zero_grad(set_to_none=True)
        if not seen:
            name = type(self.optimizer_spec).__name__
            raise ConfigError(f"{name}: its optimizer never called the closure that gives it the loss")
        loss, metrics, norms = seen[0]
        self.last_step = StepReport(
            {"loss": loss, **metrics}, norms, lr, whole.num_tokens, time.perf_counter() - started
        )

    def _backward(self, batch: B) -> tuple[Mean, dict[str, Mean]]:
        """Gradients of the whole step's loss, and its value and metrics over all processes."""
        units = distributed.sum_of(dict(self.objective.units(batch)))
        parts = self._micro_batches(batch)
        context = self._statistic(parts)
        total: Tensor | None = None
        metrics: dict[str, Mean] = {}
        for number, part in enumerate(parts):
            with self._part_of_step(last=number == len(parts) - 1):
                loss = self._loss(part, context, units)
                scalar = loss.mean(units)
                # DDP and FSDP2 average gradients over processes; units are already those of all of them.
                self.manual_backward(scalar * self.trainer.world_size)
            total = scalar.detach() if total is None else total + scalar.detach()
            metrics = _add(metrics, loss.metrics)
        assert total is not None
        summed = distributed.sum_of({"loss": total})["loss"]
        return Mean(summed, torch.ones_like(summed)), distributed.sum_of_means(metrics)

    def _micro_batches(self, batch: B) -> list[B]:
        """At least one part, and as many on every process; those that have fewer run empty ones."""
        parts = batch.micro_batches(self.loop.micro_batch_tokens)
        most = distributed.max_of(len(parts), self.device)
        return parts + [batch.select_atoms([])] * (most - len(parts))

    def _loss(self, batch: B, context: Tensor | None, units: Mapping[str, Tensor]) -> Loss:
        loss = self.objective(self.token_stats(batch), batch, context)
        if loss.terms.keys() != units.keys():
            name = type(self.objective).__name__
            raise ValueError(f"{name}: terms {sorted(loss.terms)} must be those of units(), {sorted(units)}")
        return loss

    def _statistic(self, parts: Sequence[B]) -> Tensor | None:
        """The objective's mean over the whole step, before anything is differentiated."""
        if type(self.objective).statistic is Objective.statistic:
            return None
        with torch.no_grad():
            means = [self.objective.statistic(self.token_stats(p), p) for p in parts]
        known = [m for m in means if m is not None]
        if not known:
            return None
        return distributed.sum_of_means({"context": sum(known[1:], known[0])})["context"].value()

    def _part_of_step(self, last: bool) -> contextlib.AbstractContextManager[None]:
        wrapped = self.trainer.strategy.model
        policies = [m for m in self.modules() if isinstance(m, Policy)]
        return distributed.part_of_a_step(wrapped or self, policies, last)

    def _clip(self) -> dict[str, Tensor]:
        """Clip each group's gradient by its norm; returns the norms before clipping."""
        norms = {}
        for group in self.parameter_groups():
            limit = self.optimizer_spec.clip_norm if group.clip_norm is None else group.clip_norm
            limit = float("inf") if limit is None else limit
            norms[group.name] = torch.nn.utils.clip_grad_norm_(group.parameters, limit)
        return norms

    def _check_finite(self, step: int, loss: Mean, norms: Mapping[str, Tensor], batch: B, moved: bool = False) -> None:
        """Refuse to step by a bad number.

        Args:
            moved: the optimizer has moved the weights in this step already, and asks for the loss once more.
        """
        values = {"loss": loss.value(), **{f"gradient norm of {k}": v for k, v in norms.items()}}
        bad = {k: float(v) for k, v in values.items() if not torch.isfinite(v)}
        if not bad:
            return
        names = ", ".join(batch.names[:4]) + (f", ... ({len(batch.names)} in all)" if len(batch.names) > 4 else "")
        what = ", ".join(f"{k} is {v}" for k, v in bad.items())
        good = not moved and step > 0 and all(bool(p.isfinite().all()) for p in self.parameters())
        kept = f"; the weights of the {step} steps before are kept in {self.context.work}" if good else ""
        raise NonFiniteError(
            f"{self.context.name}: {what} at step {step}, before the optimizer stepped{kept}. Batch: "
            f"{names or 'unnamed'}. Lower optimizer.lr, or look at those records",
            weights_are_good=good,
        )

    # ---- means over batches ---------------------------------------------------------------------------------------
    @torch.no_grad()
    def _means(self, batches: Sequence[B]) -> dict[str, float]:
        """Loss and metrics over all units of some batches, in evaluation mode; nothing where there are none."""
        self.eval()
        if not batches:
            return {}
        terms: dict[str, Mean] = {}
        metrics: dict[str, Mean] = {}
        for whole in batches:
            batch = whole.shard(self.global_rank, distributed.world_size()).to(self.device)
            parts = self._micro_batches(batch)
            context = self._statistic(parts)
            for part in parts:
                units = self.objective.units(part)
                loss = self._loss(part, context, units)
                terms = _add(terms, {k: Mean(v.detach(), units[k]) for k, v in loss.terms.items()})
                metrics = _add(metrics, loss.metrics)
        found = {k: float(m.value()) for k, m in distributed.sum_of_means(metrics).items()}
        return {"loss": sum(float(m.value()) for m in distributed.sum_of_means(terms).values()), **found}


def _add(known: dict[str, Mean], more: Mapping[str, Mean]) -> dict[str, Mean]:
    return {k: known[k] + more[k] if k in known else more[k] for k in [*known, *(k for k in more if k not in known)]}
