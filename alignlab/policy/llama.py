"""Models made from scratch."""

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

if TYPE_CHECKING:
    import transformers


class ModelSpec(abc.ABC):
    """Recipe of a model; a stage that starts from scratch builds the model for its tokenizer."""

    VERSION: ClassVar[str]

    @abc.abstractmethod
    def build(self, tokenizer: "transformers.PreTrainedTokenizerBase", seed: int) -> "transformers.PreTrainedModel":
        """The model for a tokenizer's vocabulary; the same seed gives the same weights."""

    def skeleton(self) -> "transformers.PreTrainedModel | None":
        """The model's layers without weights, whatever their sizes; None where they are not known beforehand."""
        return None


@dataclass(frozen=True)
class Llama(ModelSpec):
    """A Llama of any size, with random weights.

    Args:
        layers: transformer blocks.
        width: of the residual stream.
        heads: attention heads; divides width.
        feedforward: inner width of the gated feed-forward.
        context: longest sequence in tokens.
        tie_embeddings: input and output embedding are one matrix.
        dropout: of the attention weights while training.
    """

    VERSION: ClassVar[str] = "1"
    layers: int = 2
    width: int = 128
    heads: int = 4
    feedforward: int = 384
    context: int = 64
    tie_embeddings: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("layers", 1), ("width", 1), ("heads", 1), ("feedforward", 1), ("context", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"Llama: {name} must be >= {least}, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"Llama: dropout must be in [0, 1), got {self.dropout}; it is a probability")
        if self.width % (2 * self.heads):
            raise ValueError(
                f"Llama: width must be a multiple of 2 * heads (rotary positions turn pairs), got width "
                f"{self.width} and heads {self.heads}"
            )

    def build(self, tokenizer: "transformers.PreTrainedTokenizerBase", seed: int) -> "transformers.PreTrainedModel":
        """The model for a tokenizer's vocabulary; the same seed gives the same weights."""
        from transformers import AutoModelForCausalLM

        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        config = self._config(len(tokenizer), **{name: getattr(tokenizer, name) for name in names})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: transformers.PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return model

    def skeleton(self) -> "transformers.PreTrainedModel":
        """The model's layers, for a vocabulary of one token."""
        return skeleton_of(self._config(1))

    def _config(self, vocabulary: int, **tokens: Any) -> "transformers.PreTrainedConfig":
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=self.width,
            intermediate_size=self.feedforward,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=self.tie_embeddings,
            attention_dropout=self.dropout,
            **tokens,
        )


def skeleton_of(config: "transformers.PreTrainedConfig") -> "transformers.PreTrainedModel":
    """The layers of a model, on the device that has no memory."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: transformers.PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return model
