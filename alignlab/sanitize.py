"""Make text safe to show or store: a model's text without control characters, configuration without secrets."""

import contextlib
import functools
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final

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

# ---- names -----------------------------------------------------------------------------------------------------------
_SECRET_WORDS: Final = frozenset(
    {
        "token", "secret", "secrets", "password", "passwords", "passwd", "passphrase", "pwd", "pw", "credential",
        "credentials", "authorization", "auth", "bearer", "cookie", "cookies", "apikey", "apikeys", "jwt",
    }
)  # fmt: skip
"""Words that make a name secret where they are its last one: `hf_token`, `db_pwd`."""
_KEYS: Final = frozenset({"api", "access", "private", "secret", "signing", "encryption", "ssh", "auth", "account"})
"""Words that make `key` or `keys` secret: `api_keys`. Alone, `key` with a text is one, `keys` is not."""
_TOKENS: Final = frozenset({"api", "access", "auth", "hf", "hub", "bearer", "refresh", "session", "secret", "github"})
"""Words that make the plural secret: `access_tokens`. Neither `max_tokens` nor `add_tokens` is a secret."""
_ROLES: Final = frozenset(
    {"bos", "eos", "pad", "unk", "sep", "cls", "mask", "stop", "end", "special", "added", "image"}
)
"""Words before `token` with which it is one of a text."""
_ABOUT: Final = frozenset({"id", "file", "value", "env", "header", "text"})
"""Words after such a name that leave it secret: `token_file`."""

# ---- values ----------------------------------------------------------------------------------------------------------
_FORMS: Final = (
    r"hf_[A-Za-z0-9]{20,}",  # Hugging Face
    r"sk-[A-Za-z0-9_\-]{20,}",  # OpenAI, Anthropic and others that copied them
    r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"gh[pousr]_[A-Za-z0-9]{20,}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{20,}",
    r"glpat-[A-Za-z0-9_\-]{16,}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9\-]{10,}",  # Slack
    r"xapp-[A-Za-z0-9\-]{10,}",
    r"AIza[A-Za-z0-9_\-]{30,}",  # Google
    r"ya29\.[A-Za-z0-9_\-]{20,}",
    r"(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS
    r"wandb_v\d+_[A-Za-z0-9_]{20,}",  # W&B
    r"nvapi-[A-Za-z0-9_\-]{20,}",  # NVIDIA
    r"r8_[A-Za-z0-9]{30,}",  # Replicate
    r"gsk_[A-Za-z0-9]{20,}",  # Groq
    r"pypi-[A-Za-z0-9_\-]{50,}",
    r"npm_[A-Za-z0-9]{30,}",
    r"eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{4,}\.[A-Za-z0-9_\-]*",  # a JSON web token
)
"""Forms of known keys. To add one: its prefix, what follows it, whose it is; and a line in `tests/test_secrets.py`."""
_VALUE: Final = re.compile(
    rf"(?<![A-Za-z0-9])(?:{'|'.join(_FORMS)})"
    r"|-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)"
    r"|(?<=://)[^/\s:@]*:[^/\s]+(?=@)"  # user:password in an address
    r"|(?<=://)[A-Za-z0-9_\-]{20,}(?=@)"  # a token in place of them
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/\-]{8,}=*"
    r"|(?<=[Bb]asic )[A-Za-z0-9+/]{12,}=*",
    re.DOTALL,
)
_QUERY: Final = re.compile(r"([?&;#]([\w.\-]+)=)([^&;#\s\"']+)")
"""A part of an address, `?token=x`."""
_SIGNED: Final = frozenset({"sig", "signature", "x-amz-signature", "x-goog-signature", "key", "code"})
"""Parts of an address that are secret there."""
_WANDB: Final = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{40}(?![0-9A-Za-z])")
"""A W&B key of the old form, which is also the form of a commit of git."""
_COMMIT: Final = frozenset({"revision", "commit", "sha", "sha1", "git", "digest", "fingerprint", "hash", "checksum"})
"""Words of a name whose value of 40 hexadecimal digits is a commit."""
_HEX_NEAR: Final = re.compile(r"(?i)(?:wandb|w&b|api|key|login|token|secret)\W")

_PAIR = re.compile(
    r"""(?<![\w.\-])(['"]?([\w.\-]+)['"]?\s*[:=]\s*)('[^']*'|"[^"]*"|[^\s,{}\[\]]+)"""
)  # of a mapping, {token: x}


def redact(value: Any, name: str = "") -> Any:
    """A copy of a config in which everything that looks like a secret reads `<redacted>`.

    A name such as `api_key`, `hf_token`, `pwd` or `secret` hides its whole value, and all texts and numbers below it;
    elsewhere only the parts of a text that have the form of a known key, or of a password in an address, are hidden.
    """
    if is_secret(name) and not (_is_count(name) and isinstance(value, (int, float))):
        return _hidden(value)
    if isinstance(value, Mapping):
        return {redact_text(k) if isinstance(k, str) else str(k): redact(v, str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(v, name) for v in value]
    return redact_text(value, name) if isinstance(value, str) else value


def redact_text(text: str, name: str = "") -> str:
    """A text without the parts that have the form of a key.

    Args:
        text: any.
        name: of the setting that it is the value of, if any: a commit has the form of an old W&B key.
    """
    text = _VALUE.sub(REDACTED, text)
    text = _QUERY.sub(lambda m: f"{m[1]}{REDACTED}" if is_secret(m[2]) or m[2].lower() in _SIGNED else m[0], text)
    is_key = not _COMMIT & set(_words(name)) and (_WANDB.fullmatch(text) or _HEX_NEAR.search(text))
    return _WANDB.sub(REDACTED, text) if is_key else text


def redact_texts(value: Any) -> Any:
    """A copy of a value whose texts have no part in the form of a key; names say nothing about what is below them."""
    if isinstance(value, Mapping):
        return {k: redact_texts(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_texts(v) for v in value]
    return redact_text(value) if isinstance(value, str) else value


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a secret: `api_key`, `hfToken`, `db-password`, `token_file`."""
    words = _words(name)
    while len(words) > 1 and words[-1] in _ABOUT:
        words = words[:-1]
    last, before = (words[-1], set(words[:-1])) if words else ("", set[str]())
    if last in _SECRET_WORDS:
        return not (last == "token" and before & _ROLES)
    if last in ("key", "keys"):
        return bool(before & _KEYS) or words == ["key"]
    return last == "tokens" and (not before or bool(before & _TOKENS))


def _is_count(name: str) -> bool:
    """Whether a number of this name may be one of tokens or of keys; a password may be a number, too."""
    return not set(_words(name)) & (_SECRET_WORDS - {"token"})


def _hidden(value: Any) -> Any:
    """A value of which only the shape is left: names, lists, whether it is set."""
    if isinstance(value, Mapping):
        return {str(k): _hidden(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hidden(v) for v in value]
    return value if value is None or isinstance(value, bool) or value in ("", b"") else REDACTED


def redact_override(text: str) -> str:
    """An override as typed, `a.b.api_key=...`, in which the value of a secret reads `<redacted>`."""
    key, equals, value = text.partition("=")
    below = any(is_secret(part) for part in re.split("[.@/]", key.lstrip("+~")))
    is_shape = value.lower() in ("", "true", "false", "null") or (
        re.fullmatch(r"[\d.e+-]+", value) is not None and _is_count(re.split("[.@/]", key)[-1])
    )
    shown = REDACTED if below and not is_shape else redact_text(value, key)
    return f"{key}{equals}{_PAIR.sub(lambda pair: pair[1] + str(redact(pair[3], pair[2])), shown)}"


def _words(name: str) -> list[str]:
    """The words of a name, `api`, `key` for `apiKey`, `api_key` and `api-key`."""
    return [w for w in re.split(r"[_.\-\s]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()) if w]


def redact_logs() -> None:
    """Let every log record of this process be made without secrets and control characters: Hydra's launchers print
    every job's overrides.

    As the factory of records, so that it holds however logging is configured later.
    """
    made = logging.getLogRecordFactory()
    if not getattr(made, "redacts", False):
        factory = functools.partial(_redacted_record, made)
        factory.redacts = True  # type: ignore[attr-defined]
        logging.setLogRecordFactory(factory)


def _redacted_record(make: Callable[..., logging.LogRecord], *arguments: Any, **named: Any) -> logging.LogRecord:
    record = make(*arguments, **named)
    with contextlib.suppress(Exception):  # a message that does not fit its arguments; logging says so itself
        text = record.getMessage()
        text = " ".join(map(redact_override, text.split(" "))) if "=" in text else redact_text(text)
        record.msg = printable(text, len(text))
        record.args = ()
    return record
