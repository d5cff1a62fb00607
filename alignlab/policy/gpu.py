"""Checks for a GPU and a package that few have installed, before anything trains."""

import importlib.util

import torch

from alignlab.errors import ConfigError
from alignlab.runtime import Runtime


def check_gpu(owner: str, package: tuple[str, str], extra: str, runtime: Runtime, instead: str) -> None:
    """Refuse to begin without a package and a CUDA GPU.

    Args:
        owner: what needs them, as it is written: "rollout=vllm".
        package: its name, and that of its module.
        extra: of alignlab, that installs it.
        runtime: must use the GPU.
        instead: what does without them.

    Raises:
        ConfigError: names all that is missing.
    """
    name, module = package
    missing = []
    if importlib.util.find_spec(module) is None:
        missing.append(f"{name}, which is not installed (pip install 'alignlab[{extra}]')")
    if runtime.accelerator == "cpu" or not has_gpu():
        missing.append("a CUDA GPU, which is not there or not used (runtime=gpu)")
    if missing:
        raise ConfigError(f"{owner}: needs {' and '.join(missing)}; {instead}")


def has_gpu() -> bool:
    """Whether there is a CUDA device."""
    return torch.cuda.is_available()
