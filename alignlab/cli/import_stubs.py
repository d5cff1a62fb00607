"""Stand-ins for packages that are slow to import, for a command that builds stages but runs none (`plan`).

To check a configuration and make fingerprints, the constructors and class attributes of stages are needed, but nothing
of what Lightning or transformers do; importing those takes longer than all the rest of a plan. So, in a process that
will do nothing else, their names resolve to empty classes. Whatever a constructor asks of them beyond that fails, and
the command starts over without stand-ins: slower, never different.
"""

import abc
import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence
from typing import Any, Final

SLOW: Final = frozenset(
    {"pytorch_lightning", "lightning_fabric", "torchmetrics", "transformers", "datasets", "matplotlib", "wandb"}
)
SWITCH: Final = "ALIGNLAB_STAND_INS"
"""Environment variable; "0" switches stand-ins off."""

_own_process: list[bool] = []


def permit() -> None:
    """This process runs one command and ends: stand-ins harm nobody."""
    if os.environ.get(SWITCH) != "0":
        _own_process.append(True)


def use() -> bool:
    """Put stand-ins in place, where this process permits it and none of the packages is loaded; whether it was done."""
    if not _own_process or SLOW & sys.modules.keys():
        return False
    sys.meta_path.insert(0, _Finder())
    return True


def used() -> bool:
    """Whether anything was given a stand-in."""
    return any(isinstance(module, _Module) for module in list(sys.modules.values()))


def start_over(arguments: Sequence[str]) -> None:
    """Run the same command again, in this process's place, with the real packages."""
    os.environ[SWITCH] = "0"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "alignlab", *arguments])


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module of the slow packages, and makes it a stand-in."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in SLOW:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _Module(types.ModuleType):
    """Has whatever is imported from it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = _lightning_module() if name == "LightningModule" else _Anything(name, (), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class _Anything(abc.ABCMeta):
    """A class with whatever class attributes are asked of it; takes any arguments, can be subclassed and subscribed."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Anything(name, (), {"__module__": cls.__module__})

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if "__init__" in vars(cls):
            return super().__call__(*args, **kwargs)
        return object.__new__(cls)  # type: ignore[arg-type]  # mypy takes `cls` for an instance

    def __getitem__(cls, _: Any) -> Any:
        return cls


def _lightning_module() -> type[Any]:
    """A LightningModule is a torch module: stages are built on it, and torch is imported anyway."""
    import torch

    return type("LightningModule", (torch.nn.Module,), {})
