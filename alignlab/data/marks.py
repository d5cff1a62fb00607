"""Control words in an assistant's text: marked while the template renders, spelt out when it is tokenised.

A marked word stands between two marks, a character of Unicode's private use that no text of the conversation has.
Nearly every conversation has no control words, and needs no mark: the mark is then empty.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignlab.data.chat_format import ChatFormat
from alignlab.data.control import spelt_word, token_ids

if TYPE_CHECKING:
    import transformers

_PRIVATE_USE = range(0xE000, 0xF900)


def free_mark(chat: ChatFormat, texts: Sequence[str]) -> str:
    """A mark that is in none of the texts; empty where they hold no control words."""
    if not any(chat.control.search(t) for t in texts):
        return ""
    return next(chr(c) for c in _PRIVATE_USE if not any(chr(c) in t for t in texts))


def marked(chat: ChatFormat, text: str, mark: str) -> str:
    """The text with its control words between marks."""
    return chat.control.sub(lambda found: mark + found.group() + mark, text) if mark else text


def marked_ids(tokenizer: "transformers.PreTrainedTokenizerBase", text: str, mark: str) -> list[int]:
    """Ids of a rendered text; what stands between marks is spelt out."""
    if not mark:
        return token_ids(tokenizer, text)
    parts = enumerate(text.split(mark))
    return [i for n, part in parts if part for i in (spelt_word if n % 2 else token_ids)(tokenizer, part)]


def continued_ids(
    tokenizer: "transformers.PreTrainedTokenizerBase", chat: ChatFormat, before: str, text: str, mark: str
) -> list[int]:
    """Ids of a rendered text in the place that it has after another: a tokenizer may write a text's beginning so only
    there. Where a token would span the boundary, the text is tokenised alone.
    """
    context = chat.anchor if chat.anchor and before.endswith(chat.anchor) else before.rpartition(mark or "\0")[2]
    first, *others = text.split(mark, 1) if mark else [text]
    start, joint = token_ids(tokenizer, context), token_ids(tokenizer, context + first)
    ids = joint[len(start) :] if joint[: len(start)] == start else token_ids(tokenizer, first)
    return ids + (marked_ids(tokenizer, mark + others[0], mark) if others else [])
