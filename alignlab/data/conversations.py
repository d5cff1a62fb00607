"""Conversations out of message lists and Anthropic-HH transcripts, and the answers in them."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, get_args

from alignlab.data.records import Message, Prompt, Role

Conversation = tuple[Message, ...]

_TRANSCRIPT = re.compile(r"\s*Human:.*\n\nAssistant:", re.DOTALL)
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
_ROLES: dict[str, Role] = {role: role for role in get_args(Role)}
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_TRAINED = ("weight", "train")
"""Keys of an assistant's message that say whether it is learnt from: 0 or 1, true or false."""


def of_transcript(transcript: str) -> Conversation:
    """The turns of `"\\n\\nHuman: ...\\n\\nAssistant: ..."`; neighbouring turns of one speaker are joined.

    Raises:
        ValueError: it does not begin with a turn.

    Source: Bai et al. 2022, arXiv:2204.05862, and the files published with it.
    """
    before, *parts = _TURN.split(transcript)
    if before.strip() or not parts:
        raise ValueError('a transcript must begin with "Human:" and separate its turns by "\\n\\nAssistant: ..."')
    turns = zip(parts[::2], parts[1::2], strict=True)
    joined = ((who, [said for _, said in group]) for who, group in groupby(turns, key=lambda turn: turn[0]))
    return tuple(Message(_SPEAKERS[who], "\n\n".join(s.strip() for s in said).strip()) for who, said in joined)


def is_transcript(value: str) -> bool:
    """Whether a text is a transcript rather than something that a user wrote."""
    return _TRANSCRIPT.match(value) is not None


# ---- lists of messages -----------------------------------------------------------------------------------------------
def of_messages(value: Sequence[Any]) -> Conversation:
    """A list of `{"role", "content"}`.

    Raises:
        ValueError: it is empty, or an entry is not such a message.
    """
    if not value:
        raise ValueError("the list of messages is empty")
    return tuple(_message(m, number) for number, m in enumerate(value, start=1))


def _message(value: object, number: int) -> Message:
    if not isinstance(value, dict):
        raise ValueError(f"message {number} must be an object with role and content, found {type(value).__name__}")
    role, content = value.get("role"), value.get("content")
    if role is None and {"from", "value"} <= value.keys():
        raise ValueError(f"message {number} has from and value; rename them to role ({', '.join(_ROLES)}) and content")
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"message {number} has role {role!r}; it must be one of {', '.join(_ROLES)}")
    if not isinstance(content, str):
        calls = "; write its tool_calls into content, as the model writes them" if value.get("tool_calls") else ""
        raise ValueError(f"message {number} needs a text in content, found {type(content).__name__}{calls}")
    return Message(_ROLES[role], text(content))


def trained(value: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether each message is learnt from: not where its `weight` is 0 or its `train` is false.

    Raises:
        ValueError: a weight is neither 0 nor 1.
    """
    return [all(_on(m, key, number) for key in _TRAINED) for number, m in enumerate(value, start=1)]


def _on(message: Mapping[str, Any], key: str, number: int) -> bool:
    value = message.get(key)
    if is_missing(value):
        return True
    if value not in (0, 1):  # also true and false
        raise ValueError(f"message {number} has {key} {value!r}; it must be 0 or 1 (or true or false)")
    return bool(value)


def unused_keys(value: Sequence[Mapping[str, Any]], weighted: bool = False) -> list[str]:
    """Keys of the messages that are not read, as `tool_calls`, where they hold anything.

    Args:
        value: a list of messages.
        weighted: the assistant's `weight` and `train` are read.
    """
    filled = ((m, k) for m in value for k, v in m.items() if not is_missing(v))
    return list(dict.fromkeys(k for m, k in filled if not _read(m, k, weighted)))


def _read(message: Mapping[str, Any], key: str, weighted: bool) -> bool:
    return key in ("role", "content") or (weighted and key in _TRAINED and message.get("role") == "assistant")


def is_missing(value: object) -> bool:
    """Whether a field holds nothing: null, NaN (as tables write it), or an empty list or object."""
    if isinstance(value, list | dict):
        return not value
    return value is None or value != value


def text(value: str) -> str:
    """The text, if it is one that can be written.

    Raises:
        ValueError: it holds half of a character (a lone surrogate), as broken exports do.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"it holds {value[error.start]!r}, which is half of a character") from error
    return value


def as_prompt(conversation: Conversation) -> Prompt:
    """The conversation before an answer.

    Raises:
        ValueError: its last message is neither the user's nor a tool's, or the user says nothing.
    """
    if not conversation or conversation[-1].role not in ("user", "tool"):
        found = f"the {conversation[-1].role}'s" if conversation else "not there"
        raise ValueError(f"the message before an answer must be the user's or a tool's; it is {found}")
    if not any(message.role == "user" for message in conversation):
        raise ValueError("no message is the user's, so there is nothing to answer")
    return Prompt(conversation)


# ---- prompts and answers ---------------------------------------------------------------------------------------------
def answers(conversation: Conversation, learnt: Sequence[bool] = ()) -> list[tuple[Prompt, str]]:
    """Every assistant's turn with what came before it.

    Args:
        conversation: the turns.
        learnt: whether each turn is learnt from; by default every one is.

    Raises:
        ValueError: there is none, or one does not follow a user's turn.
    """
    turns = [i for i, m in enumerate(conversation) if m.role == "assistant"]
    if not turns:
        raise ValueError("no message is the assistant's, so there is no answer to learn from")
    return [(as_prompt(conversation[:i]), conversation[i].content) for i in turns if not learnt or learnt[i]]


def last_answer(conversation: Conversation) -> tuple[Prompt, str]:
    """The last message, which must be the assistant's, with what came before it.

    Raises:
        ValueError: the conversation does not end with an answer to the user.
    """
    if not conversation or conversation[-1].role != "assistant":
        raise ValueError("it must end with the assistant's answer")
    return as_prompt(conversation[:-1]), conversation[-1].content


def compared(chosen: Conversation, rejected: Conversation) -> tuple[Prompt, str, str]:
    """Two conversations that part at their last answer: the prompt they share, and the two answers.

    Raises:
        ValueError: one does not end with an answer, or they differ before it.
    """
    prompt, better = last_answer(chosen)
    other, worse = last_answer(rejected)
    if prompt != other:
        raise ValueError("chosen and rejected differ before their last answers, so they do not answer one prompt")
    return prompt, better, worse


def replied(prompt: Prompt, conversation: Conversation) -> tuple[Prompt, str]:
    """Prompt and answer, where the field next to a prompt holds an answer alone or the whole conversation again.

    Raises:
        ValueError: it does not end with an answer, or begins another conversation than the prompt does.
    """
    if len(conversation) == 1 and conversation[0].role == "assistant":
        return prompt, conversation[0].content
    whole, answer = last_answer(conversation)
    begun, asked = _without_system(whole), _without_system(prompt)
    if begun[: len(asked)] != asked:
        raise ValueError(
            "its conversation does not begin with the record's prompt; drop the prompt, or correct one of the two"
        )
    own, system = ([m for m in p.messages if m.role == "system"] for p in (whole, prompt))
    if own and system and own != system:
        raise ValueError("its conversation has another system message than the record's prompt; keep one of the two")
    return Prompt((*(() if own else system), *whole.messages)), answer


def _without_system(prompt: Prompt) -> Conversation:
    return tuple(m for m in prompt.messages if m.role != "system")


# ---- equal prompts ---------------------------------------------------------------------------------------------------
def prompt_key(prompt: Prompt) -> str:
    """Identity of a prompt for a split: its first user's message, as `text_key` reads it.

    Neither the system message nor later turns count, so that a question under two system messages, and all turns of a
    conversation, are in one part.
    """
    return text_key(next(m.content for m in prompt.messages if m.role == "user"))


def text_key(value: str) -> str:
    """The text without differences that a reader does not see: Unicode form (NFKC), letter case, invisible characters,
    and blanks and line breaks at its ends and in runs.

    A held-out question that differs from a training question in these alone would be a question that was trained on.
    """
    if value.isascii():  # there is nothing to normalise; of large files this is most of the time
        return " ".join(value.casefold().split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
    return " ".join(_INVISIBLE.sub("", folded).split())
