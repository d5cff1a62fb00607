"""Control tokens of a tokenizer, and text that only reads like them.

A control token in a message could speak for somebody else: whatever a template, a user or a model writes as plain text
must not become one. Everything here is computed once per tokenizer, since published ones have thousands of them.
"""

import re
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from alignlab.errors import DataError

if TYPE_CHECKING:
    import transformers

V = TypeVar("V")

_KEPT: weakref.WeakKeyDictionary[Any, dict[str, tuple[object, Any]]] = weakref.WeakKeyDictionary()


def once_per_tokenizer(tokenizer: "transformers.PreTrainedTokenizerBase", name: str, compute: Callable[[], V]) -> V:
    """The value that `compute` gave for this tokenizer, computed again when its template or special tokens change."""
    state = (tokenizer.chat_template, repr(tokenizer.special_tokens_map))
    kept = _KEPT.setdefault(tokenizer, {})
    if name not in kept or kept[name][0] != state:
        kept[name] = (state, compute())
    value: V = kept[name][1]
    return value


@dataclass(frozen=True)
class ControlTokens:
    """Control tokens of a tokenizer.

    Args:
        words: their texts, whether or not they have a role (EOS, ...) by name.
        added: texts of all added tokens that are not blank, control tokens among them.
        ids: ids of control tokens, except the unknown token, which stands for any unknown word.
        added_ids: ids of all added tokens that are not blank, `ids` among them.
    """

    words: frozenset[str]
    added: frozenset[str]
    ids: frozenset[int]
    added_ids: frozenset[int]

    @classmethod
    def of(cls, tokenizer: "transformers.PreTrainedTokenizerBase") -> "ControlTokens":
        """The control tokens of a tokenizer, computed once."""
        return once_per_tokenizer(tokenizer, "control", lambda: cls._read(tokenizer))

    @classmethod
    def _read(cls, tokenizer: "transformers.PreTrainedTokenizerBase") -> "ControlTokens":
        added = {i: t for i, t in tokenizer.added_tokens_decoder.items() if t.content.strip()}
        words = {t.content for t in added.values() if t.special} | set(tokenizer.all_special_tokens)
        ids = {i for i, t in added.items() if t.special} | set(tokenizer.all_special_ids)
        texts = {t.content for t in added.values()} | words
        unknown = {tokenizer.unk_token_id}
        return cls(frozenset(words), frozenset(texts), frozenset(ids - unknown), frozenset({*ids, *added} - unknown))


def pattern_of(words: Collection[str]) -> re.Pattern[str]:
    """A pattern that finds any of the words, the longest first, in a time that hardly depends on their number."""
    return re.compile(_alternatives({w for w in words if w}) if any(words) else r"(?!)")


def _alternatives(words: Collection[str]) -> str:
    """Words that begin alike share their beginning, so that a search need not try one after another."""
    groups: dict[str, set[str]] = {}
    for word in words:
        if word:
            groups.setdefault(word[0], set()).add(word[1:])
    found = [_branch(first, rest) for first, rest in sorted(groups.items())]
    found += [""] if "" in words else []  # last: a longer word goes first
    return found[0] if len(found) == 1 else f"(?:{'|'.join(found)})"


def _branch(first: str, rest: set[str]) -> str:
    while len(rest) == 1 and (only := next(iter(rest))):  # nothing branches here, so nothing is nested
        first, rest = first + only, {""}
    return re.escape(first) + ("" if rest == {""} else _alternatives(rest))


def hidden_word(tokenizer: "transformers.PreTrainedTokenizerBase", control: re.Pattern[str], text: str) -> str:
    """A control word that a tokenizer's normalizer makes of a text that has none of that spelling; empty if none.

    `＜|im_end|＞` in wide letters, or `<|IM_END|>` where all is put in lower case.
    """
    normalizer: Any = once_per_tokenizer(tokenizer, "normalizer", lambda: _normalizer(tokenizer))
    if normalizer is None:
        return ""
    found = set(control.findall(normalizer.normalize_str(text))) - set(control.findall(text))
    if not found:
        return ""
    ids = set(token_ids(tokenizer, text))  # most control tokens are looked for before a text is normalised
    return next((word for word in sorted(found) if tokenizer.convert_tokens_to_ids(word) in ids), "")


def _normalizer(tokenizer: "transformers.PreTrainedTokenizerBase") -> Any:
    if not tokenizer.is_fast:
        return None
    backend: Any = tokenizer
    return backend.backend_tokenizer.normalizer


# ---- text to ids -----------------------------------------------------------------------------------------------------
def token_ids(tokenizer: "transformers.PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a text in which control words are control tokens; nothing is added."""
    # verbose: a text longer than the context is cut here on purpose, so the tokenizer's warning would be untrue.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def spelt_ids(tokenizer: "transformers.PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a text in which control words are words like any other; nothing is added.

    Raises:
        DataError: the tokenizer has no other way to write one of them.
    """
    ids = _split_ids(tokenizer, text)
    control = ControlTokens.of(tokenizer)
    if control.ids.isdisjoint(ids):
        return ids
    # The words are in the vocabulary itself, as a word-level tokenizer's are.
    parts = enumerate(re.split(f"({pattern_of(control.words).pattern})", text))
    return [i for n, part in parts if part for i in (spelt_word if n % 2 else _split_ids)(tokenizer, part)]


def spelt_word(tokenizer: "transformers.PreTrainedTokenizerBase", word: str) -> list[int]:
    """Token ids of a control word as text; it is cut in two where nothing else helps.

    Raises:
        DataError: the tokenizer has no other way to write it.
    """
    added = ControlTokens.of(tokenizer).added_ids
    for cut in range(len(word)):
        ids = [i for piece in (word[:cut], word[cut:]) if piece for i in _split_ids(tokenizer, piece)]
        if added.isdisjoint(ids):
            return ids
    raise DataError(f"the tokenizer cannot write {word[:60]!r} as plain text, only as a control token; change the text")


def _split_ids(tokenizer: "transformers.PreTrainedTokenizerBase", text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids
