"""A policy's folder: Hugging Face's layout, with a scalar head stored as the classifier that it is.

Kept apart from the policy, which computes; this reads and writes.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from alignlab.errors import StoreError

_SCORE = "score.weight"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of a second's work, and no warning of `score.weight`, which we read ourselves."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _weights_file(folder: Path) -> Path:
    """The safetensors file for small additions: the only one, or the last of several."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise StoreError(f"{folder} holds no safetensors weights; pickled weights are not read")
    return files[-1]


def add_score(folder: Path, weight: Tensor, model: PreTrainedModel) -> None:
    """Store a scalar head `(1, d)` beside the model's weights, and say in its config that it scores."""
    file = _weights_file(folder)
    tensors = safetensors.torch.load_file(file)
    safetensors.torch.save_file({**tensors, _SCORE: weight}, file, metadata={"format": "pt"})
    config = model.config.__class__.from_pretrained(folder)
    config.architectures = [type(model).__name__.replace("ForCausalLM", "ForSequenceClassification")]
    config.num_labels = 1
    config.save_pretrained(folder)


def read_score_head(folder: Path, dtype: torch.dtype) -> nn.Linear | None:
    """The scalar head stored in a folder; none where there is none."""
    for file in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(file, framework="pt") as stream:
            if _SCORE in stream.keys():  # noqa: SIM118 - it is no dictionary
                weight = stream.get_tensor(_SCORE).to(dtype)
                head = nn.Linear(weight.shape[1], 1, bias=False, dtype=dtype)
                with torch.no_grad():
                    head.weight.copy_(weight)
                return head
    return None
