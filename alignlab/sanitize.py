"""Make text safe to show or store: a model's text without control characters, configuration without secrets."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_KEPT = frozenset("\n\t")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def printable(text: str, limit: int = 4000) -> str:
    """The text without control characters (terminal escapes, overrides of writing direction), cut at `limit`.

    Newlines and tabs stay. Each other control character becomes a visible mark, so that a reader sees that
    something was there.
    """
    shown = "".join(c if c in _KEPT or unicodedata.category(c) not in _HIDDEN else "\ufffd" for c in text[:limit])
    return shown + "…" if len(text) > limit else shown


REDACTED = "<redacted>"

# `tokenizer`, `max_new_tokens` and `keep` are not secrets: the word must stand alone between underscores or ends.
_NAME = re.compile(
    r"(?:^|[_.\-])(?:api_?key|access_?key|private_?key|key|token|secret|passwords?|passwd|credentials?|authorization|auth)"
    r"(?:$|[_.\-](?:id|file|value|env)?$)",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_\-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|wandb_v\d_[A-Za-z0-9_]{20,}|AKIA[0-9A-Z]{16})"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password in an address
)

_PAIR = re.compile(r"""(['"]?([\w.\-]+)['"]?\s*:\s*)('[^']*'|"[^"]*"|[^\s,{}\[\]]+)""")  # of a mapping, {token: x}


def redact(value: Any, name: str = "") -> Any:
    """A copy of a config in which everything that looks like a secret reads `<redacted>`.

    A name such as `api_key`, `hf_token`, `secret` or `password` hides its whole value; elsewhere only the parts of
    a text that have the form of a known key, or of a password in an address, are hidden.
    """
    if isinstance(value, Mapping):
        return {str(k): redact(v, str(k)) for k, v in value.items()}
    if _NAME.search(_snake(name)) and isinstance(value, (str, bytes)) and value:
        return REDACTED
    if isinstance(value, (list, tuple)):
        return [redact(v, name) for v in value]
    return _VALUE.sub(REDACTED, value) if isinstance(value, str) else value


def redact_override(text: str) -> str:
    """An override as typed, `a.b.api_key=...`, in which the value of a secret reads `<redacted>`."""
    key, equals, value = text.partition("=")
    shown = redact(value, re.split("[.@/]", key)[-1])
    return f"{key}{equals}{_PAIR.sub(lambda pair: pair[1] + str(redact(pair[3], pair[2])), shown)}"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
