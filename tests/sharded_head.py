"""One of two processes of `test_policy_head.test_a_sharded_head_is_gathered_by_the_policys_own_forward`."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from test_policy_head import LOGP, small
from together import leave
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from training_cases import batch_of

from alignlab.batch import TokenBatch

dist.init_process_group("gloo")
wanted = torch.load(Path(sys.argv[1]) / "gradients.pt", weights_only=True)
policy = small(tied=False)
for layer in policy.model.model.layers:
    fully_shard(layer)
fully_shard(policy)
assert isinstance(policy.model.lm_head.weight, DTensor)
seen = []
policy.model.lm_head.register_forward_hook(lambda *_: seen.append("the head's own forward"))
# Each process has the whole batch; FSDP2 averages, so the mean of equal gradients is the gradient.
policy.token_stats(batch_of(TokenBatch, 1), LOGP).logp.sum().backward()
for name, parameter in policy.named_parameters():
    assert isinstance(parameter.grad, DTensor)
    assert torch.allclose(parameter.grad.full_tensor(), wanted[name], atol=1e-9), name
assert not seen
print("gathered once")
leave()
