"""Runtime: the devices and processes that a stage computes on, and its precision."""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from alignlab.launched import local_rank

if TYPE_CHECKING:
    import torch

Precision = Literal["32-true", "64-true", "bf16-mixed", "bf16-true"]


@dataclass(frozen=True)
class Runtime:
    """Where and how a stage computes. Only `precision` changes what is learnt, beyond rounding.

    Args:
        accelerator: "cpu", "gpu" or "auto", as Lightning knows them.
        devices: processes per node (one device each).
        num_nodes: nodes.
        strategy: "ddp" (each process holds the whole model), "fsdp2" (the model is split among them), or "auto": a
            single process where devices is 1, otherwise ddp.
        precision: "32-true", "64-true", "bf16-mixed" or "bf16-true"; part of a training stage's identity.
        threads: CPU threads of PyTorch; 0 keeps its default.
        compile: run the model's blocks by torch.compile.
        checkpoint_activations: keep the input of each block alone and run it again in the backward pass: less memory
            and a third more arithmetic.
        offload_reference: keep an online method's frozen reference on the CPU while it is not asked.
        timeout: seconds that processes wait at the start for one that is missing.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Precision = "32-true"
    threads: int = 0
    compile: bool = False
    checkpoint_activations: bool = False
    offload_reference: bool = False
    timeout: float = 120.0

    def __post_init__(self) -> None:
        for name, least in (("devices", 1), ("num_nodes", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"Runtime: {name} must be >= {least}, got {getattr(self, name)}")
        for name, known in (("accelerator", ("auto", "cpu", "gpu")), ("precision", get_args(Precision))):
            if getattr(self, name) not in known:
                raise ValueError(f"Runtime: {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.timeout <= 0:
            raise ValueError(f"Runtime: timeout must be > 0, got {self.timeout}; seconds")

    @property
    def processes(self) -> int:
        """Processes that compute together, on all nodes."""
        return self.devices * self.num_nodes

    @property
    def is_shared(self) -> bool:
        """Whether processes have to join before a stage computes."""
        return self.processes > 1 or self.strategy == "fsdp2"

    @property
    def device(self) -> "torch.device":
        """Device of this process, for computations outside of Lightning's loop."""
        import torch

        if self.accelerator == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", local_rank())

    @property
    def dtype(self) -> "torch.dtype":
        """Type of the weights."""
        import torch

        return {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(self.precision, torch.float32)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Context that Lightning's loop puts around a step, so that a reference computes as its policy does."""
        import torch

        if self.precision != "bf16-mixed":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)
