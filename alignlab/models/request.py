"""Imported: which model to bring in, and how it is to be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from alignlab.data.builtin_templates import BUILT_IN
from alignlab.errors import suggestion
from alignlab.policy.load_settings import Attention, WeightType

Dtype: TypeAlias = Literal["auto"] | WeightType


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere.

    Args:
        name_or_path: a folder in Hugging Face layout, or a name on the hub: `Qwen/Qwen2.5-0.5B-Instruct`.
        revision: branch, tag or commit on the hub; null takes `main`.
        dtype: of its weights, in every stage that loads it; auto keeps the stored one, and lets each run's precision
            decide.
        attention: transformers' implementation, in every stage that loads it; null takes its default.
        chat_template: a file, or a built-in one by name; null keeps the tokenizer's own.
        add_tokens: texts that become tokens of their own. Those that the chat template writes are control tokens.
    """

    name_or_path: str
    revision: str | None = None
    dtype: Dtype = "auto"
    attention: Attention | None = None
    chat_template: str | None = None
    add_tokens: Sequence[str] = ()

    def __post_init__(self) -> None:
        who = type(self).__name__
        if not self.name_or_path.strip():
            raise ValueError(f"{who}: name_or_path is empty; give a folder, or a name on the Hugging Face hub")
        if self.revision is not None and (not self.revision.strip() or self.folder.is_dir()):
            raise ValueError(
                f"{who}: revision {self.revision!r} belongs to a name on the hub, not to a folder; drop it"
            )
        if blank := [token for token in self.add_tokens if not token.strip()]:
            raise ValueError(f"{who}: add_tokens holds {blank[0]!r}; a token needs a text")
        self.template()

    @property
    def folder(self) -> Path:
        """The path that was given; there need not be a folder."""
        return Path(self.name_or_path).expanduser()

    def template(self) -> str | None:
        """Text of the chat template that replaces the tokenizer's own; None where its own stays.

        Raises:
            ValueError: it is neither a file nor the name of a built-in one.
        """
        given = self.chat_template
        if given is None:
            return None
        if given in BUILT_IN:
            return BUILT_IN[given]
        try:
            return Path(given).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            meant = suggestion(given, list(BUILT_IN))
            raise ValueError(
                f"{type(self).__name__}: chat_template {given!r} is neither a file that can be read nor one of "
                f"{', '.join(BUILT_IN)}{meant} ({getattr(error, 'strerror', None) or 'not UTF-8'})"
            ) from error
