"""One of two processes of `test_policy_head.test_processes_of_other_lengths_gather_the_same_layers`."""

import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from test_policy_head import LOGP, UNEVEN, small
from together import leave
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

dist.init_process_group("gloo", timeout=timedelta(seconds=30))
wanted = torch.load(Path(sys.argv[1]) / "wanted.pt", weights_only=True)
mine = UNEVEN[sys.argv[2]][dist.get_rank()]
policy = small(tied=False)
for layer in policy.model.model.layers:
    fully_shard(layer)
fully_shard(policy)
logp = policy.token_stats(mine(), LOGP).logp
assert torch.allclose(logp, wanted["logp"][dist.get_rank()], atol=1e-9)
logp.sum().backward()
agree = 0
for name, parameter in policy.named_parameters():
    assert isinstance(parameter.grad, DTensor)
    assert torch.allclose(parameter.grad.full_tensor(), wanted[name] / 2, atol=1e-9), name  # FSDP2 averages
    agree += 1
print(f"log-probabilities and {agree} gradients agree")
leave()
