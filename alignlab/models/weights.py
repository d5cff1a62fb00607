"""The type of a folder's weights."""

from collections import Counter
from pathlib import Path

import torch

from alignlab.policy.folder import weight_files


def stored_dtype(folder: Path) -> torch.dtype:
    """The type of most numbers in a folder's weights; nothing but the files' headers is read."""
    from safetensors import safe_open

    found: Counter[torch.dtype] = Counter()
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 - it is not a dictionary
                part = stream.get_slice(name)
                kind: torch.dtype = part[:0].dtype if part.get_shape() else stream.get_tensor(name).dtype
                found[kind] += torch.Size(part.get_shape()).numel()
    return found.most_common(1)[0][0]
