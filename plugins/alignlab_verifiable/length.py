"""Length: a target range, with a linear slope on both sides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import RewardSource
from alignlab.data.records import Prompt


@dataclass(frozen=True)
class Length(RewardSource):
    """`max(0, 1 - distance / slope)`, the distance being that of the answer's length from the range `low` to `high`.

    Args:
        low: shortest length that earns 1.
        high: longest length that earns 1.
        slope: > 0; so far outside of the range, and beyond, an answer earns 0.
        unit: in which all of these count: blank-separated words, or characters.
    """

    VERSION: ClassVar[str] = "1"
    low: int = 10
    high: int = 50
    slope: float = 20.0
    unit: Literal["words", "characters"] = "words"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError(f"Length: need 0 <= low <= high, got {self.low} and {self.high}; they are a range")
        if self.slope <= 0:
            raise ValueError(f"Length: slope must be > 0, got {self.slope}; 0.5 makes the range a hard one")
        if self.unit not in ("words", "characters"):
            raise ValueError(f"Length: unit must be words or characters, got {self.unit!r}")

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """From 0 to 1."""
        lengths = [len(a.split()) if self.unit == "words" else len(a) for a in answers]
        distances = [max(self.low - n, n - self.high, 0) for n in lengths]
        return torch.tensor([max(0.0, 1 - d / self.slope) for d in distances], dtype=torch.float32)
