"""The Hugging Face hub: where a model lies in its cache, and one message where it does not.

What the cache has is taken as it is: a branch that has moved since on the hub changes nothing until it is downloaded
again. So a run is the same with and without a network.
"""

import re
from pathlib import Path
from typing import Any, Final, NoReturn

from alignlab.errors import StoreError
from alignlab.policy.folder import CONFIG, weight_files

NAME: Final = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
FILES: Final = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""Files that are downloaded: neither pickled weights nor code."""
_MAIN: Final = "main"
_SECONDS: Final = 10
"""Patience with the hub before it counts as out of reach."""


def cached(name: str, revision: str | None) -> Path | None:
    """The snapshot of a model in the hub's cache, where it is there with its weights."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, CONFIG, revision=revision or _MAIN)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    try:
        weight_files(folder)
    except StoreError:  # the download stopped half-way, or took other files
        return None
    return folder


def commit_of(name: str, revision: str | None) -> str:
    """The commit of a model on the hub, asked for over the network.

    Raises:
        StoreError: it cannot be had; the message says why, and what to do.
    """
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(name, revision=revision, timeout=_SECONDS)
    except Exception as error:  # of the network, or of the hub: each has classes of its own
        _refuse(name, revision, error)
    files = [str(sibling.rfilename) for sibling in found.siblings or ()]
    if not any(file.endswith(".safetensors") and "/" not in file for file in files):
        pickled = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt"))]
        raise StoreError(
            f"{name} has no safetensors weights on the hub ({', '.join(pickled[:3]) or 'no weights at all'}); pickled "
            f"weights are not read, since they can run code: take a revision that has them, or convert it elsewhere "
            f"(save_pretrained) and give the folder"
        )
    return str(found.sha)


def download(name: str, commit: str) -> Path:
    """Fetch the files of a model into the hub's cache.

    Raises:
        StoreError: the download fails; what is there is kept.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=list(FILES)))
    except Exception as error:
        _refuse(name, commit, error)


def _refuse(name: str, revision: str | None, error: Exception) -> NoReturn:
    at = "" if revision in (None, _MAIN) else f" --revision {revision}"
    folder = name.rpartition("/")[2]
    how = (
        f"where there is a network, run `hf download {name}{at} --local-dir {folder}`, and give the folder as "
        f"name_or_path"
    )
    where = f"the model {name} is not on this machine (no folder of that name, nor in the cache of the hub)"
    raise StoreError(f"{where}, and {_why(name, revision, error)}; {how}") from error


def _why(name: str, revision: str | None, error: Exception) -> str:
    """The reason why the hub does not give a model."""
    from huggingface_hub import errors

    kinds: list[tuple[Any, str]] = [
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE forbids to ask the hub for it"),
        (
            errors.GatedRepoError,
            f"it is gated: accept its terms on https://huggingface.co/{name}, and log in (hf auth login)",
        ),
        (
            errors.RepositoryNotFoundError,
            "the hub has none of that name, or it is private: correct the name, or log in (hf auth login)",
        ),
        (errors.RevisionNotFoundError, f"the hub has no revision {revision!r} of it"),
        (errors.HFValidationError, "that is neither a folder nor a name that the hub could have"),
    ]
    for kind, why in kinds:
        if isinstance(error, kind):
            return why
    said = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return f"the hub cannot be reached ({said})"
