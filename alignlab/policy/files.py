"""A policy's folder: Hugging Face's layout, with a scalar head stored as the classifier that it is.

Kept apart from the policy, which computes; this reads and writes.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from alignlab.errors import StoreError

if TYPE_CHECKING:
    import transformers

GENERATION_CONFIG, WEIGHTS, WEIGHTS_INDEX = (
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
)
"""File names of Hugging Face's layout."""
_SCORE = "score.weight"
_SCORE_SHARD = "model-score.safetensors"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of a second's work, and no warning of `score.weight`, which we read ourselves."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def add_score(folder: Path, weight: Tensor, model: "transformers.PreTrainedModel") -> None:
    """Store a scalar head `(1, d)` beside the model's weights, and say in its config that it scores."""
    if (folder / WEIGHTS_INDEX).is_file():
        _add_shard(folder, weight)
    else:
        _add_to_only_file(folder / WEIGHTS, weight)
    _call_it_a_classifier(folder, model)


def _add_shard(folder: Path, weight: Tensor) -> None:
    """A shard of its own: the others may be gigabytes, and what the index does not name is not read."""
    import safetensors.torch

    safetensors.torch.save_file({_SCORE: weight}, folder / _SCORE_SHARD, metadata={"format": "pt"})
    path = folder / WEIGHTS_INDEX
    index = json.loads(path.read_text(encoding="utf-8"))
    index["weight_map"][_SCORE] = _SCORE_SHARD
    for name, more in (("total_parameters", weight.numel()), ("total_size", weight.nbytes)):
        if name in index["metadata"]:
            index["metadata"][name] += more
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _add_to_only_file(file: Path, weight: Tensor) -> None:
    import safetensors.torch

    if not file.is_file():
        raise StoreError(f"{file.parent} holds no safetensors weights; pickled weights are not read")
    tensors = safetensors.torch.load_file(file)
    safetensors.torch.save_file({**tensors, _SCORE: weight}, file, metadata={"format": "pt"})


def _call_it_a_classifier(folder: Path, model: "transformers.PreTrainedModel") -> None:
    """Its config names the class that scores, where the architecture has one; and it generates nothing."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    config = model.config.__class__.from_pretrained(folder)
    scores = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(config.model_type)
    config.architectures = [scores or type(model).__name__]
    config.num_labels = 1
    config.id2label, config.label2id, config.problem_type = {0: "reward"}, {"reward": 0}, "regression"
    config.save_pretrained(folder)
    (folder / GENERATION_CONFIG).unlink(missing_ok=True)


def read_score_head(folder: Path, dtype: torch.dtype) -> nn.Linear | None:
    """The scalar head stored in a folder; none where there is none."""
    import safetensors

    for file in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(file, framework="pt") as stream:
            if _SCORE in stream.keys():  # noqa: SIM118 - it is no dictionary
                weight = stream.get_tensor(_SCORE).to(dtype)
                head = nn.Linear(weight.shape[1], 1, bias=False, dtype=dtype)
                with torch.no_grad():
                    head.weight.copy_(weight)
                return head
    return None
