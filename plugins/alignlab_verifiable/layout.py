"""Format: tags in their order, such as <think>...</think><answer>...</answer>."""

import re
from dataclasses import dataclass
from typing import ClassVar

from alignlab.data.records import Prompt
from alignlab_verifiable.checked import Checked, check_tag


@dataclass(frozen=True)
class Format(Checked):
    """Right where the answer is made of the tags, each opened and closed once, in their order, and not nested.

    Args:
        tags: their names, in order.
        text_outside: allow text before, between and after them; else only blanks.
        empty: allow a tag that holds blanks only.
        right: reward of an answer in this format.
        wrong: reward of any other.

    Source: the format reward of Guo et al. 2025 (DeepSeek-R1), arXiv:2501.12948, section 2.2.2.
    """

    VERSION: ClassVar[str] = "1"
    tags: tuple[str, ...] = ("think", "answer")
    text_outside: bool = False
    empty: bool = False
    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        if not self.tags or len(set(self.tags)) < len(self.tags):
            raise ValueError(f"Format: tags must be names, each once, got {list(self.tags)}")
        for tag in self.tags:
            check_tag("Format", tag)

    def passes(self, prompt: Prompt, answer: str) -> bool:
        """Whether the answer's tags are the wanted ones, and the text is where it may be."""
        # Text and tags in turn: outside, <a>, inside, </a>, outside, <b>, ...
        pieces = re.split(f"(</?(?:{'|'.join(map(re.escape, self.tags))})>)", answer)
        if pieces[1::2] != [mark for tag in self.tags for mark in (f"<{tag}>", f"</{tag}>")]:
            return False
        outside, within = pieces[0::4], pieces[2::4]
        tidy = self.text_outside or not any(map(str.strip, outside))
        return tidy and (self.empty or all(map(str.strip, within)))
