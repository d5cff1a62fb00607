"""Lightning's strategy and cluster of a runtime, where several processes train together.

`alignlab.pipeline.ranks` has started and joined the processes by then. Left out: tensor parallelism, FSDP1.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from torch import distributed as dist

from alignlab import distributed
from alignlab.runtime import Runtime

SHARDED: Final = "fsdp2"


class Joined(ClusterEnvironment):
    """The processes of the group that this one has joined already.

    Args:
        local_world: processes on each machine.
    """

    def __init__(self, local_world: int) -> None:
        super().__init__()
        self._local_world = local_world

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise RuntimeError("the processes have met already")

    @property
    def main_port(self) -> int:
        raise RuntimeError("the processes have met already")

    @staticmethod
    def detect() -> bool:
        return dist.is_available() and dist.is_initialized()

    def world_size(self) -> int:
        return dist.get_world_size()

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return dist.get_rank()

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return dist.get_rank() % self._local_world

    def node_rank(self) -> int:
        return dist.get_rank() // self._local_world


class Sharded(ModelParallelStrategy):
    """FSDP2 over all processes, with checkpoints that are the same as those of one process.

    Weights and moments are gathered for a checkpoint, and split again when it is read: any number of processes, by any
    strategy, continues it.
    """

    def __init__(self, processes: int) -> None:
        # "auto" would split every layer's product among the processes of a machine (tensor parallelism).
        super().__init__(data_parallel_size=processes, tensor_parallel_size=1, save_distributed_checkpoint=False)

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return dict(distributed.full_state(self.lightning_module.state_dict()))

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        optimizer = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return dict(distributed.full_state(optimizer.state_dict()))

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            placed = {
                number: {key: _placed(value, weights[number]) for key, value in moments.items()}
                for number, moments in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": placed})


def _placed(value: Any, weight: torch.Tensor) -> Any:
    return distributed.placed_as(value, weight) if isinstance(value, torch.Tensor) else value


def strategy_of(runtime: Runtime) -> str | Strategy:
    """The strategy that a runtime names, for Lightning's Trainer."""
    if runtime.strategy == SHARDED:
        return Sharded(runtime.processes)
    return "ddp" if runtime.strategy == "auto" and runtime.processes > 1 else runtime.strategy


def plugins_of(runtime: Runtime) -> list[Any]:
    """The cluster of processes that have met; Lightning finds out by itself where they have not."""
    return [Joined(runtime.devices)] if Joined.detect() else []
