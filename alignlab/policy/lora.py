"""Settings of low-rank adapters (LoRA): their rank, their scale, and the layers that they adapt.

`low_rank` puts them into a model.
"""

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from torch import nn

from alignlab.errors import ConfigError
from alignlab.policy.low_rank import linear_layers
from alignlab.runtime import Runtime

if TYPE_CHECKING:
    import transformers

ALL_LINEAR: Final = "all-linear"


@dataclass(frozen=True)
class LoRA:
    """Train `W x + alpha / r * B A x` in place of `W x`: the matrices A and B, which begin at random and at 0.

    What is published is A and B, with the fingerprint of the model that they belong to. A learning rate about ten times
    that of training all weights is usual.

    Args:
        r: rank, the rows of A and columns of B.
        alpha: scale; the product is multiplied by alpha / r.
        target: every linear layer but the head ("all-linear"), or the ends of the layers' names: [q_proj, v_proj].
        dropout: of what goes into A while training, 0 to 1. Stages that compare the policy with a reference or with its
            old self (DPO, PPO, ...) train without any dropout, this one included.

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1; all linear layers: Dettmers et al. 2023, arXiv:2305.14314.
    """

    VERSION: ClassVar[str] = "1"
    r: int = 16
    alpha: float = 32.0
    target: str | tuple[str, ...] = ALL_LINEAR
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.r < 1:
            raise ValueError(f"LoRA: r must be >= 1, got {self.r}; it is a rank")
        if not self.alpha > 0:
            raise ValueError(f"LoRA: alpha must be > 0, got {self.alpha}; the adapter is multiplied by alpha / r")
        if not self.target or (isinstance(self.target, str) and self.target != ALL_LINEAR):
            raise ValueError(
                f"LoRA: target must be {ALL_LINEAR} or a list of names of layers, got {self.target!r}; "
                f"for one name write [{self.target or 'q_proj'}]"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"LoRA: dropout must be in [0, 1), got {self.dropout}; it is a probability")
        check_installed("LoRA")

    @property
    def held(self) -> str:
        """How the weights below the adapter are held, where that is not as they were loaded."""
        return ""

    def check_runtime(self, runtime: Runtime) -> None:
        """Refuse a runtime that it cannot train on, before anything trains: none."""

    def hold(self, model: "transformers.PreTrainedModel") -> None:
        """Hold the weights below the adapter as it wants them: as they are."""

    def layers(self, model: "transformers.PreTrainedModel") -> list[str]:
        """Full names of the layers of a model that are adapted.

        Raises:
            ConfigError: a name fits no linear layer, or the head, whose weight is also the embedding's.
        """
        linear = dict(linear_layers(model))
        head: nn.Module = model.get_output_embeddings()
        if isinstance(self.target, str):
            return [name for name, layer in linear.items() if layer is not head]
        ends = tuple(f".{name}" for name in self.target)
        for name, end in zip(self.target, ends, strict=True):
            if not any(f".{layer}".endswith(end) for layer in linear):
                known = sorted({layer.rpartition(".")[2] for layer in linear})
                raise ConfigError(f"LoRA: target {name!r} fits no linear layer of the model; it has {', '.join(known)}")
        found = [layer for layer in linear if f".{layer}".endswith(ends)]
        tied: Any = model.get_input_embeddings()
        if any(linear[name] is head for name in found) and head.weight is tied.weight:
            raise ConfigError(
                "LoRA: target names the head, whose weight is the embedding's, too, so that the adapter could not be "
                "merged; leave it out"
            )
        return found


def check_installed(owner: str) -> None:
    """Refuse to go on without PEFT.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise ConfigError(f"{owner}: adapters need PEFT; install it with pip install 'alignlab[lora]'")
