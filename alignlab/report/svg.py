"""SVG and HTML elements as escaped markup."""

from markupsafe import Markup, escape


def tag(name: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """`<name attribute="...">children</name>`, everything escaped that is not markup already.

    An underscore at an attribute's end is dropped (`class_`), others become hyphens; None leaves it out.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value))
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inner)


def _value(value: str | float) -> str:
    """Numbers with at most two decimals: a drawing needs no more, and the file stays small."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
