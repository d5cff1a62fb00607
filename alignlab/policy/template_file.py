"""The chat template of a model's folder."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alignlab.policy.folder import read_object

if TYPE_CHECKING:
    import transformers

CHAT_TEMPLATE: Final = "chat_template.jinja"
_OLD: Final = ("chat_template.json",)
_TOKENIZER: Final = "tokenizer_config.json"


def own_template(tokenizer: "transformers.PreTrainedTokenizerBase") -> str:
    """Text of a tokenizer's template, or of all of them where it has several by name; empty where it has none."""
    found: object = tokenizer.chat_template
    return "\n".join(map(str, found.values())) if isinstance(found, dict) else str(found or "")


def write_template(folder: Path, template: str) -> None:
    """Give a folder a chat template in place of its own, wherever that stands."""
    (folder / CHAT_TEMPLATE).write_text(template, encoding="utf-8")
    for name in _OLD:
        (folder / name).unlink(missing_ok=True)
    if (folder / _TOKENIZER).is_file():
        config = read_object(folder / _TOKENIZER)
        if config.pop("chat_template", None) is not None:
            text = json.dumps(config, indent=2, ensure_ascii=False)
            (folder / _TOKENIZER).write_text(f"{text}\n", encoding="utf-8")
