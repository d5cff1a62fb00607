"""One of two processes of `test_policy_head.test_a_sharded_head_is_gathered_once_a_step`."""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from test_policy_head import LOGP, small
from together import leave
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from training_cases import batch_of

from alignlab import distributed
from alignlab.batch import TokenBatch
from alignlab.policy import Policy

PARTS = 3


class Gathers(TorchDispatchMode):
    """Counts how often shards are gathered."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += "allgather" in str(func)
        return func(*args, **(kwargs or {}))


def step(policy: Policy) -> int:
    """Forward and backward of the micro-batches of one optimizer step; how often the policy's shards were gathered."""
    policy.zero_grad()
    with Gathers() as gathers:
        for part in range(PARTS):
            with distributed.part_of_a_step(policy, [policy], last=part == PARTS - 1):
                policy.token_stats(batch_of(TokenBatch, part), LOGP).logp.sum().backward()
    return gathers.seen


def same(policy: Policy, wanted: dict[str, torch.Tensor]) -> None:
    # Each process has the whole batch; FSDP2 averages, so the mean of equal gradients is the gradient.
    for name, parameter in policy.named_parameters():
        assert isinstance(parameter.grad, DTensor)
        assert torch.allclose(parameter.grad.full_tensor(), wanted[name], atol=1e-9), name


dist.init_process_group("gloo")
before, after = (torch.load(Path(sys.argv[1]) / f"{which}.pt", weights_only=True) for which in ("before", "after"))

# Layers are shards of their own: the policy's are the head's and the embeddings'.
layered = small(tied=False)
for layer in layered.model.model.layers:
    fully_shard(layer)
fully_shard(layered)
assert isinstance(layered.model.lm_head.weight, DTensor)
seen = []
layered.model.lm_head.register_forward_hook(lambda *_: seen.append("the head's own forward"))
step(layered)
same(layered, before)
assert not seen

# Without layers of their own, every gathering is that of the head: one a step, and of the weights as they then are.
whole = small(tied=False)
fully_shard(whole)
for wanted in (before, after):
    gathered = step(whole)
    assert gathered == 1, f"gathered {gathered} times in a step of {PARTS} micro-batches"
    print(f"gathered {gathered} time a step")
    same(whole, wanted)
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.mul_(0.5)
leave()
