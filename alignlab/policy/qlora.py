"""Low-rank adapters on weights that are held in 4 bits while they train, by bitsandbytes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from alignlab.errors import ConfigError
from alignlab.policy.gpu import check_gpu
from alignlab.policy.lora import LoRA
from alignlab.runtime import Runtime

if TYPE_CHECKING:
    import transformers


@dataclass(frozen=True)
class QLoRA(LoRA):
    """LoRA whose base is rounded to 4 bits (NF4) when it is loaded: a quarter of the memory of bfloat16.

    The folder of the policy stays in full precision. The linear layers but the head are rounded, in blocks of 64
    weights; embeddings, norms and head are not. The reference of the stage is the rounded base. What is published is
    the adapter, and a later stage puts it on the base in full precision: the rounding that it was trained with is gone
    there.

    Args:
        r: see `LoRA`, as alpha, target and dropout.
        double_quant: round the scales of the blocks, too; saves .4 bits per weight.

    Source: Dettmers et al. 2023, arXiv:2305.14314, sections 3 and 4.
    """

    VERSION: ClassVar[str] = "1"
    double_quant: bool = True

    @property
    def held(self) -> str:
        """NF4, with or without rounded scales."""
        return "nf4, double" if self.double_quant else "nf4"

    def check_runtime(self, runtime: Runtime) -> None:
        """Refuse to begin without bitsandbytes, or without a GPU."""
        package = "bitsandbytes", "bitsandbytes"
        check_gpu("adapter=qlora", package, "qlora", runtime, "adapter=lora keeps the base as it is")

    def hold(self, model: "transformers.PreTrainedModel") -> None:
        """Round the linear layers, one after the other, on the GPU; the model is there afterwards."""
        import bitsandbytes

        device, head = Runtime().device, model.get_output_embeddings()
        plain = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head]
        layers = [(n, m) for n, m in plain if ".lora_A." not in n and ".lora_B." not in n]
        if not layers:
            raise ConfigError("QLoRA: the model has no linear layers that can be held in 4 bits; use adapter=lora")
        for name, layer in layers:
            settings = {"compress_statistics": self.double_quant, "quant_type": "nf4"}
            made = bitsandbytes.nn.Linear4bit(
                layer.in_features, layer.out_features, layer.bias is not None, **settings, device="meta"
            )
            weight = layer.weight.detach()
            made.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, module=made, **settings)
            made.bias = layer.bias
            model.set_submodule(name, made.to(device))  # the move rounds it
        nn.Module.to(model, device)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
