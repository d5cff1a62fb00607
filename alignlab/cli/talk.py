"""Answers to the lines of `alignlab chat`, and the spelling of a line for a tokenizer of words."""

import re
from dataclasses import dataclass, field
from typing import Any

from alignlab.errors import suggestion

_MARKS = re.compile(r"([^\w\s'’-])")


@dataclass
class Talk:
    """A model that answers lines.

    Args:
        policy: the model.
        sampling: how it answers; commands may change it.
        plain: continue each line as a text, instead of answering it as a user's turn.
        keeps: let the model see the turns before; the oldest are dropped when they no longer fit its context.
        seed: of the sampling.
    """

    policy: Any
    sampling: Any
    plain: bool = False
    keeps: bool = False
    seed: int = 0
    turns: list[tuple[str, str]] = field(default_factory=list, init=False)
    _asked: int = field(default=0, init=False)

    def __call__(self, line: str) -> str:
        """The answer to a line, or its continuation.

        Raises:
            DataError: it leaves no room for an answer, or holds a control token.
        """
        from alignlab.policy import complete, generate

        self._asked += 1
        seed = self.seed + self._asked
        if self.plain:
            return complete(self.policy, [line], self.sampling, seed)[0].text
        answer = generate(self.policy, [self._prompt(line)], self.sampling, seed)[0].text
        if self.keeps:
            self.turns.append((line, answer))
        return answer

    def _prompt(self, line: str) -> Any:
        """The conversation up to a line, as much of it as leaves room for an answer."""
        from alignlab.data.chat import encode_prompt
        from alignlab.data.records import Message, Prompt

        room = self.policy.context - min(self.sampling.max_new_tokens, self.policy.context // 2)
        while True:
            said = [m for ask, told in self.turns for m in (Message("user", ask), Message("assistant", told))]
            prompt = Prompt((*said, Message("user", line)))
            if not self.turns or len(encode_prompt(self.policy.tokenizer, prompt)) <= room:
                return prompt
            self.turns.pop(0)


# ---- words -----------------------------------------------------------------------------------------------------------
def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """The blank-separated words of a text that the tokenizer can only write as its unknown token."""
    return [w for w in text.split() if not _knows(tokenizer, w)]


def spelt(tokenizer: Any, text: str) -> str:
    """The text as a tokenizer of words can read it: marks apart from words, in lower case where only that is known.

    A text without unknown words is left as it is.
    """
    if not unknown_words(tokenizer, text):
        return text
    words = _MARKS.sub(r" \1 ", text).split()
    return " ".join(w if _knows(tokenizer, w) or not _knows(tokenizer, w.lower()) else w.lower() for w in words)


def meant(tokenizer: Any, words: list[str]) -> str:
    """Known words that are close to some unknown ones, as `; did you mean ...?`; "" where none is."""
    found = [suggestion(w.lower(), sorted(tokenizer.get_vocab())) for w in words]
    return next((text for text in found if text), "")


def _knows(tokenizer: Any, word: str) -> bool:
    unknown = tokenizer.unk_token_id
    return unknown is None or unknown not in tokenizer(word, add_special_tokens=False)["input_ids"]
