"""Tokenizers trained on the experiment's own texts, with the lab's special tokens and chat template."""

import abc
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from alignlab.data.template import CHAT_TEMPLATE

if TYPE_CHECKING:
    import tokenizers
    import transformers

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<system>", "<user>", "<assistant>")


class TokenizerSpec(abc.ABC):
    """Where a tokenizer comes from."""

    VERSION: ClassVar[str]

    @abc.abstractmethod
    def train(self, texts: Iterable[str]) -> "transformers.PreTrainedTokenizerBase":
        """The tokenizer, fitted to the texts where it is one that learns; the same texts give the same one."""


@dataclass(frozen=True)
class TrainTokenizer(TokenizerSpec):
    """Train a tokenizer.

    Args:
        kind: "word" makes every blank-separated word a token (the embedded world); "bpe" is byte-level BPE, which
            can write any text.
        vocab_size: upper bound on the vocabulary, special tokens included.
    """

    VERSION: ClassVar[str] = "2"
    kind: Literal["word", "bpe"] = "bpe"
    vocab_size: int = 4096

    def __post_init__(self) -> None:
        least = 256 + len(SPECIAL) if self.kind == "bpe" else len(SPECIAL) + 1
        if self.vocab_size < least:
            raise ValueError(f"TrainTokenizer: vocab_size must be >= {least} for {self.kind}, got {self.vocab_size}")

    def train(self, texts: Iterable[str]) -> "transformers.PreTrainedTokenizerFast":
        """A tokenizer of the texts; the same texts give the same tokenizer."""
        from tokenizers import processors
        from transformers import PreTrainedTokenizerFast

        tokenizer = self._words(texts) if self.kind == "word" else self._bytes(texts)
        # For programs that call the tokenizer on plain text: every document that is trained on begins with <bos>.
        start = [("<bos>", tokenizer.token_to_id("<bos>"))]
        tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", "<bos> $A $B", start)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            bos_token="<bos>",
            eos_token="<eos>",
            unk_token="<unk>",
            additional_special_tokens=["<system>", "<user>", "<assistant>"],
            chat_template=CHAT_TEMPLATE,
            clean_up_tokenization_spaces=False,
            padding_side="left",  # for batches of prompts that are to be continued
        )

    def _words(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(
            vocab_size=self.vocab_size, special_tokens=list(SPECIAL), show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer

    def _bytes(self, texts: Iterable[str]) -> "tokenizers.Tokenizer":
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer
