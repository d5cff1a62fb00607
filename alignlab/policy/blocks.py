"""A model's blocks as the runtime asks for them: compiled, or with their activations computed again in the backward."""

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from alignlab.errors import ConfigError
from alignlab.policy.lm_head import body_of

if TYPE_CHECKING:
    import transformers

_COMPILERS = ("CXX", "g++", "clang++", "c++")


@dataclass(frozen=True)
class BlockOptions:
    """How blocks run; none of it changes what they compute, beyond rounding.

    Args:
        compiled: by torch.compile, one block after the other, for any length. On a GPU, whole batches then stand in one
            row without padding (`layout`), by FlexAttention.
        checkpointed: keep the input of each block alone, and run it again in the backward pass.
    """

    compiled: bool = False
    checkpointed: bool = False

    def check(self, device: torch.device) -> None:
        """Refuse to compile for a CPU without a C++ compiler, before anything trains.

        Raises:
            ConfigError: none is found.
        """
        named = [os.environ.get(name, name) for name in _COMPILERS]
        if self.compiled and device.type == "cpu" and not any(shutil.which(n.split()[0]) for n in named if n):
            raise ConfigError(
                "runtime.compile needs a C++ compiler (g++ or clang++, or the one that CXX names), and there is none; "
                "install one, or set runtime.compile=false"
            )


def blocks_of(model: "transformers.PreTrainedModel") -> Sequence[nn.Module]:
    """The blocks of the body: attention and feed-forward, one after the other.

    Raises:
        ConfigError: transformers marks none in this architecture.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    found = [module for module in body_of(model).modules() if isinstance(module, GradientCheckpointingLayer)]
    if not found:
        raise ConfigError(
            f"{type(model).__name__}: transformers does not say which modules are its blocks, so they can be neither "
            f"compiled nor checkpointed; set runtime.compile and runtime.checkpoint_activations to false"
        )
    return found


def adapt_blocks(model: "transformers.PreTrainedModel", options: BlockOptions) -> None:
    """Let the blocks of a model run as asked. Sampling, which keeps a cache, runs them as they were.

    Until `restore_blocks`, the model can be neither copied nor sent to another process.
    """
    restore_blocks(model)
    if options != BlockOptions():
        for block in blocks_of(model):
            block.forward = _adapted(block.forward, model.config, options)


def restore_blocks(model: "transformers.PreTrainedModel") -> None:
    """Undo `adapt_blocks`."""
    for module in body_of(model).modules():
        if getattr(module.__dict__.get("forward"), "is_adapted", False):
            del module.forward


def _adapted(plain: Callable[..., Any], config: "transformers.PreTrainedConfig", options: BlockOptions) -> Any:
    inner = torch.compile(plain, dynamic=True) if options.compiled else plain

    def run(*arguments: Any, **named: Any) -> Any:
        # Not around the whole body: a block that is run again in the backward pass needs the same attention.
        with _attention_for([*arguments, *named.values()], config):
            return inner(*arguments, **named)

    @functools.wraps(plain)
    def forward(*arguments: Any, **named: Any) -> Any:
        if named.get("past_key_values") is not None:
            return plain(*arguments, **named)
        if options.checkpointed and torch.is_grad_enabled():
            return checkpoint(run, *arguments, use_reentrant=False, **named)
        return run(*arguments, **named)

    forward.is_adapted = True  # type: ignore[attr-defined]
    return forward


@contextlib.contextmanager
def _attention_for(arguments: Sequence[Any], config: "transformers.PreTrainedConfig") -> Iterator[None]:
    """FlexAttention where the mask is one of its own."""
    own = config._attn_implementation
    if any(type(argument).__name__ == "BlockMask" for argument in arguments):
        config._attn_implementation = "flex_attention"
    try:
        yield
    finally:
        config._attn_implementation = own
