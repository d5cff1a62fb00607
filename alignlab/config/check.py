"""Check a final configuration against the constructors that it names, and turn it into specs.

Hydra cannot: without hand-written schemas it composes a typo in a file silently, and with them `+key` still passes.
So the check comes last, on the resolved configuration, and needs nothing of a plugin but its constructors' signatures.
Types are checked by pydantic in its strict mode, as JSON: a list may stand for a tuple, an int for a float, a string
for an int may not.
"""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from alignlab.config.locate import TARGET, is_target, locate
from alignlab.config.signature import coerce, hints, parameters, plain
from alignlab.config.spec import Spec
from alignlab.config.types import classes, misfit, name_of, parts_type
from alignlab.errors import ConfigError, suggestion
from alignlab.sanitize import redact

SPECIAL: Final = ("_partial_", "_args_", "_recursive_", "_convert_")
"""Keys that mean something to `hydra.utils.instantiate`. They are refused: none is needed, and each would be a second
way to write the same thing."""

ADAPTER: Final = "lora"
"""Key that other programs have in a model's configuration."""
Catalog = Mapping[str, Sequence[str]]


def parse(node: Mapping[str, Any], path: str) -> Spec:
    """The spec of one resolved node that holds `_target_`.

    Raises:
        ConfigError: the problems found, each on a line.
    """
    checker = Checker()
    found = checker.object(node, node, path)
    checker.raise_problems()
    assert found is not None
    return found


class Checker:
    """Turns nodes into specs and collects the problems found on the way.

    Args:
        catalog: options of each config group, for suggestions.
    """

    def __init__(self, catalog: Catalog | None = None) -> None:
        self.catalog = catalog or {}
        self.problems: list[str] = []
        self._echoes: list[str] = []
        """Problems of values that are taken over from elsewhere (`${data}`), where they are listed already."""

    def raise_problems(self) -> None:
        """Raise one error that lists the problems, each on a line."""
        if found := self.problems or self._echoes:
            raise ConfigError("\n".join(dict.fromkeys(found)))

    def problem(self, text: str, raw: Any = None) -> None:
        """Record a problem of a node whose text before interpolation is `raw`."""
        (self._echoes if isinstance(raw, str) and "${" in raw else self.problems).append(text)

    # ---- objects --------------------------------------------------------------------------------------------------
    def object(self, node: Mapping[str, Any], raw: Any, path: str) -> Spec | None:
        """The spec of a node that holds `_target_`.

        Args:
            node: resolved.
            raw: the same node before interpolation.
            path: dotted.

        Returns:
            None where the class is the problem.
        """
        try:
            cls = locate(node[TARGET], path)
        except ConfigError as error:
            self.problem(str(error), raw)
            return None
        return Spec(cls, path, self._arguments(cls, node, raw, path))

    def _arguments(self, cls: type[Any], node: Mapping[str, Any], raw: Any, path: str) -> dict[str, Any]:
        known, types_of = parameters(cls), hints(cls)
        found = {}
        for key, value in node.items():
            if key in SPECIAL:
                self.problem(f"{path}.{key}: alignlab does not take {key}; write the plain arguments", raw)
            elif key != TARGET and key not in known:
                self.problem(_unknown(cls, key, list(known), path), raw)
            elif key != TARGET:
                found[key] = self.value(value, child(raw, key), types_of.get(key, Any), f"{path}.{key}", cls)
        for name, parameter in known.items():
            if parameter.default is parameter.empty and name not in node:
                self.problem(f"{path}.{name}: {cls.__name__} needs it; set {path}.{name}=...", raw)
        return found

    # ---- values ---------------------------------------------------------------------------------------------------
    def value(self, value: Any, raw: Any, hint: Any, path: str, owner: type[Any]) -> Any:
        """The value as the type that `owner` asks for; nested objects as specs."""
        hint = plain(hint)
        if isinstance(value, float) and not math.isfinite(value):
            self.problem(f"{path}: {owner.__name__} takes a finite number, not {value}", raw)
        elif is_target(value):
            return self._nested(value, raw, hint, path, owner)
        elif (inner := parts_type(value, hint)) is not None:
            parts = value.items() if isinstance(value, Mapping) else enumerate(value)
            made = {k: self.value(v, child(raw, k), inner, _below(path, k), owner) for k, v in parts}
            return coerce(made if isinstance(value, Mapping) else list(made.values()), hint)
        elif wanted := misfit(value, hint):
            shown = _show(redact(value, path.rpartition(".")[2]))
            self.problem(f"{path}: {owner.__name__} takes {wanted}, not {shown}{self._options(path, value)}", raw)
        return coerce(value, hint)

    def _nested(self, value: Mapping[str, Any], raw: Any, hint: Any, path: str, owner: type[Any]) -> Spec | None:
        made = self.object(value, raw, path)
        wanted = classes(hint)
        if made is not None and wanted and not issubclass(made.cls, wanted):
            names = " or ".join(name_of(w) for w in wanted)
            self.problem(f"{path}: {owner.__name__} takes {names}, not {made.cls.__name__}", raw)
        return made

    def _options(self, path: str, value: Any) -> str:
        group = path.rpartition(".")[2]
        if group not in self.catalog:
            return ""
        names = self.catalog[group]
        meant = suggestion(value, names) if isinstance(value, str) else ""
        return f"; options of {group}: {', '.join(names)}{meant}"


def _unknown(cls: type[Any], key: str, known: list[str], path: str) -> str:
    if key == ADAPTER:
        return f"{path}.{key}: {cls.__name__} takes no {key}; {adapter_advice()}"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"{path}.{key}: {cls.__name__} takes {close[0]}, not {key}"
    return f"{path}.{key}: {cls.__name__} takes no {key}; it takes {', '.join(known) or 'nothing'}"


def adapter_advice(settings: Any = None) -> str:
    """How an adapter is asked for that was written as a part of a model.

    Args:
        settings: that were given for it; those of a usual one where none are given.
    """
    known = settings if isinstance(settings, Mapping) and settings else {"r": 16, "alpha": 32}
    keys = " ".join(f"adapter.{key}={_plainly(value)}" for key, value in known.items())
    return f"an adapter belongs to the stages that train it: adapter=lora {keys}"


def _plainly(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def child(raw: Any, key: Any) -> Any:
    """The part of the configuration before interpolation; a whole-node interpolation stands for all its parts."""
    return raw if isinstance(raw, str) or raw is None else raw[key]


def _below(path: str, key: Any) -> str:
    return f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"


def _show(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."
