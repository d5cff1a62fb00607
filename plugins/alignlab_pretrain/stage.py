"""Pretraining: tokenizer and model from scratch, or from a folder, on plain documents."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from alignlab import Artifact, Kind, Objective, StageContext, TokenBatch
from alignlab.data.coverage import coverage
from alignlab.data.records import Document
from alignlab.data.rows import (
    Row,
    check_max_length,
    document_rows,
    few,
    num_tokens,
    resolve_max_length,
    sample,
    token_batch,
)
from alignlab.data.source import DataSource, Need
from alignlab.data.tokenizer import TokenizerSpec
from alignlab.errors import MissingDataError
from alignlab.policy import LoRA, ModelSpec, Policy, previews
from alignlab.seed import fold_in
from alignlab.training import Loop, MixedIn, OfflineStage, OptimizerSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Pretrain(OfflineStage[TokenBatch, Row]):
    """Train a causal LM on documents, each its own sequence: none sees another.

    Args:
        data: gives the documents.
        model: built with random weights; not used where `inputs.policy` continues from a model.
        tokenizer: trained on the documents (and the instructions, where there are any, so that their words are in); of
            large data on a part of them.
        max_length: longest sequence in tokens; longer documents are cut into windows. Null takes the model's context.
    """

    VERSION: ClassVar[str] = "1"
    IDENTITY_IF_SET: ClassVar[frozenset[str]] = OfflineStage.IDENTITY_IF_SET | {"mixed_in"}
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {}
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {**OfflineStage.OPTIONAL, "policy": frozenset({"policy"})}

    def __init__(
        self,
        *,
        data: DataSource,
        model: ModelSpec,
        tokenizer: TokenizerSpec,
        objective: Objective[TokenBatch],
        optimizer: OptimizerSpec,
        loop: Loop,
        inputs: Mapping[str, str] | None = None,
        seed: int = 0,
        max_length: int | None = None,
        mixed_in: Mapping[str, MixedIn] | None = None,
        adapter: LoRA | None = None,
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
        self.model_spec = model
        self.tokenizer_spec = tokenizer
        check_max_length(type(self).__name__, max_length)
        self.max_length = max_length

    def check_inputs(self, names: frozenset[str]) -> None:
        """Refuse an adapter on random weights."""
        super().check_inputs(names)
        if self.adapter is not None and "policy" not in names:
            raise ValueError(
                f"{type(self).__name__}: an adapter changes a model that has learnt something; set inputs.policy to a "
                f"model to continue from, or adapter to null"
            )

    def load_policy(self, inputs: Mapping[str, Artifact], context: StageContext) -> Policy:
        """The input `policy` where it is given; else a new model with a tokenizer of the data's own."""
        if "policy" in inputs:
            return super().load_policy(inputs, context)
        tokenizer = self.tokenizer_spec.train(self._texts())
        return Policy(self.model_spec.build(tokenizer, fold_in(self.seed, 1)), tokenizer).to(context.runtime.dtype)

    def architecture(self) -> "PreTrainedModel | None":
        """The layers of the model that it builds."""
        return None if "policy" in self.inputs else self.model_spec.skeleton()

    def _texts(self) -> Iterator[str]:
        """Documents, and the instructions where there are any; of large data a sample of each."""
        yield from (document.text for document in sample(self.data.documents("train"), lambda d: len(d.text)))
        with contextlib.suppress(MissingDataError):  # a corpus alone is enough to pretrain on
            for example in sample(self.data.instructions("train"), lambda e: len(e.prompt.text) + len(e.answer)):
                yield from (*(m.content for m in example.prompt.messages), example.answer)

    def data_needs(self) -> list[tuple[DataSource, Need]]:
        """Documents, and what is mixed in."""
        return [(self.data, Need("documents")), *self.mixed_needs()]

    def read(self, inputs: Mapping[str, Artifact], context: StageContext) -> tuple[Sequence[Row], Sequence[Row]]:
        """Documents, tokenised and cut into windows."""
        length = resolve_max_length(type(self).__name__, self.max_length, self.policy.context)
        splits = self.data.documents("train"), self.data.documents("validation")
        train, held_out = (document_rows(self.policy.tokenizer, documents, length) for documents in splits)
        words = len(self.policy.tokenizer)
        texts = (d.text for part in splits for d in sample(part, lambda d: len(d.text), most=2**22))
        if lost := coverage(self.policy.tokenizer, texts).warning():
            context.tracker.say(lost)
        context.tracker.say(f"{len(splits[0])} documents, {num_tokens(train)} tokens, {words} words in the vocabulary")
        return train, few(held_out, context.tracker.say)

    def batch_of(self, units: Sequence[Row]) -> TokenBatch:
        """One sequence per document or window."""
        return token_batch(units)

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Held-out documents, continued by the policy."""
        documents: Sequence[Document] = self.data.documents("validation")
        return previews.continued(self.policy, documents, self.seed)
