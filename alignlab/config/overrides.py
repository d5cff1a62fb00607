"""How overrides may be written, beyond Hydra's own grammar.

The rule, in one place. An override whose value is an *option of a config group* selects that option, wherever the
group is mounted; everything else sets a value:

=======================================  ==========================================  ==================================
written                                  becomes                                     when
=======================================  ==========================================  ==================================
`pipeline.dpo.objective=ipo`             `objective@pipeline.dpo.objective=ipo`      the last key is a group (objective,
                                                                                     optimizer, preference, reward, ...)
                                                                                     and the value one of its options
`pipeline.dpo.objective=dpo,ipo`         `objective@pipeline.dpo.objective=dpo,ipo`  in a sweep, all values are options
`pipeline.extra=dpo`                     `stage@pipeline.extra=dpo`                  a stage of the pipeline
`objective=ipo`                          `objective@stage.objective=ipo`             with `stage=...` (experiment=train)
`pipeline.dpo.loop.steps=9`              `++pipeline.dpo.loop.steps=9`               any value: the final configuration
                                                                                     is checked against constructors, so
                                                                                     a key that the constructor takes
                                                                                     needs no `+`, and one that it does
                                                                                     not take is refused with or without
=======================================  ==========================================  ==================================

A leading `+` on a value is as good as none; before an option it adds the option to the defaults list. `~` is kept.
Whatever holds an `@` or a `/`, or begins with `hydra`, is Hydra's and left alone.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.errors import ConfigError, suggestion

Catalog = Mapping[str, Sequence[str]]


def rewrite(overrides: Sequence[str], catalog: Catalog, top: Sequence[str]) -> list[str]:
    """Each override as Hydra wants it.

    Args:
        overrides: as typed.
        catalog: the options of each group.
        top: groups of the root's defaults list, which stand at the top of the configuration.

    Raises:
        ConfigError: an override cannot be parsed, or selects an option without saying for which stage.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    try:
        parsed = [parser.parse_override(text) for text in overrides]
    except HydraException as error:
        raise ConfigError(f"cannot read an override: {error}") from error
    alone = any(p.key_or_group == "stage" for p in parsed)
    return [_one(p, catalog, top, alone) for p in parsed]


def appended(message: str, overrides: Sequence[str]) -> list[str] | None:
    """The overrides again, after Hydra said that one of them selects an option where none was.

    Args:
        message: Hydra's.
        overrides: rewritten ones.

    Returns:
        The overrides with that option added to the defaults list (whether the constructor takes it is checked later);
        None where the message is about something else.

    Raises:
        ConfigError: it was a stage that is not in the pipeline, more likely a typo than a wish.
    """
    found = re.search(r"To append to your default list use \+(?P<key>[^=\s]+)=(?P<value>.*)", message)
    if found is None:
        return None
    key, value = found["key"], found["value"]
    if key.startswith("stage@"):
        name = key.removeprefix("stage@")
        raise ConfigError(f"{name}={value}: there is no {name} to replace; add it with +{name}={value}")
    chosen = [o for o in overrides if o.partition("=")[0] == key]
    # Last, so that it is merged over the stage that it belongs to, even where that stage is itself added.
    return [o for o in overrides if o not in chosen] + [f"+{o}" for o in chosen]


def _one(override: Any, catalog: Catalog, top: Sequence[str], alone: bool) -> str:
    text = str(override.input_line)
    key = str(override.key_or_group)
    if key in top and override.package is None:
        _check_option(override, catalog.get(key, ()))
        return text
    if override.package is not None or "/" in key or key.split(".")[0] == "hydra":
        return text
    sign, value = _split(text)
    group, package = _mounted(key, alone)
    if group in catalog and _selects(override, catalog[group]):
        if package is None:
            raise ConfigError(
                f"{text}: say for which stage, as in pipeline.NAME.{key}={value}; {text} alone is for experiment=train "
                f"stage=NAME"
            )
        return f"{sign}{group}@{package}={value}"
    if group in catalog and "." not in key:
        _check_option(override, catalog[group])
    return text if sign == "~" else f"++{text.lstrip('+')}"


def _check_option(override: Any, options: Sequence[str]) -> None:
    """Refuse an option that no package ships, in one line; Hydra would list its whole search path."""
    from hydra.core.override_parser.types import Glob

    if override.is_delete() or isinstance(override.value(), Glob):
        return
    for value in _values(override):
        if value not in options and not (isinstance(value, str) and "/" in value):
            group, name = override.key_or_group, "null" if value is None else str(value)
            known = f"{group} has {', '.join(options)}"
            raise ConfigError(f"{group}={name}: no such option; {known}{suggestion(name, options)}")


def _split(text: str) -> tuple[str, str]:
    """The sign (`+`, `++`, `~` or nothing) and the value as typed."""
    body = text.lstrip("+~")
    return text[: len(text) - len(body)], body.partition("=")[2]


def _mounted(key: str, alone: bool) -> tuple[str, str | None]:
    """The group that a key may select from, and the package where its option is mounted."""
    parts = key.split(".")
    if len(parts) == 1:
        return key, f"stage.{key}" if alone else None
    if len(parts) == 2 and parts[0] == "pipeline":
        return "stage", key
    return parts[-1], key


def _selects(override: Any, options: Sequence[str]) -> bool:
    """Whether all the values of an override (several in a sweep) are options."""
    from hydra.core.override_parser.types import Glob

    if isinstance(override.value(), Glob):
        return bool(override.value().filter(list(options)))
    return all(value in options for value in _values(override))


def _values(override: Any) -> list[Any]:
    """The values of an override, several in a sweep; those that are no words as they are."""
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString

    value = override.value()
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    return [v.text if isinstance(v, QuotedString) else v for v in values]
