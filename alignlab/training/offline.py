"""OfflineStage: the base of every data regime whose data is there before training starts."""

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from alignlab.artifact import Artifact, Kind
from alignlab.batch import Batch
from alignlab.data.rows import Lazy, order_at, portions
from alignlab.policy import Policy
from alignlab.stage import StageContext
from alignlab.training.measure import measure_by_unit, reported
from alignlab.training.stage import TrainingStage

B = TypeVar("B", bound=Batch)
U = TypeVar("U")


class OfflineStage(TrainingStage[B], Generic[B, U]):
    """Train on units (texts, answers, pairs) that are read once, in an order that follows from (seed, step).

    A regime states how its units are read (`read`) and what batch they make (`batch_of`). Where the objective reads
    `reference_logp`, the reference's log-probabilities are computed once, before training, on the tokens that are
    trained on: they can be neither stale nor of another template or truncation, and the reference takes no memory while
    training. Where it does not, no reference is loaded.

    Args:
        inputs: `policy`; `reference`, by default the policy as it was.
    """

    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {
        **TrainingStage.OPTIONAL,
        "reference": frozenset({"policy"}),
    }
    PRODUCES: ClassVar[Kind] = "policy"
    PROVIDES: ClassVar[frozenset[str]] = frozenset({"reference_logp"})

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse a reference that the objective does not read."""
        super().check_inputs(names)
        if "reference" in names and "reference_logp" not in self.objective.reads:
            its = type(self.objective).__name__
            raise ValueError(f"{type(self).__name__}: {its} does not use inputs.reference; remove it")

    @abc.abstractmethod
    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> tuple[Sequence[U], Sequence[U]]:
        """Units to learn from, and held-out ones; `self.policy` is loaded."""

    @abc.abstractmethod
    def batch_of(self, units: Sequence[U]) -> B:
        """The batch of some units, in their order."""

    def load_policy(self, inputs: Mapping[str, Artifact], context: StageContext) -> Policy:
        """The policy to train: the input `policy`."""
        return self.load_trainable(inputs["policy"], context)

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Load the policy, read the units, and score them by the reference where it is read."""
        self.policy = self.load_policy(inputs, context)
        context.check_lengths(self.policy.tokenizer, self.policy.context)
        self.units, self.held_out_units = self.read(inputs, context)
        self._reference: dict[int, Tensor] = {}
        self._held_out_reference: dict[int, Tensor] = {}
        if "reference_logp" in self.objective.reads:
            reference = self.load_frozen("reference", inputs, context) if "reference" in inputs else self.policy
            # Units that the run is too short to visit need no reference.
            visited = sorted({i for step in range(self.loop.steps) for i in self._index(step)})
            self._reference = self._scored(reference, self.units, visited, context)
            held_out = range(len(self.held_out_units))
            self._held_out_reference = self._scored(reference, self.held_out_units, held_out, context)

    def batch_at(self, step: int) -> B:
        """`loop.batch_size` units."""
        return self._batch(self.units, self._index(step), self._reference)

    def validation_batches(self) -> Sequence[B]:
        """The held-out units; each batch is made when its turn comes."""
        parts = portions(range(len(self.held_out_units)), self.loop.batch_size)
        return Lazy(parts, lambda part: self._batch(self.held_out_units, part, self._held_out_reference))

    def _index(self, step: int) -> list[int]:
        return order_at(step, len(self.units), self.loop.batch_size, self.seed)

    def _batch(self, units: Sequence[U], index: Sequence[int], reference: Mapping[int, Tensor]) -> B:
        batch = self.batch_of([units[i] for i in index])
        return batch.with_tokens(reference_logp=torch.cat([reference[i] for i in index])) if reference else batch

    def _scored(
        self, reference: Policy, units: Sequence[U], index: Sequence[int], context: StageContext
    ) -> dict[int, Tensor]:
        """The reference's log-probabilities of the tokens of each of some units, nats."""
        reference.eval().to(context.runtime.device)
        batches = (self.batch_of([units[i] for i in part]) for part in portions(index, self.loop.batch_size))
        logp = measure_by_unit(reference, batches, context.runtime, self.loop.micro_batch_tokens)
        return dict(zip(index, reported(logp, len(index), context.tracker), strict=True))
