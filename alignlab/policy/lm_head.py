"""The parts of a model: its body, and its head as weight and bias, the only parts of it that the fused loss reads.

Axes: V vocabulary, d width.
"""

import sys
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor, nn

from alignlab.errors import ConfigError

if TYPE_CHECKING:
    import transformers


def body_of(model: "transformers.PreTrainedModel") -> nn.Module:
    """The part that gives the last hidden state: the base model, or where none is named (Llama-4), what embeds."""
    from transformers import PreTrainedModel

    body: nn.Module = model.base_model
    if body is not model:
        return body
    parts = [part for part in model.children() if isinstance(part, PreTrainedModel)]
    return next((p for p in parts if p.get_input_embeddings() is model.get_input_embeddings()), body)


def head_of(model: "transformers.PreTrainedModel") -> tuple[Float[Tensor, "V d"], Float[Tensor, "V"] | None]:
    """Weight and bias of a model's head; with plain LoRA on it, the sum of base and adapters, differentiable.

    Raises:
        ConfigError: an adapter on the head is not a sum of weights.
    """
    head: Any = model.get_output_embeddings()
    if not hasattr(head, "get_base_layer"):  # no adapter, or a whole head trained in its place
        return head.weight, getattr(head, "bias", None)
    base: nn.Linear = head.get_base_layer()
    if head.base_layer is not base:
        raise _refusal(head, "more than one adapter's layer is wrapped around it")
    if head.disable_adapters and head.merged:
        head.unmerge()  # as its own forward does
    if head.disable_adapters or head.merged:
        return base.weight, base.bias
    if type(head) is not _plain_class():
        raise _refusal(head, "it is not a plain LoRA layer, and what it adds need not be a sum of weights")
    adapters = [name for name in head.active_adapters if name in head.lora_A]
    for name in adapters:
        _check_plain(head, name)
    return base.weight + sum(head.get_delta_weight(name) for name in adapters), base.bias


def _plain_class() -> Any:
    """PEFT's LoRA layer, if PEFT was imported; a model that has such a layer has imported it."""
    return getattr(sys.modules.get("peft.tuners.lora"), "Linear", None)


def _check_plain(head: Any, name: str) -> None:
    """Refuse a layer whose own forward does more than add B·A·scaling to the weight."""
    if name in head.lora_variant:
        raise _refusal(head, f"adapter {name!r} is a {type(head.lora_variant[name]).__name__}")
    if head.lora_bias[name]:
        raise _refusal(head, f"adapter {name!r} has lora_bias=True")
    dropout = head.lora_dropout[name]
    if dropout.training and getattr(dropout, "p", 0.0) > 0:
        raise _refusal(head, f"adapter {name!r} trains with lora_dropout={dropout.p}, which acts on hidden states")


def _refusal(head: Any, reason: str) -> ConfigError:
    return ConfigError(
        f"{type(head).__module__}.{type(head).__name__}: only plain LoRA may be on a model's head, since the fused "
        f"loss reads one weight there, and {reason}; merge the adapter, or keep it off the head (target_modules)"
    )
