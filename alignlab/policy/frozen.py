"""A policy that only scores another one's texts: a reference, or a teacher."""

import torch

from alignlab.artifact import Artifact
from alignlab.errors import PipelineError
from alignlab.policy.policy import Policy


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
