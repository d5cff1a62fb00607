"""Preference optimisation against a frozen reference: the policy as it was at the start."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from alignlab.artifact import Artifact, Kind
from alignlab.batch import PreferenceBatch, concatenate
from alignlab.data.rows import order_at, portions, preference_batch
from alignlab.errors import PipelineError
from alignlab.policy import Policy, previews
from alignlab.stage import StageContext
from alignlab.training import PreferenceStage, RowPair

_LOGP = frozenset({"logp"})


class DPOStage(PreferenceStage):
    """Train a policy on preference pairs by any objective that reads `reference_logp`.

    The reference's log-probabilities are computed once, before training, with the very rows that are trained on: they
    can be neither stale nor of another template or truncation, and the reference takes no memory while training.
    """

    VERSION: ClassVar[str] = "1"
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {"reference": frozenset({"policy"})}
    PRODUCES: ClassVar[Kind] = "policy"
    DROPOUT: ClassVar[bool] = False
    FILLS: ClassVar[frozenset[str]] = frozenset({"reference_logp"})

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Policy, rows of both answers, and what the reference says of them."""
        rows, validation = self.load(inputs, context)
        reference = self.policy
        if "reference" in inputs:
            reference = Policy.load(inputs["reference"], context.runtime.dtype)
            if reference.tokenizer.get_vocab() != self.policy.tokenizer.get_vocab():
                raise PipelineError(
                    f"{context.name}.inputs.reference: its vocabulary is not the policy's, so it would score other "
                    f"texts; give a model of the same tokenizer"
                )
        # Pairs that the run is too short to visit need no reference.
        size = self.loop.batch_size
        visited = sorted({i for step in range(self.loop.steps) for i in order_at(step, len(rows), size, self.seed)})
        self._size = len(rows)
        self._pairs = dict(zip(visited, self._scored(reference, [rows[i] for i in visited], context), strict=True))
        self._validation = self._scored(reference, validation, context)

    @torch.no_grad()
    def _scored(self, reference: Policy, rows: Sequence[RowPair], context: StageContext) -> list[PreferenceBatch]:
        """Each pair as a batch of its own that carries the reference's log-probabilities."""
        runtime, found = context.runtime, []
        reference.eval().to(runtime.device)
        for number, part in enumerate(portions(rows, self.loop.batch_size)):
            for batch in preference_batch(part).micro_batches(self.loop.micro_batch_tokens):
                with runtime.autocast():
                    logp = reference.token_stats(batch.to(runtime.device), _LOGP).logp.cpu()
                scored = batch.with_tokens(reference_logp=logp)
                found += [scored.select_atoms([pair]) for pair in range(scored.num_atoms)]
            context.tracker.progress(min(len(rows), (number + 1) * self.loop.batch_size), len(rows), {})
        return found

    def batch_at(self, step: int) -> PreferenceBatch:
        """`batch_size` pairs."""
        index = order_at(step, self._size, self.loop.batch_size, self.seed)
        return concatenate([self._pairs[i] for i in index])

    def validation_batches(self) -> Sequence[PreferenceBatch]:
        """Held-out pairs."""
        return [concatenate(part) for part in portions(self._validation, self.loop.batch_size)]

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Its own answers to held-out prompts, beside the two that were compared."""
        return previews.compared(self.policy, self.held_out, self.seed)
