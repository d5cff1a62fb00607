"""What a model wrote is not to be trusted: what of a text may be shown."""

import unicodedata

_KEPT = frozenset("\n\t")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def printable(text: str, limit: int = 4000) -> str:
    """The text without control characters (terminal escapes, overrides of writing direction), cut at `limit`.

    Newlines and tabs stay. Each other control character becomes a visible mark, so that a reader sees that
    something was there.
    """
    shown = "".join(c if c in _KEPT or unicodedata.category(c) not in _HIDDEN else "\ufffd" for c in text[:limit])
    return shown + "…" if len(text) > limit else shown
