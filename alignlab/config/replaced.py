"""An option chosen on the command line comes as its own file has it, not as an experiment tuned the one it replaces.

`experiment=lifecycle` sets `pipeline.dpo.objective.beta`, for DPO. Hydra merges that over whatever stands there: with
`pipeline.dpo.objective=ipo` over an objective that takes no beta, and with a plugin's over one that does, and means
something else by it. So where the command chooses another option than the experiment did, that node is composed anew:
the option's own file, and what the command itself says below it.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict, read_write

from alignlab.config import compose


class Choice(NamedTuple):
    """`objective@pipeline.dpo.objective=ipo`."""

    group: str
    package: str
    option: str

    @classmethod
    def of(cls, override: str) -> "Choice | None":
        """What a rewritten override chooses; None where it sets a value."""
        found = re.fullmatch(r"\+{0,2}([^@=~]+)@([^=]+)=(.+)", override)
        if found:
            return cls(*found.groups())
        group, _, option = override.partition("=")
        return cls(group, group, option) if group in compose.OBJECTS and option else None

    def __str__(self) -> str:
        """As an override that composes it alone."""
        if self.group == self.package:
            return f"{self.group}={self.option}"
        return f"+{self.group}@{self.package}={self.option}"

    @property
    def key(self) -> str:
        """What Hydra lists it by among a configuration's choices."""
        return self.group if self.group == self.package else f"{self.group}@{self.package}"

    def holds(self, override: str) -> bool:
        """Whether another override is about something below this one."""
        key = override.lstrip("+~").partition("=")[0].rpartition("@")[2]
        return key.startswith(f"{self.package}.")


def drop_settings_of_replaced(
    cfg: compose.Tree, overrides: Sequence[str], folders: Sequence[Path], searchpath: Sequence[str] = ()
) -> compose.Tree:
    """The configuration of one job, in which replaced options bring nothing along from those that they replace.

    Args:
        cfg: as Hydra composed it, without its own section; changed in place.
        overrides: rewritten ones, of this job alone.
        folders: of options, that the command was given.
        searchpath: overrides of `hydra.searchpath`, which a job's own overrides do not hold.
    """
    chosen = [c for c in map(Choice.of, overrides) if c is not None]
    if chosen:
        with compose.hydra_session(folders):
            for choice in _others(chosen, [*searchpath, *overrides]):
                below = [o for o in overrides if choice.holds(o)]
                alone = compose.with_hydra([*searchpath, str(choice), *below])
                with read_write(cfg), open_dict(cfg):
                    OmegaConf.update(cfg, choice.package, OmegaConf.select(alone, choice.package), merge=False)
    return cfg


def _others(chosen: Sequence[Choice], overrides: Sequence[str]) -> list[Choice]:
    """Those that choose another option than stood there; the outer ones first."""
    try:
        before = compose.with_hydra([o for o in overrides if Choice.of(o) is None]).hydra.runtime.choices
    except HydraException:  # without them there is nothing that could have been tuned
        return []
    stood = {c: before.get(c.key) for c in chosen}
    return sorted((c for c, was in stood.items() if was not in (None, c.option)), key=lambda c: c.package.count("."))
