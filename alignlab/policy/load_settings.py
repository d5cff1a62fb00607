"""How an imported model is loaded by every stage: the type of its weights, and its attention.

They stand in the folder's config.json below a key of their own. transformers keeps keys that it does not know, so
whatever is trained from the model has them, too.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from alignlab.errors import StoreError
from alignlab.policy.folder import CONFIG, read_object

if TYPE_CHECKING:
    import torch

Attention: TypeAlias = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
WeightType: TypeAlias = Literal["float32", "bfloat16", "float16"]
_KEY: Final = "alignlab"


@dataclass(frozen=True)
class LoadSettings:
    """Settings that a model carries along.

    Args:
        dtype: of its weights; None leaves it to the precision of each run.
        attention: transformers' implementation; None takes its default.
    """

    dtype: WeightType | None = None
    attention: Attention | None = None

    @classmethod
    def read(cls, folder: Path) -> "LoadSettings":
        """The settings of a folder; none where it has none.

        Raises:
            StoreError: they are not those that are written here.
        """
        found = read_object(folder / CONFIG).get(_KEY) or {}
        known: dict[str, Any] = {"dtype": get_args(WeightType), "attention": get_args(Attention)}
        if not isinstance(found, dict) or any(v is not None and v not in known.get(k, ()) for k, v in found.items()):
            raise StoreError(f"{folder / CONFIG}: {_KEY} must hold dtype and attention, got {found!r:.80}; correct it")
        return cls(**found)

    def write(self, folder: Path) -> None:
        """Put them into a folder's config.json."""
        config = read_object(folder / CONFIG)
        config.pop(_KEY, None)
        if chosen := {k: v for k, v in asdict(self).items() if v is not None}:
            config[_KEY] = chosen
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
        (folder / CONFIG).write_text(f"{text}\n", encoding="utf-8")

    def type_of_weights(self, otherwise: "torch.dtype") -> "torch.dtype":
        """The type in which weights are loaded."""
        import torch

        chosen: torch.dtype = otherwise if self.dtype is None else getattr(torch, self.dtype)
        return chosen
