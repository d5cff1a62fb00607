"""JsonSchema: the answer holds JSON that fits a schema."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from alignlab.data.records import Prompt
from alignlab_verifiable.checked import Checked
from alignlab_verifiable.schema import check_schema, fits

_FENCE: Final = re.compile(r"^[ \t]*```(?:json)?[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE)
_START: Final = re.compile(r"[{\[]")


@dataclass(frozen=True)
class JsonSchema(Checked):
    """Right where the answer holds JSON that fits a schema.

    Read are, of an answer that is not JSON as a whole: the first fenced block, or what begins at the first brace or
    bracket. `NaN`, `Infinity` and a key that is there twice are not JSON.

    Args:
        schema: of a subset of JSON Schema, see `alignlab_verifiable.schema`.
        amid_text: also accept JSON in a fenced block or amid other text; else the whole answer must be JSON.
        right: reward of an answer whose JSON fits.
        wrong: reward of any other.
    """

    VERSION: ClassVar[str] = "1"
    schema: Mapping[str, Any]
    amid_text: bool = True
    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        check_schema(self.schema)

    def passes(self, prompt: Prompt, answer: str) -> bool:
        """Whether the answer's JSON is there and fits."""
        try:
            return fits(self._read(answer), self.schema)
        # OverflowError: an integer that no float holds; RecursionError: thousands of brackets. Neither is an answer.
        except (ValueError, OverflowError, RecursionError):
            return False

    def _read(self, answer: str) -> Any:
        try:
            return _DECODER.decode(answer)
        except ValueError:
            if not self.amid_text:
                raise
        fenced = _FENCE.search(answer)
        text = answer if fenced is None else fenced[1]
        start = _START.search(text)
        if start is None:
            raise ValueError("no brace and no bracket")
        return _DECODER.raw_decode(text, start.start())[0]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse)
