"""Read overrides by Hydra's grammar; a text that it cannot read is taken as text."""

import re
from collections.abc import Sequence
from typing import Any

from alignlab.errors import ConfigError


def parse(overrides: Sequence[str]) -> list[Any]:
    """Hydra's reading of each override.

    Raises:
        ConfigError: one cannot be read; it is quoted.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, found = OverridesParser.create(), []
    for text in overrides:
        try:
            found.append(parser.parse_override(text))
        except HydraException as error:
            if not _is_text(text):
                raise ConfigError(_unreadable(text, error)) from error
            key, _, value = text.partition("=")
            found.append(parser.parse_override(f'{key}="{value}"'))
    return found


def _is_text(override: str) -> bool:
    """Whether the value of an override that Hydra cannot read can only be a text, such as a file's name."""
    key, _, value = override.partition("=")
    known = re.fullmatch(r"\+{0,2}[A-Za-z_][\w.]*", key)
    return known is not None and bool(value) and not set(value) & set("[]{}'\"\\$")


def _unreadable(text: str, error: Exception) -> str:
    if text.startswith("--") or ("=" not in text and not text.startswith("~")):
        return f"cannot read {text!r}: an override is KEY=VALUE"
    key, _, value = text.partition("=")
    why = str(error).partition("\n")[0]
    return (
        f"cannot read the override {text!r} ({why}); a text with special characters needs quotes: {key}='\"{value}\"'"
    )
