"""A policy that only scores another one's texts: a reference, or a teacher."""

import contextlib
import copy
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from alignlab.artifact import Artifact, fingerprint
from alignlab.errors import PipelineError
from alignlab.policy import low_rank
from alignlab.policy.adapter_files import is_adapter, read_adapter
from alignlab.policy.loading import read_skeleton
from alignlab.policy.lora import LoRA
from alignlab.policy.policy import Policy

if TYPE_CHECKING:
    import transformers


def load_frozen(artifact: Artifact, asked: Policy, dtype: torch.dtype, who: str) -> Policy:
    """A policy, frozen and in evaluation mode, that scores the tokens of another.

    Args:
        artifact: the policy to load.
        asked: whose tokens it will score.
        dtype: of its weights.
        who: names the input in an error ("dpo.inputs.reference").

    Raises:
        PipelineError: its vocabulary is not the other's, so it would score other texts.
    """
    policy = Policy.load(artifact, dtype)
    if policy.tokenizer.get_vocab() != asked.tokenizer.get_vocab():
        raise PipelineError(
            f"{who}: its vocabulary differs from the policy's, so it would score other texts; give a model with the "
            f"same tokenizer"
        )
    return policy.eval().requires_grad_(False)


def frozen_copy(policy: Policy) -> Policy:
    """A policy as it is before it is trained, frozen: a copy of what is trained, without its own new adapter.

    Weights that are not trained are shared with the policy: the reference of an adapter is the model below it.
    """
    shared = {id(p): p for p in policy.parameters() if not p.requires_grad}
    copied = copy.deepcopy(policy.as_loaded(), shared).eval()
    low_rank.drop(copied.model, low_rank.OWN)
    return copied.requires_grad_(False)


@contextlib.contextmanager
def on_device(policy: Policy, device: torch.device, offload: bool) -> Iterator[Policy]:
    """The policy on a device.

    Args:
        policy: frozen.
        device: where it is asked.
        offload: bring it back to the CPU afterwards.
    """
    yield policy.to(device)
    if offload and device.type != "cpu":
        policy.to("cpu")


def trainable(policy: Policy, adapter: LoRA | None, seed: int) -> Policy:
    """A policy that was loaded, to be trained: by a new adapter, or all of its weights, into which adapters are merged.

    Args:
        policy: changed in place.
        adapter: null trains all weights.
        seed: of the adapter.
    """
    if adapter is None:
        return policy.merge_adapter()
    adapter.hold(policy.model)
    return policy.add_adapter(adapter, seed)


def skeleton(artifact: Artifact) -> "transformers.PreTrainedModel":
    """The layers of an artifact's model, without its weights; those below an adapter."""
    base = read_adapter(artifact.path).base if is_adapter(artifact.path) else artifact
    return read_skeleton(base.path)


def digest_of_vocabulary(policy: Policy) -> str:
    """SHA-256 of the tokens and their numbers."""
    return fingerprint(policy.tokenizer.get_vocab())


def digest_of_weights(policy: Policy) -> str:
    """SHA-256 of a policy's architecture and weights: for one that no folder holds as it is."""
    total = hashlib.sha256(policy.model.config.to_json_string().encode())
    for name, weight in policy.named_parameters():
        total.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        total.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
