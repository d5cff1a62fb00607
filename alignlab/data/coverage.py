"""Coverage: whether a tokenizer can write texts, or leaves words and line breaks of them out."""

from collections.abc import Iterable
from dataclasses import dataclass

from alignlab.data.chat import encode_text
from alignlab.data.types import PreTrainedTokenizerBase

FEWEST = 0.001
"""Share of unknown tokens from which a reader is warned: one word in a thousand."""


@dataclass(frozen=True)
class Coverage:
    """How much of some texts a tokenizer can write.

    Args:
        tokens: of all texts.
        unknown: of those, tokens that stand for a word which the tokenizer does not have (`<unk>`).
        texts: how many.
        altered: of those, texts that do not come back as they were when their tokens are decoded, blanks at the ends
            left out.
        first: the first blank-separated word that holds an unknown token.
    """

    tokens: int
    unknown: int
    texts: int
    altered: int
    first: str = ""

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are unknown, 0 to 1."""
        return self.unknown / self.tokens if self.tokens else 0.0

    @property
    def lossless(self) -> bool:
        """Whether every text can be written as it is."""
        return not self.unknown and not self.altered

    def warning(self) -> str:
        """One line with the figures; empty where fewer than one token in a thousand is unknown.

        Line breaks alone are not warned of: a tokenizer of words is meant to have none.
        """
        if self.unknown_share < FEWEST:
            return ""
        altered = f", and {self.altered} of {self.texts} texts lose blanks or line breaks" if self.altered else ""
        return (
            f"the tokenizer cannot write the texts: {100 * self.unknown_share:.1f} % of {self.tokens} tokens are "
            f"unknown words (first: {self.first!r:.40}){altered}; tokenizer=bpe can write any text"
        )


def coverage(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Coverage:
    """Measure how much of some texts a tokenizer can write."""
    unk = tokenizer.unk_token_id
    tokens = unknown = count = altered = 0
    first = ""
    for text in texts:
        ids = encode_text(tokenizer, text)
        lost = 0 if unk is None else ids.count(unk)
        if lost and not first:
            first = next((w for w in text.split() if unk in encode_text(tokenizer, w)), text[:40])
        tokens, unknown, count = tokens + len(ids), unknown + lost, count + 1
        altered += _decoded(tokenizer, ids).strip() != text.strip()
    return Coverage(tokens, unknown, count, altered, first)


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
