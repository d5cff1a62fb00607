"""Read a policy's folder: every weight of the model comes from the folder, and every weight in the folder is used.

Libraries fill in what a folder lacks by random numbers, and say so in a log. Here it is an error.
"""

import contextlib
import itertools
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignlab.data.template import reason
from alignlab.errors import StoreError
from alignlab.policy.files import SCORE, quiet, read_score_head
from alignlab.policy.folder import CONFIG, Shapes, check_folder
from alignlab.policy.llama import skeleton_of
from alignlab.policy.load_settings import LoadSettings
from alignlab.policy.tokenizer_files import load_tokenizer

if TYPE_CHECKING:
    import transformers

    from alignlab.policy.score_head import ScoreHead

_MORE_THAN_STORED = 4
"""A model with more parameters per stored one than this is not even built: the rest would be missing."""
_MOST_BUFFERS = 2**31
"""Numbers in a model's buffers (causal masks, ...) that are always allowed."""
_LOADING = threading.RLock()
"""transformers replaces its own `tie_weights` while it loads a model. Two threads at once could leave it replaced, and
no model of the process would be tied any more."""
_WRAPPERS = {
    "_orig_mod.": "torch.compile writes them: save the model that was compiled (model._orig_mod.save_pretrained(...))",
    "module.": "DDP and DataParallel write them: save the wrapped model (model.module.save_pretrained(...))",
    "base_model.model.": "PEFT writes them: merge the adapter (model.merge_and_unload().save_pretrained(...))",
}


def read_folder(
    folder: Path, dtype: torch.dtype
) -> "tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase, ScoreHead | None]":
    """Model, tokenizer and, where there is one, the head that scores.

    Remote code is never run, pickled weights never read. What the folder says of how it is to be loaded goes before
    `dtype`.

    Raises:
        StoreError: the folder holds no model, a damaged one, or not the one that its files describe.
    """
    shapes, settings = check_folder(folder), LoadSettings.read(folder)
    dtype = settings.type_of_weights(dtype)
    with _LOADING, quiet():
        config = _read_config(folder)
        _check_size(folder, config, shapes)
        model = _load_model(folder, dtype, settings)
        head = read_score_head(folder, dtype)
        embedding: Any = model.get_input_embeddings()
        tokenizer = load_tokenizer(folder, config, len(embedding.weight))
    return model, tokenizer, head


@contextlib.contextmanager
def _one_message(folder: Path, what: str) -> Iterator[None]:
    """Whatever a library raises about a foreign folder, as one line."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # a foreign configuration may make anything fail
        raise StoreError(f"{folder}: its {what} cannot be loaded: {reason(error)}") from error


def read_skeleton(folder: Path) -> "transformers.PreTrainedModel":
    """The layers of the model in a folder, without its weights.

    Raises:
        StoreError: see `read_folder`.
    """
    check_folder(folder)
    with quiet(), _one_message(folder, CONFIG):
        return skeleton_of(_read_config(folder))


# ---- before weights are read -----------------------------------------------------------------------------------------
def _read_config(folder: Path) -> "transformers.PreTrainedConfig":
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    with _one_message(folder, CONFIG):
        config: transformers.PreTrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise StoreError(
                f"{folder}: a model of type {config.model_type!r} is not a causal language model; give one that is"
            )
    return config


def _check_size(folder: Path, config: "transformers.PreTrainedConfig", shapes: Shapes) -> None:
    """Compare the parameters that the configuration describes with the stored ones, before they are given memory."""
    try:
        skeleton: Any = skeleton_of(config)
    except Exception:  # the model itself will fail alike, with a message of its own
        return
    stored = sum(torch.Size(shape).numel() for shape in shapes.values())
    for what, tensors, most in (
        ("parameters", skeleton.parameters(), 0),
        ("buffers", skeleton.buffers(), _MOST_BUFFERS),
    ):
        described = sum(t.numel() for t in tensors)
        if described > max(most, _MORE_THAN_STORED * stored):
            raise StoreError(
                f"{folder / CONFIG} describes {what} of {described} numbers, and the weights have {stored}; correct it"
            )


def _mismatch(folder: Path, wrong: Collection[tuple[str, Any, Any]]) -> str:
    shown = "; ".join(
        f"{n} is {tuple(stored)}, not {tuple(wanted)}" for n, stored, wanted in itertools.islice(wrong, 3)
    )
    more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return (
        f"{folder}: {CONFIG} gives another shape for {len(wrong)} of its tensors: {shown}{more}; correct {CONFIG}, or "
        f"copy the folder again"
    )


# ---- weights ---------------------------------------------------------------------------------------------------------
def _load_model(folder: Path, dtype: torch.dtype, settings: LoadSettings) -> "transformers.PreTrainedModel":
    from transformers import AutoModelForCausalLM

    chosen = {} if settings.attention is None else {"attn_implementation": settings.attention}
    with _one_message(folder, f"model with attention {settings.attention}" if chosen else "model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # so that they are listed; they are an error all the same
            output_loading_info=True,
            **chosen,
        )
    model: transformers.PreTrainedModel = loaded[0]
    if model.config.model_type == "rwkv":  # else it halves its weights in evaluation, and is published so
        model.config.rescale_every = 0
    found = loaded[1]
    if found["mismatched_keys"]:
        raise StoreError(_mismatch(folder, sorted(found["mismatched_keys"])))
    missing, unused = set(found["missing_keys"]), set(found["unexpected_keys"]) - {SCORE}
    if SCORE in found["unexpected_keys"] and missing and missing <= _head_names(model):
        _silence_head(model)
        missing = set()
    if missing or unused or found["error_msgs"]:
        raise StoreError(_misfit(folder, missing, unused, len(model.state_dict()), found["error_msgs"]))
    return model


def _head_names(model: "transformers.PreTrainedModel") -> set[str]:
    mine = {id(p) for p in model.get_output_embeddings().parameters()}
    return {name for name, p in model.named_parameters() if id(p) in mine}


@torch.no_grad()
def _silence_head(model: "transformers.PreTrainedModel") -> None:
    """A classifier's folder has no language-model head; it gets zeros, since random numbers would differ by load."""
    for parameter in model.get_output_embeddings().parameters():
        parameter.zero_()


def _misfit(folder: Path, missing: set[str], unused: set[str], total: int, errors: Collection[str]) -> str:
    parts = [f"{len(missing)} of {total} tensors are missing ({_names(missing)})"] if missing else []
    parts += [f"{len(unused)} are not used ({_names(unused)})"] if unused else []
    parts += [str(e).splitlines()[0] for e in errors]
    return f"{folder}: its weights do not fit its {CONFIG}: {' and '.join(parts)}; {_remedy(missing, unused)}"


def _names(names: Collection[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")


def _remedy(missing: set[str], unused: set[str]) -> str:
    """Advice, by the form of the unused names."""
    if any("lora_" in name or ".base_layer." in name for name in unused):
        return f"the unused names are PEFT's: {_WRAPPERS['base_model.model.'].partition(': ')[2]}"
    prefixes = {u[: -len(m)] for u in sorted(unused)[:50] for m in missing if u.endswith(f".{m}")}
    for prefix in sorted(prefixes, key=len):
        why = _WRAPPERS.get(prefix, "a wrapper writes them: save the model inside it, or rename the tensors")
        return f"the unused names begin with {prefix!r}, as {why}"
    if not unused:
        return "copy the whole checkpoint, or correct the number of layers"
    return f"give the {CONFIG} that these weights were trained with"
