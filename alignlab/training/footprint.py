"""How much memory a training stage is expected to take: weights, gradients, moments, activations.

An estimate from the files of the model alone, within a factor of about 1.5: what a library keeps beyond it differs.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.policy.folder import CONFIG, read_object, shapes_of

WORKSPACE = 256 * 2**20
"""Bytes that the fused loss works in."""
_NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "feedforward": ("intermediate_size", "n_inner", "ffn_dim"),
}


@dataclass(frozen=True)
class ModelSize:
    """The size of a model.

    Args:
        parameters: tied ones counted once.
        layers: blocks of the body.
        width: of its hidden states.
        feedforward: inner width of its feed-forward.
    """

    parameters: int
    layers: int
    width: int
    feedforward: int

    @classmethod
    def of(cls, folder: Path) -> "ModelSize | None":
        """The size of the model in a folder, by its configuration and the headers of its weights; None if not known."""
        config = read_object(folder / CONFIG)
        config = config.get("text_config") or config
        found = {key: next((config[n] for n in names if config.get(n)), None) for key, names in _NAMES.items()}
        layers, width = found["layers"], found["width"]
        if layers is None or width is None:
            return None
        parameters = sum(math.prod(shape) for shape in shapes_of(folder).values())
        return cls(parameters, layers, width, found["feedforward"] or 4 * width)


@dataclass(frozen=True)
class Footprint:
    """The memory that a training stage holds at once.

    Args:
        size: of each of its models.
        trained: models of which all weights are trained (a policy, a critic).
        frozen: further models (a reference, the base of an adapter).
        tokens: of one forward pass, `loop.micro_batch_tokens`.
        weight_bytes: per weight: 4 in float32.
        arithmetic_bytes: per number of the matrix products: 2 in bfloat16.
        moment_bytes: of the optimizer, per trained weight: 8 for AdamW.
        checkpointed: whether activations of one block at a time are kept.
    """

    size: ModelSize
    trained: int
    frozen: int
    tokens: int
    weight_bytes: int = 4
    arithmetic_bytes: int = 4
    moment_bytes: int = 8
    checkpointed: bool = False

    @property
    def bytes(self) -> int:
        """At the peak of a step."""
        models = self.trained * (2 * self.weight_bytes + self.moment_bytes) + self.frozen * self.weight_bytes
        return self.size.parameters * models + self._activations() + WORKSPACE

    def _activations(self) -> int:
        """Of one forward pass: inputs of norms in float32, and those of attention and feed-forward."""
        size = self.size
        block = 16 * size.width + self.arithmetic_bytes * (8 * size.width + 4 * size.feedforward)
        per_token = 4 * size.width * size.layers + block if self.checkpointed else size.layers * block
        return self.tokens * per_token


def footprint(stage: type, arguments: Mapping[str, Any], size: ModelSize, runtime: Any) -> Footprint:
    """The footprint of a stage.

    Args:
        stage: its class, which may say how many models it trains (`TRAINED_MODELS`) and holds (`FROZEN_MODELS`).
        arguments: of its constructor, as they are configured.
        size: of the model that it begins with.
        runtime: where it runs.
    """
    trained, frozen = getattr(stage, "TRAINED_MODELS", 1), getattr(stage, "FROZEN_MODELS", 0)
    if arguments.get("adapter") is not None:  # its own weights are few, and the reference shares the base
        trained, frozen = 0, trained
    loop = getattr(arguments.get("loop"), "arguments", {})
    moments = getattr(getattr(arguments.get("optimizer"), "cls", None), "MOMENT_BYTES", 8)
    precision = runtime.precision
    return Footprint(
        size,
        trained,
        frozen,
        int(loop.get("micro_batch_tokens", 8192)),
        weight_bytes={"64-true": 8, "bf16-true": 2}.get(precision, 4),
        arithmetic_bytes={"64-true": 8, "32-true": 4}.get(precision, 2),
        moment_bytes=moments * (2 if precision == "64-true" else 1),
        checkpointed=runtime.checkpoint_activations,
    )
