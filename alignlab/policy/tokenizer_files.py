"""Read a tokenizer from a model's folder, and check that it is the one that the folder holds.

transformers picks a tokenizer's class by the model's type, and some classes put a pre-tokenizer of their own in place
of that in `tokenizer.json`. Then texts become other ids than those that the model was trained on, and what is published
is not the tokenizer that was given. Both are found here, on texts of many kinds.
"""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from alignlab.data.control import token_ids
from alignlab.data.template import reason
from alignlab.errors import StoreError

if TYPE_CHECKING:
    import transformers

TOKENIZER = "tokenizer.json"
_FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")

PROBES: Sequence[str] = (
    "River 2 is the Rhine.", "It's 12,345.67 € on 2024-01-31, isn't it?", "a", " a", "\n", "\r\nwindows\r\n",
    "  two  blanks,\tone tab\n\n\nthree lines  ", "def f(x_1: int) -> str:\n    return f'{x_1!r}'  # why?\n",
    "CamelCase snake_case kebab-case ALLCAPS aBcD", "https://example.org/a?b=c&d=%20#e user@example.org",
    "Ünïcödé naïve café cafe\u0301 \u212b ﬁ ½ ²", "日本語のテキスト。", "中文，句子！", "한국어",
    "Русский текст", "عربى", "עברית", "ไทย", "हिन्दी", "🙂👩‍👩‍👧🏽", "∑∫√ → «quotes» “curly” ’s", "\u00a0\u200b\ufeffx",
    "....----====####",
    "1234567890" * 3, "word " * 20, "don't won't I'll you're we've they'd HE'S",
)  # fmt: skip
"""Texts on which two tokenizers that are not the same are likely to differ."""

Encode: TypeAlias = Callable[[str], list[int]]

_CHECKED: set[str] = set()
"""Digests of tokenizers that were checked in this process: policy and reference have the same."""


def load_tokenizer(
    folder: Path, config: "transformers.PreTrainedConfig", embeddings: int
) -> "transformers.PreTrainedTokenizerBase":
    """The tokenizer in a model's folder.

    Args:
        folder: the model's.
        config: its configuration, which decides the tokenizer's class.
        embeddings: rows of the model's embedding.

    Raises:
        StoreError: it cannot be read, has more tokens than the embedding has rows, or would not be the tokenizer that
            the folder holds, now or after it is published.
    """
    tokenizer = _read(folder)
    _check_vocabulary(folder, tokenizer, embeddings)
    digest = _digest(folder, config)
    if digest not in _CHECKED:
        _check_file(folder, tokenizer)
        _check_round_trip(folder, tokenizer, config)
        _CHECKED.add(digest)
    return tokenizer


def _read(folder: Path) -> "transformers.PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    try:
        tokenizer: transformers.PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # foreign files may make anything fail
        raise StoreError(f"{folder}: its tokenizer cannot be loaded: {reason(error)}") from error
    return tokenizer


def _digest(folder: Path, config: "transformers.PreTrainedConfig") -> str:
    total = hashlib.sha256(str(config.model_type).encode())
    for name in _FILES:
        content = (folder / name).read_bytes() if (folder / name).is_file() else b""
        total.update(f"{name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def _check_vocabulary(folder: Path, tokenizer: "transformers.PreTrainedTokenizerBase", embeddings: int) -> None:
    beyond = sorted((i, token) for token, i in tokenizer.get_vocab().items() if i >= embeddings)
    if beyond:
        names = ", ".join(repr(token) for _, token in beyond[:3]) + (", ..." if len(beyond) > 3 else "")
        raise StoreError(
            f"{folder}: its embedding has {embeddings} rows, and {len(beyond)} of its tokenizer's ids are beyond them "
            f"({names}, up to id {beyond[-1][0]}); resize it (model.resize_token_embeddings(len(tokenizer))) and save "
            f"the model again"
        )


# ---- the same ids ----------------------------------------------------------------------------------------------------
def _check_file(folder: Path, tokenizer: "transformers.PreTrainedTokenizerBase") -> None:
    """Compare with `tokenizer.json` as the tokenizers library reads it."""
    from tokenizers import Tokenizer

    if not (folder / TOKENIZER).is_file():
        return
    given = Tokenizer.from_file(str(folder / TOKENIZER))
    given.no_truncation()
    given.no_padding()
    difference = _difference(
        lambda t: given.encode(t, add_special_tokens=False).ids, lambda t: token_ids(tokenizer, t)
    ) or _decoded_difference(tokenizer, lambda ids: given.decode(ids, skip_special_tokens=False))
    if difference:
        raise StoreError(
            f"{folder}: transformers reads its {TOKENIZER} as another tokenizer ({type(tokenizer).__name__}): "
            f"{difference}. Give it the model type that the tokenizer belongs to, or a {TOKENIZER} of that type"
        )


def _check_round_trip(
    folder: Path, tokenizer: "transformers.PreTrainedTokenizerBase", config: "transformers.PreTrainedConfig"
) -> None:
    """Publish it, read it back, and compare."""
    with tempfile.TemporaryDirectory(prefix="alignlab-tokenizer-") as name:
        published = Path(name)
        try:
            config.save_pretrained(published)
            tokenizer.save_pretrained(published)
        except Exception as error:  # found now, before a model is trained that could not be published
            raise StoreError(f"{folder}: its tokenizer cannot be saved again: {reason(error)}") from error
        again = _read(published)
    added = " x ".join(token.content for token in tokenizer.added_tokens_decoder.values())
    difference = _difference(lambda t: token_ids(tokenizer, t), lambda t: token_ids(again, t), [added])
    for what, before, after in (
        ("chat template", tokenizer.chat_template, again.chat_template),
        ("special tokens", tokenizer.special_tokens_map, again.special_tokens_map),
        ("vocabulary", tokenizer.get_vocab(), again.get_vocab()),
    ):
        difference = difference or ("" if before == after else f"its {what} would not be the same")
    if difference:
        raise StoreError(
            f"{folder}: transformers would publish another tokenizer than it read ({type(again).__name__} after "
            f"{type(tokenizer).__name__}): {difference}. Save the tokenizer with the installed transformers, and give "
            f"that"
        )


def _difference(before: Encode, after: Encode, more: Sequence[str] = ()) -> str:
    """The first text that becomes other ids; empty where all become the same."""
    for text in (*PROBES, *more):
        if (given := _ids(before, text)) != (found := _ids(after, text)):
            at = next((i for i, (a, b) in enumerate(zip(given, found, strict=False)) if a != b), 0)
            return f"{text[:40]!r} becomes {found[at : at + 4]} in place of {given[at : at + 4]} (token {at} on)"
    return ""


def _decoded_difference(tokenizer: "transformers.PreTrainedTokenizerBase", decode: Callable[[list[int]], str]) -> str:
    """The first text whose ids are read as other texts by the two; empty where none is."""
    for text in PROBES:
        ids = _ids(lambda t: token_ids(tokenizer, t), text)
        found = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if (given := decode(ids)) != found:
            return f"the ids of {text[:40]!r} are read as {str(found)[:40]!r} in place of {given[:40]!r}"
    return ""


def _ids(encode: Encode, text: str) -> list[int]:
    try:
        return encode(text)
    except Exception:  # as a word-level tokenizer without an unknown token does
        return []
