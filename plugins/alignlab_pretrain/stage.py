"""Pretraining: tokenizer and model from scratch, or from a folder, on plain documents."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from alignlab.artifact import Artifact, Kind
from alignlab.batch import TokenBatch
from alignlab.data.records import Document
from alignlab.data.rows import check_max_length, document_rows, longest, order_at, portions, token_batch
from alignlab.data.source import DataSource
from alignlab.data.tokenizer import TokenizerSpec
from alignlab.errors import MissingDataError
from alignlab.objective import Objective
from alignlab.policy import ModelSpec, Policy, previews
from alignlab.seed import fold_in
from alignlab.stage import StageContext
from alignlab.training import Loop, OptimizerSpec, TrainingStage


class Pretrain(TrainingStage[TokenBatch]):
    """Train a causal LM on documents, each its own sequence: none sees another.

    Args:
        data: gives the documents.
        model: built with random weights; not used where `inputs.policy` continues from a model.
        tokenizer: trained on the documents (and the instructions, where there are any, so that their words are in).
        max_length: longest sequence in tokens; longer documents are cut into windows. Null takes the model's context.
    """

    VERSION: ClassVar[str] = "1"
    OPTIONAL: ClassVar[Mapping[str, frozenset[Kind]]] = {"policy": frozenset({"policy"})}
    PRODUCES: ClassVar[Kind] = "policy"

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
    ) -> None:
        super().__init__(inputs=inputs, seed=seed, objective=objective, optimizer=optimizer, loop=loop)
        self.data = data
        self.model_spec = model
        self.tokenizer_spec = tokenizer
        check_max_length(type(self).__name__, max_length)
        self.max_length = max_length

    def prepare(self, inputs: Mapping[str, Artifact], context: StageContext) -> None:
        """Tokenizer, model, rows."""
        documents = self.data.documents("train")
        if "policy" in inputs:
            self.policy = Policy.load(inputs["policy"], context.runtime.dtype)
        else:
            self.policy = self._build(documents).to(context.runtime.dtype)
        length = longest(type(self).__name__, self.max_length, self.policy.context)
        self._rows = document_rows(self.policy.tokenizer, documents, length)
        self._validation = document_rows(self.policy.tokenizer, self.data.documents("validation"), length)
        count = sum(len(row.tokens) for row in self._rows)
        vocabulary = len(self.policy.tokenizer)
        context.tracker.say(f"{len(documents)} documents, {count} tokens, {vocabulary} words in the vocabulary")

    def _build(self, documents: Sequence[Document]) -> Policy:
        texts = [d.text for d in documents]
        try:
            examples = self.data.instructions("train")
        except MissingDataError:  # a corpus alone is enough to pretrain on
            examples = []
        for example in examples:
            texts += [*(m.content for m in example.prompt.messages), example.answer]
        tokenizer = self.tokenizer_spec.train(texts)
        return Policy(self.model_spec.build(tokenizer, fold_in(self.seed, 1)), tokenizer)

    def batch_at(self, step: int) -> TokenBatch:
        """`batch_size` documents."""
        index = order_at(step, len(self._rows), self.loop.batch_size, self.seed)
        return token_batch([self._rows[i] for i in index])

    def validation_batches(self) -> Sequence[TokenBatch]:
        """Held-out documents."""
        return [token_batch(part) for part in portions(self._validation, self.loop.batch_size)]

    def samples(self) -> Sequence[Mapping[str, object]]:
        """Held-out documents, gone on with."""
        return previews.continued(self.policy, self.data.documents("validation"), self.seed)
