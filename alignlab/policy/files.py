"""Write a policy's folder: Hugging Face's layout, with a head that scores stored as a classifier's."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from alignlab.errors import StoreError
from alignlab.policy.folder import CONFIG, GENERATION_CONFIG, WEIGHTS, WEIGHTS_INDEX, read_object, weight_files
from alignlab.policy.score_head import REWARD, ScoreHead

if TYPE_CHECKING:
    import transformers

SCORE = "score.weight"
"""Name of the head that scores among the weights."""
_TOKEN_ROLES = ("bos_token_id", "eos_token_id", "pad_token_id")
_SCORE_SHARD = "model-score.safetensors"
_REGRESSION: Final = "regression"
"""Hugging Face's `problem_type` of a classifier whose outputs are numbers."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Switch off transformers' progress bars and warnings: those that matter are errors here."""
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


def write_folder(
    folder: Path,
    model: "transformers.PreTrainedModel",
    tokenizer: "transformers.PreTrainedTokenizerBase",
    stop_ids: Sequence[int],
) -> None:
    """Write model and tokenizer; the generation config lists the stop tokens.

    Raises:
        StoreError: the weights cannot be written.
    """
    from safetensors import SafetensorError

    with quiet():
        try:
            _save_model(folder, model)
        except SafetensorError as error:
            raise StoreError(f"{folder} cannot be written: {error}; what is finished is kept") from error
        tokenizer.save_pretrained(folder)
    write_stop_tokens(folder, stop_ids)


def _save_model(folder: Path, model: "transformers.PreTrainedModel") -> None:
    from transformers import GenerationConfig

    try:
        model.save_pretrained(folder)
    except ValueError:
        # Settings of its generation config contradict each other (a temperature, and no sampling): the trained weights
        # are worth more than the settings.
        own = model.generation_config
        model.generation_config = GenerationConfig(**{k: getattr(own, k, None) for k in _TOKEN_ROLES})
        try:
            model.save_pretrained(folder)
        finally:
            model.generation_config = own


def add_score(folder: Path, weight: Tensor, attributes: Sequence[str], model: "transformers.PreTrainedModel") -> None:
    """Store a head `(k, d)` next to the model's weights, and state in its config what it scores."""
    if (folder / WEIGHTS_INDEX).is_file():
        _add_shard(folder, weight)
    else:
        _add_to_only_file(folder / WEIGHTS, weight)
    _call_it_a_classifier(folder, attributes, model)


def _add_shard(folder: Path, weight: Tensor) -> None:
    """A shard of its own: the others may be gigabytes, and a file that the index does not name is not read."""
    import safetensors.torch

    safetensors.torch.save_file({SCORE: weight}, folder / _SCORE_SHARD, metadata={"format": "pt"})
    path = folder / WEIGHTS_INDEX
    index = json.loads(path.read_text(encoding="utf-8"))
    index["weight_map"][SCORE] = _SCORE_SHARD
    for name, more in (("total_parameters", weight.numel()), ("total_size", weight.nbytes)):
        if name in index["metadata"]:
            index["metadata"][name] += more
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _add_to_only_file(file: Path, weight: Tensor) -> None:
    import safetensors.torch

    if not file.is_file():
        raise StoreError(f"{file.parent} holds no safetensors weights; pickled weights are not read")
    tensors = safetensors.torch.load_file(file)
    safetensors.torch.save_file({**tensors, SCORE: weight}, file, metadata={"format": "pt"})


def _call_it_a_classifier(folder: Path, attributes: Sequence[str], model: "transformers.PreTrainedModel") -> None:
    """Its config names the class that scores, where the architecture has one; and it generates nothing."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    config = model.config.__class__.from_pretrained(folder)
    scores = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES.get(config.model_type)
    config.architectures = [scores or type(model).__name__]
    config.num_labels = len(attributes)
    config.id2label, config.problem_type = dict(enumerate(attributes)), _REGRESSION
    config.label2id = {name: i for i, name in enumerate(attributes)}
    config.save_pretrained(folder)
    (folder / GENERATION_CONFIG).unlink(missing_ok=True)


def read_score_head(folder: Path, dtype: torch.dtype) -> ScoreHead | None:
    """The head stored in a folder; none where there is none.

    Raises:
        StoreError: it gives several numbers that are not called scores, as a classifier of several labels does.
    """
    from safetensors import safe_open

    for file in weight_files(folder):
        with safe_open(file, framework="pt") as stream:
            if SCORE in stream.keys():  # noqa: SIM118 - it is not a dictionary
                return _score_head(folder, stream.get_tensor(SCORE).to(dtype))
    return None


def _score_head(folder: Path, weight: Tensor) -> ScoreHead:
    if weight.ndim != 2 or not len(weight):
        raise StoreError(f"{folder}: {SCORE} has the shape {tuple(weight.shape)}; a reward model's is (heads, width)")
    config = read_object(folder / CONFIG)
    if len(weight) == 1:
        return ScoreHead(weight, _labels(config, 1) or REWARD)
    names = _labels(config, len(weight))
    if config.get("problem_type") != _REGRESSION or names is None:
        raise StoreError(
            f"{folder}: {SCORE} has the shape {tuple(weight.shape)}; a reward model's is (1, width), or its {CONFIG} "
            f"says problem_type {_REGRESSION} and names each row in id2label"
        )
    return ScoreHead(weight, names)


def _labels(config: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """Names of so many labels; None where the configuration does not name each by its own."""
    found = config.get("id2label")
    if not isinstance(found, dict) or set(found) != {str(i) for i in range(count)}:
        return None
    names = tuple(str(found[str(i)]) for i in range(count))
    return names if len(set(names)) == count and not any(n.startswith("LABEL_") for n in names) else None


def write_stop_tokens(folder: Path, ids: Sequence[int]) -> None:
    """List the tokens that end an answer in the generation config, which is what other programs stop by."""
    file = folder / GENERATION_CONFIG
    config = read_object(file) if file.is_file() else {}
    known = config.get("eos_token_id")
    if set(ids) == set(known if isinstance(known, list) else [known]):
        return
    config.pop("_from_model_config", None)  # from here on it is not what config.json gives
    config["eos_token_id"] = list(ids) if len(ids) > 1 else ids[0]
    # Written by hand: transformers refuses to save many published configs once they are changed.
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
