"""Compositions that differ in values alone, as the jobs of most sweeps do: what they share is composed once.

To read files of options and to merge them is nearly all that Hydra does for a composition. Options are chosen before
any value is set, so the configuration without values is the same for all of them, and each sets its values in a copy.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from alignlab.config.internals import ConfigLoaderImpl
from alignlab.config.replaced import Replaced, Tree

MOST: Final = 16
"""Configurations that are kept; a sweep over options goes back and forth between a few."""
Override: TypeAlias = Any
"""Hydra's."""


@dataclass(frozen=True)
class Base:
    """A configuration without some values.

    Args:
        cfg: of all other overrides.
        replaced: the options that were replaced in it.
        is_group: whether a name is one of its config groups.
    """

    cfg: Tree
    replaced: Replaced | None
    is_group: Callable[[str], bool]

    def takes(self, values: Sequence[Override]) -> bool:
        """Whether the overrides are of values here, and none chooses an option."""
        return not any(self.is_group(value.key_or_group) for value in values)

    def with_values(self, values: Sequence[Override]) -> Tree:
        """A copy in which the values are set, by Hydra's own function."""
        cfg = copy.deepcopy(self.cfg)
        ConfigLoaderImpl._apply_overrides_to_config(list(values), cfg)
        return cfg


@dataclass
class Bases:
    """The configurations that were composed last, by the name of their root and their overrides."""

    found: dict[tuple[str | None, ...], Base] = field(default_factory=dict)

    def get(self, name: str | None, overrides: Sequence[str]) -> Base | None:
        """The one of these overrides."""
        return self.found.get((name, *overrides))

    def keep(self, name: str | None, overrides: Sequence[str], base: Base) -> Base:
        """Keep one, in place of the oldest where there are many."""
        if len(self.found) >= MOST:
            del self.found[next(iter(self.found))]
        self.found[name, *overrides] = base
        return base


def split(parsed: Sequence[Override], is_group: Callable[[str], bool]) -> tuple[list[str], list[Override]]:
    """The overrides that make a base, and the values that are set in it, in the order in which they are set.

    Values are set in the order in which they are written, so those before a removal, or before a setting of Hydra's own
    section, belong to the base.

    Args:
        parsed: overrides of one composition, none of them of a sweep.
        is_group: whether a name is a config group.
    """
    options, others = list[Override](), list[Override]()
    for override in parsed:
        chooses = is_group(override.key_or_group) and not isinstance(override.value(), dict)
        (options if chooses else others).append(override)
    last = max((i for i, o in enumerate(others, 1) if not _is_value(o, is_group)), default=0)
    return [o.input_line for o in (*options, *others[:last])], others[last:]


def _is_value(override: Override, is_group: Callable[[str], bool]) -> bool:
    is_plain = override.package is None and not override.is_delete() and not override.is_hydra_override()
    return is_plain and not is_group(override.key_or_group)
