"""How overrides may be written, in addition to Hydra's own grammar.

The rule: an override whose value is an *option of a config group* selects that option, wherever the group is mounted;
every other override sets a value.

- `pipeline.dpo.objective=ipo` selects an option: the last key is a group (objective, optimizer, ...). In a sweep all
  values must be options: `pipeline.dpo.objective=dpo,ipo`.
- `pipeline.label.preference.raters.dazzled=lister` selects an option of the group that is mounted at this key (here
  reward). A slot that was named after its option takes the name of the new one.
- `pipeline.label.preference.raters.extra=lister` adds an option of the group that is mounted at the neighbouring keys.
- `pipeline.evaluate_dpo.evaluations.world.rewards.honest=honest` adds an option: the key above is a group's plural.
- `+pipeline.extra=dpo` adds a stage; without `+` it would replace one, because a missing stage is more likely a typo.
- `objective=ipo objective.beta=0.3` belongs to the single stage of `experiment=train stage=...`.
- `pipeline.dpo.loop.steps=9` sets a value. A key that the configuration lacks needs no `+`: the final check refuses
  whatever the constructor does not take.
- `~pipeline.ppo` removes a key.

A value that Hydra's grammar cannot read (`data.corpus=a (1).txt`) is taken as text. Keys that hold a `/` or begin with
`hydra` are Hydra's and are not changed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.config.check import ADAPTER, adapter_advice
from alignlab.config.grammar import parse
from alignlab.config.locate import how_to_declare
from alignlab.config.options import undeclared
from alignlab.config.plugins import broken
from alignlab.errors import ConfigError, suggestion

Catalog = Mapping[str, Sequence[str]]
Choices = Mapping[str, str | None]
"""Selected option of each place in the configuration, by Hydra's key: `objective@pipeline.dpo.objective`."""


@dataclass(frozen=True)
class Choice:
    """An override that selects an option.

    Args:
        group: that has the option.
        package: where it is mounted: `pipeline.dpo.objective`.
        value: as typed; several options in a sweep.
        sign: as typed: `+` or nothing.
    """

    group: str
    package: str
    value: str
    sign: str = ""

    @property
    def key(self) -> str:
        """Hydra's key for the place."""
        return self.group if self.group == self.package else f"{self.group}@{self.package}"

    def written(self, exists: bool) -> str:
        """The override as Hydra takes it; an option where none was selected has to be added with `+`."""
        return f"{'' if exists else '+'}{self.key}={self.value}"


class Reader:
    """Reads the overrides of one command.

    Args:
        overrides: as typed.
        catalog: the options of each group.
        top: groups of the root's defaults list, which are mounted at the top of the configuration.

    Raises:
        ConfigError: an override cannot be parsed.
    """

    def __init__(self, overrides: Sequence[str], catalog: Catalog, top: Sequence[str]) -> None:
        self.catalog, self.top = catalog, top
        self.parsed = parse(overrides)
        self._options = {name for names in catalog.values() for name in names}
        self._alone = any(p.key_or_group == "stage" and not p.is_delete() for p in self.parsed)

    def settled(self) -> list[str]:
        """The overrides that select nothing below the top, whatever the configuration holds."""
        return [text for p in self.parsed if not self._may_select(p) and isinstance(text := self._one(p, {}), str)]

    def needs_choices(self) -> bool:
        """Whether some override can only be read with the configuration's choices at hand."""
        return any(self._may_select(p) for p in self.parsed)

    def read(self, choices: Choices) -> list[str | Choice]:
        """Each override as Hydra takes it, or the option that it selects.

        Args:
            choices: of the configuration without these selections.

        Raises:
            ConfigError: an override cannot be meant as it is written.
        """
        self._alone = self._alone or choices.get("stage") is not None
        return [self._one(p, choices) for p in self.parsed]

    def _may_select(self, override: Any) -> bool:
        if self._is_hydras(override) or override.is_delete() or self._is_top(override):
            return False
        group = override.key_or_group.rpartition(".")[2]
        return override.package is not None or group in self.catalog or self._selects(override, list(self._options))

    def _is_top(self, override: Any) -> bool:
        return override.key_or_group in self.top and override.package is None

    def _is_hydras(self, override: Any) -> bool:
        return "/" in override.key_or_group or override.key_or_group.split(".")[0] == "hydra"

    def _one(self, override: Any, choices: Choices) -> str | Choice:
        text, key = str(override.input_line), str(override.key_or_group)
        if self._is_hydras(override):
            return text
        _check_adapter(override)
        if self._is_top(override):
            _check_option(override, self.catalog.get(key, ()))
            return text if override.is_delete() else text.lstrip("+")
        if override.is_delete():
            return text
        sign, value = _split(text)
        if override.package is not None:
            return Choice(key, str(override.package), value, sign)
        if key in self.catalog:
            _check_option(override, self.catalog[key])
        key = self._of_the_stage(key, text)
        group = self._group(key, choices)
        if group in self.catalog and self._selects(override, self.catalog[group]):
            return Choice(group, key, value, sign)
        if group in self.catalog:
            _check_usable(override, group, text)
        return f"++{key}={value}"

    def _of_the_stage(self, key: str, text: str) -> str:
        """`stage.objective` for `objective`, where a single stage is run."""
        head = key.partition(".")[0]
        if head not in self.catalog or head in self.top:
            return key
        if self._alone:
            return f"stage.{key}"
        raise ConfigError(
            f"{text}: say for which stage, as in pipeline.NAME.{text.lstrip('+')}; {text} alone is for "
            f"experiment=train stage=NAME"
        )

    def _group(self, key: str, choices: Choices) -> str:
        """The group from which a key may select; empty if none."""
        above, _, last = key.rpartition(".")
        if above == "pipeline":
            return "stage"
        mounted = {package: group for group, package in map(_place, choices)}
        if key in mounted:
            return mounted[key]
        if last in self.catalog:
            return last
        split = {package: package.rpartition(".") for package in mounted}
        beside = {mounted[p] for p, (home, _, name) in split.items() if home == above and name != mounted[p]}
        if len(beside) == 1 and above != "pipeline":
            return beside.pop()
        return above[:-1].rpartition(".")[2] if above.endswith("s") else ""

    def _selects(self, override: Any, options: Sequence[str]) -> bool:
        """Whether all the values of an override (several in a sweep) are options."""
        from hydra.core.override_parser.types import Glob

        if isinstance(override.value(), Glob):
            return bool(override.value().filter(list(options)))
        return all(isinstance(value, str) and value in options for value in _values(override))


def _check_adapter(override: Any) -> None:
    """Refuse an adapter as a part of the model, `model.lora={r: 16}`, where other programs have it."""
    head, _, key = str(override.key_or_group).partition(f"model.{ADAPTER}")
    if head or not re.fullmatch(r"(\.\w+)?", key) or override.key_or_group == head or override.is_delete():
        return
    settings = {key[1:]: override.value()} if key else override.value()
    raise ConfigError(f"{override.input_line}: {adapter_advice(settings)}")


def _place(key: str) -> tuple[str, str]:
    """Group and package of one of Hydra's keys."""
    group, _, package = key.partition("@")
    return group, package or group.replace("/", ".")


def _check_option(override: Any, options: Sequence[str]) -> None:
    """Refuse an option that no package ships, in one line; Hydra would list its whole search path."""
    from hydra.core.override_parser.types import Glob

    if override.is_delete() or isinstance(override.value(), Glob):
        return
    given = [v for value in _values(override) for v in (value if isinstance(value, list) else [value])]
    for value in given:  # in brackets, several options are merged: tracking=[auto,tensorboard]
        if value not in options and not (isinstance(value, str) and "/" in value):
            raise _no_option(str(override.key_or_group), "null" if value is None else str(value), options)


def _check_usable(override: Any, group: str, text: str) -> None:
    """Refuse an option that is there, but belongs to a plugin that cannot be used."""
    for value in _values(override):
        if isinstance(value, str) and re.fullmatch(r"\w+", value) and (why := _unusable(group, value)):
            raise ConfigError(f"{text}: {why}")


def _unusable(group: str, name: str) -> str:
    """Why an option cannot be used that some package on the path has; empty where none has it."""
    package = undeclared(group, name)
    reasons = [plugin.reason for plugin in broken() if plugin.package == package]
    return (reasons[0] if reasons else how_to_declare(package)) if package else ""


def _no_option(group: str, name: str, options: Sequence[str]) -> ConfigError:
    if why := _unusable(group, name):
        return ConfigError(f"{group}={name}: {why}")
    known = f"{group} has {', '.join(options)}"
    return ConfigError(f"{group}={name}: no such option; {known}{suggestion(name, options)}")


def _split(text: str) -> tuple[str, str]:
    """The sign (`+`, `++`, `~` or nothing) and the value as typed."""
    body = text.lstrip("+~")
    return text[: len(text) - len(body)], body.partition("=")[2]


def _values(override: Any) -> list[Any]:
    """The values of an override, several in a sweep; those that are not words as they are."""
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString

    value = override.value()
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    return [v.text if isinstance(v, QuotedString) else v for v in values]
