"""Classes of transformers, for annotations only: it takes a second to import, and a plan needs none of it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
else:
    PreTrainedTokenizerBase = PreTrainedTokenizerFast = Any

__all__ = ["PreTrainedTokenizerBase", "PreTrainedTokenizerFast"]
