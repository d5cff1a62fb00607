"""OfflineStage: the base of every data regime whose data is there before training starts."""

import abc
import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

from alignlab.artifact import Artifact, Kind
from alignlab.batch import Batch
from alignlab.data.rows import Lazy, order_at, portions
from alignlab.policy import Policy, digest_of_vocabulary, digest_of_weights, is_adapter
from alignlab.stage import Shared, StageContext
from alignlab.training.reference import Asked, ReferenceLogp
from alignlab.training.stage import TrainingStage

B = TypeVar("B", bound=Batch)
U = TypeVar("U")

NOT_OF_THE_REFERENCE = frozenset({"objective", "optimizer", "loop", "mixed_in", "adapter", "seed"})
"""Arguments of a stage that do not change what its reference is asked; what does change it is in `further`."""


class OfflineStage(TrainingStage[B], Generic[B, U]):
    """Train on units (texts, answers, pairs) that are read once, in an order that follows from (seed, step).

    A regime states how its units are read (`read`) and what batch they make (`batch_of`). Where the objective reads
    `reference_logp`, the reference's log-probabilities of the tokens that are trained on are computed before training
    and kept in the store, by those tokens and masks: no other run with the same reference and rows computes them again,
    and they can be neither stale nor of another template or truncation. The reference takes no memory while training,
    and is not even loaded where they are found. Where the objective does not read them, there is none.

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
        """Load the policy, read the units, and have them scored by the reference where it is read."""
        self.policy = self.load_policy(inputs, context)
        context.check_lengths(self.policy.tokenizer, self.policy.context)
        self.units, self.held_out_units = self.read(inputs, context)
        self._reference: ReferenceLogp | None = None
        self._held_out_reference: ReferenceLogp | None = None
        if self._reads_reference:
            asked = self._asked(inputs, context)
            self._reference = asked.logp(self.units, self._scored_units(), self.batch_of)
            if held_out := range(len(self.held_out_units)):
                self._held_out_reference = asked.logp(self.held_out_units, held_out, self.batch_of)

    def batch_at(self, step: int) -> B:
        """`loop.batch_size` units."""
        return self._batch(self.units, self._index(step), self._reference)

    def validation_batches(self) -> Sequence[B]:
        """The held-out units; each batch is made when its turn comes."""
        parts = portions(range(len(self.held_out_units)), self.loop.batch_size)
        return Lazy(parts, lambda part: self._batch(self.held_out_units, part, self._held_out_reference))

    def _index(self, step: int) -> list[int]:
        return order_at(step, len(self.units), self.loop.batch_size, self.seed)

    def _batch(self, units: Sequence[U], index: Sequence[int], reference: ReferenceLogp | None) -> B:
        batch = self.batch_of([units[i] for i in index])
        return batch if reference is None else batch.with_tokens(reference_logp=reference.of(index, batch))

    # ---- the reference --------------------------------------------------------------------------------------------
    def shares(self) -> Shared | None:
        """The reference's log-probabilities, where the objective reads them."""
        if not self._reads_reference:
            return None
        taken = frozenset(self.inputs) - {"teacher"}
        visits = [self.loop.steps, self.loop.batch_size, self.seed]
        held = None if self.adapter is None else self.adapter.held
        further = {"reads": sorted(self.objective.reads), "visits": visits, "held": held}
        return Shared("reference_logp", taken, NOT_OF_THE_REFERENCE, further)

    def make_shared(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Have the reference score the units, which is the last that is done before training."""
        self.begin(inputs, context)

    @property
    def _reads_reference(self) -> bool:
        return "reference_logp" in self.objective.reads

    def _scored_units(self) -> Sequence[int]:
        """Numbers of the units that the reference is asked about: all, so that runs of other seeds find them.

        Of a run that visits less than half of them, those alone: a short trial must not wait for the rest.
        """
        visited = {i for step in range(self.loop.steps) for i in self._index(step)}
        return sorted(visited) if 2 * len(visited) < len(self.units) else range(len(self.units))

    def _asked(self, inputs: Mapping[str, Artifact], context: StageContext) -> Asked:
        """The reference: the input of that name, or the policy as it is now."""

        @functools.cache
        def load() -> Policy:
            found = self.load_frozen("reference", inputs, context) if "reference" in inputs else self.policy
            return found.eval().to(context.runtime.device)

        # A stage that makes its policy or its reference by itself has it identified by its weights.
        loads = ("load_frozen",) if "reference" in inputs else ("load_policy", "load_trainable")
        own = any(getattr(type(self), name) is not getattr(OfflineStage, name) for name in loads)
        artifact = inputs.get("reference", inputs.get("policy"))
        known = digest_of_weights(load()) if own or artifact is None else artifact.fingerprint
        held = "" if "reference" in inputs else self._held(own, inputs)
        identity = {"reference": known, "held": held, "vocabulary": digest_of_vocabulary(self.policy)}
        return Asked(load, identity, context, self.loop.micro_batch_tokens)

    def _held(self, own: bool, inputs: Mapping[str, Artifact]) -> str:
        """How the weights of the policy are held, where that moves the last bits of what it says, or more.

        Args:
            own: the policy is the stage's own making.
            inputs: of the stage.
        """
        if self.adapter is not None:
            return self.adapter.held
        return "merged" if not own and "policy" in inputs and is_adapter(inputs["policy"].path) else ""
