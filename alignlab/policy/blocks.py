"""A model's blocks as the runtime asks for them: compiled, or with their activations computed again in the backward."""

import functools
import os
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from alignlab.errors import ConfigError

if TYPE_CHECKING:
    import transformers

_COMPILERS = ("CXX", "g++", "clang++", "c++")


def blocks_of(model: "transformers.PreTrainedModel") -> Sequence[nn.Module]:
    """The blocks of the body: attention and feed-forward, one after the other.

    Raises:
        ConfigError: transformers marks none in this architecture.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    found = [module for module in model.base_model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not found:
        raise ConfigError(
            f"{type(model).__name__}: transformers does not say which modules are its blocks, so they can be neither "
            f"compiled nor checkpointed; set runtime.compile and runtime.checkpoint_activations to false"
        )
    return found


def adapt_blocks(model: "transformers.PreTrainedModel", *, compiled: bool, checkpointed: bool) -> None:
    """Change how the blocks of a model run; not what they compute. Sampling, with its cache, runs them as they were.

    Args:
        model: on any device; it must not be copied afterwards.
        compiled: by torch.compile, one block after the other, for any length.
        checkpointed: keep the input of each block alone, and run it again in the backward pass.
    """
    if not compiled and not checkpointed:
        return
    for block in blocks_of(model):
        block.forward = _adapted(block.forward, compiled, checkpointed)


def check_compiler(device: torch.device) -> None:
    """Refuse to compile for a CPU without a C++ compiler, before anything trains.

    Raises:
        ConfigError: none is found.
    """
    named = [os.environ.get(name, name) for name in _COMPILERS]
    if device.type == "cpu" and not any(shutil.which(name.split()[0]) for name in named if name):
        raise ConfigError(
            "runtime.compile needs a C++ compiler (g++ or clang++, or the one that CXX names), and there is none; "
            "install one, or set runtime.compile=false"
        )


def _adapted(plain: Callable[..., Any], compiled: bool, checkpointed: bool) -> Callable[..., Any]:
    inner = torch.compile(plain, dynamic=True) if compiled else plain

    @functools.wraps(plain)
    def forward(*arguments: Any, **named: Any) -> Any:
        if named.get("past_key_values") is not None:
            return plain(*arguments, **named)
        if checkpointed and torch.is_grad_enabled():
            return checkpoint(inner, *arguments, use_reentrant=False, **named)
        return inner(*arguments, **named)

    return forward
