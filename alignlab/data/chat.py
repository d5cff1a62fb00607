"""From conversations to tokens, as the tokenizer's chat template writes them.

What is trained is what the template writes for a finished turn, up to the token that ends it. Prompt and answer are
tokenised apart and then joined, so that no token spans the boundary (what is sampled after a prompt and what is trained
after it begin alike); otherwise the tokens are those of the whole conversation rendered in one go. Special tokens come
from the chat template alone: exactly one BOS on every path.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignlab.data.chat_format import ChatFormat
from alignlab.data.control import ControlTokens, hidden_word, once_per_tokenizer, spelt_ids
from alignlab.data.marks import continued_ids, free_mark, marked, marked_ids
from alignlab.data.records import Message, Prompt
from alignlab.data.template import render
from alignlab.errors import DataError, StoreError

if TYPE_CHECKING:
    import transformers

_PROBES = (
    Prompt.user("zquestionz"),
    Prompt((Message("user", "zquestionz"), Message("assistant", "zanswerz"), Message("user", "zfollowupz"))),
)


def encode_prompt(tokenizer: "transformers.PreTrainedTokenizerBase", prompt: Prompt) -> list[int]:
    """Token ids of the conversation, up to where the answer begins.

    Raises:
        DataError: the template refuses the conversation or drops a message; or a message holds a control token, and
            could speak for somebody else with it.
        StoreError: the tokenizer has no chat template, or one that cannot be used.
    """
    chat = _format(tokenizer)
    mark = free_mark(chat, [m.content for m in prompt.messages if m.role == "assistant"])
    return marked_ids(tokenizer, _prompt_text(tokenizer, chat, prompt, mark), mark)


def encode_answer(
    tokenizer: "transformers.PreTrainedTokenizerBase", prompt: Prompt, answer: str
) -> tuple[list[int], list[bool]]:
    """Token ids of conversation, answer and stop token, and a mask that is true from the answer on.

    Control words in the answer are spelt out as text.

    Raises:
        DataError: as `encode_prompt`; or the template does not write the answer as it is.
        StoreError: as `encode_prompt`.
    """
    before, after = _encode(tokenizer, _format(tokenizer), prompt, answer)
    return before + after, [False] * len(before) + [True] * len(after)


def encode_document(tokenizer: "transformers.PreTrainedTokenizerBase", text: str) -> list[int]:
    """BOS (where the tokenizer has one), the text, and the stop token."""
    start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    return [*start, *encode_text(tokenizer, text), stop_token(tokenizer)]


def encode_text(tokenizer: "transformers.PreTrainedTokenizerBase", text: str) -> list[int]:
    """Token ids of a text; nothing is added, and what reads like a control token is spelt out as text."""
    return spelt_ids(tokenizer, text)


def decode(tokenizer: "transformers.PreTrainedTokenizerBase", ids: Sequence[int], visible: bool = False) -> str:
    """The text of an answer, without what the template writes before every answer.

    Args:
        tokenizer: that the ids are of.
        ids: of the answer, without the token that ends it.
        visible: keep control tokens, as a reader of what was sampled must see them; else they are left out.
    """
    lead = _lead_ids(tokenizer)
    said = list(ids[len(lead) :] if tuple(ids[: len(lead)]) == lead else ids)
    # Sampled text is not tidied up: a blank before a comma is part of it.
    text = tokenizer.decode(said, skip_special_tokens=not visible, clean_up_tokenization_spaces=False)
    return str(text).strip()


def stop_token(tokenizer: "transformers.PreTrainedTokenizerBase") -> int:
    """The token that ends a document."""
    if tokenizer.eos_token_id is None:
        raise DataError(f"{type(tokenizer).__name__} has no EOS token, so no model could learn to stop; set eos_token")
    return int(tokenizer.eos_token_id)


def stop_tokens(tokenizer: "transformers.PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Tokens that end a model's output: an assistant's turn (the token that is trained) and a document."""
    chat = _format_or_none(tokenizer)
    if chat is None:
        return (stop_token(tokenizer),)
    end = tokenizer.eos_token_id
    return (chat.stop_id,) if end is None or end == chat.stop_id else (chat.stop_id, int(end))


def _encode(
    tokenizer: "transformers.PreTrainedTokenizerBase", chat: ChatFormat, prompt: Prompt, answer: str
) -> tuple[list[int], list[int]]:
    mark = free_mark(chat, [answer, *(m.content for m in prompt.messages if m.role == "assistant")])
    text = _prompt_text(tokenizer, chat, prompt, mark)
    trained = _trained_text(tokenizer, chat, prompt, answer, text, mark)
    return marked_ids(tokenizer, text, mark), continued_ids(tokenizer, chat, text, trained, mark)


# ---- text ------------------------------------------------------------------------------------------------------------
def _prompt_text(tokenizer: "transformers.PreTrainedTokenizerBase", chat: ChatFormat, prompt: Prompt, mark: str) -> str:
    """The prompt as the template writes it, header included, after a check that it holds every message."""
    for message in prompt.messages:
        _check_message(tokenizer, chat, message)
    roles = {m.role for m in prompt.messages}
    for role, kind in (("system", "system message"), ("assistant", "earlier turns"), ("tool", "tool's result")):
        if role in roles and kind in chat.drops:
            raise DataError(_lost(chat, f"the {kind}", prompt.messages[0].content))
    text = render(tokenizer, [_as_dict(chat, m, mark) for m in prompt.messages], True) + chat.header
    for message in prompt.messages:
        # Of earlier answers a template may leave out the reasoning.
        said = message.content.rpartition("</think>")[2] if message.role == "assistant" else message.content
        if marked(chat, said, mark if message.role == "assistant" else "").strip() not in text:
            raise DataError(_lost(chat, f"the text of the {message.role}'s message", message.content))
    return text


def _check_message(tokenizer: "transformers.PreTrainedTokenizerBase", chat: ChatFormat, message: Message) -> None:
    if found := hidden_word(tokenizer, chat.control, message.content):
        raise DataError(
            f"the tokenizer's normalizer makes the control token {found!r} of a text that does not hold it; change the "
            f"message: {message.content[:60]!r}"
        )
    if message.role == "assistant":
        return  # spelt out, as in an answer
    if word := chat.control.search(message.content):
        raise DataError(
            f"a message holds {word.group()!r}, a control token of the tokenizer, and could speak for somebody else "
            f"with it; change the message: {message.content[:60]!r}"
        )


def _trained_text(
    tokenizer: "transformers.PreTrainedTokenizerBase",
    chat: ChatFormat,
    prompt: Prompt,
    answer: str,
    before: str,
    mark: str,
) -> str:
    """The text that the template writes after the prompt for a finished turn, up to the token that ends it."""
    messages = [*prompt.messages, Message("assistant", answer)]
    _check_message(tokenizer, chat, messages[-1])
    whole = render(tokenizer, [_as_dict(chat, m, mark) for m in messages], False)
    if not whole.startswith(before):
        raise DataError(
            f"the chat template of {chat.owner} writes this answer differently from what its generation prompt begins "
            f"({chat.anchor or before[-40:]!r}), so it cannot be split at the answer: {answer[:60]!r}"
        )
    rest = whole[len(before) :]
    end = len(rest) - len(chat.stop + chat.after) if rest.endswith(chat.stop + chat.after) else rest.rfind(chat.stop)
    if end < 0 or not _holds(rest[:end], marked(chat, answer, mark)):
        raise DataError(_lost(chat, "the whole of the answer", answer))
    return rest[:end] + chat.stop


def _holds(text: str, answer: str) -> bool:
    """Whether a text holds an answer but for blanks at its ends and around thinking tags, which templates reformat."""
    at = 0
    for part in re.split(r"</?think>", answer):
        at = text.find(part.strip(), at)
        if at < 0:
            return False
        at += len(part.strip())
    return True


def _lost(chat: ChatFormat, what: str, text: str) -> str:
    return (
        f"the rendered prompt does not hold {what}: the chat template of {chat.owner} drops or changes it; change the "
        f"template (chat_template.jinja) or the record: {text[:60]!r}"
    )


def _as_dict(chat: ChatFormat, message: Message, mark: str) -> dict[str, Any]:
    spoken = message.role == "assistant"
    return {"role": message.role, "content": marked(chat, message.content, mark) if spoken else message.content}


# ---- properties of a tokenizer ---------------------------------------------------------------------------------------
def _format(tokenizer: "transformers.PreTrainedTokenizerBase") -> ChatFormat:
    """The format, after a check on a few conversations that its ids are those of transformers' own call."""
    chat = ChatFormat.of(tokenizer)
    if once_per_tokenizer(tokenizer, "compared", lambda: any(_differs(tokenizer, chat, p) for p in _PROBES)):
        raise StoreError(
            f"{chat.owner} gives a rendered conversation other ids than its apply_chat_template does; use a tokenizer "
            f"that tokenises what its chat template writes"
        )
    return chat


def _differs(tokenizer: "transformers.PreTrainedTokenizerBase", chat: ChatFormat, prompt: Prompt) -> bool:
    """Whether the ids of an answer differ from those of the whole conversation, tokens that span the boundary aside."""
    try:
        before, after = _encode(tokenizer, chat, prompt, "zanswerz")
    except DataError:  # the template refuses such conversations
        return False
    messages = [_as_dict(chat, m, "") for m in (*prompt.messages, Message("assistant", "zanswerz"))]
    joint: Any = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    ours, added = before + after, ControlTokens.of(tokenizer).added_ids
    if joint[: len(before)] == before:
        return bool(joint[: len(ours)] != ours)
    control, theirs = ([i for i in ids if i in added] for ids in (ours, joint))
    return control != theirs[: len(control)]


def _format_or_none(tokenizer: "transformers.PreTrainedTokenizerBase") -> ChatFormat | None:
    try:
        return ChatFormat.of(tokenizer)
    except StoreError:
        return None


def _lead_ids(tokenizer: "transformers.PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Ids of the text that the template writes before every answer; none where that text is blank."""

    def find() -> tuple[int, ...]:
        chat = _format_or_none(tokenizer)
        if chat is None or not chat.lead.strip():
            return ()
        return tuple(continued_ids(tokenizer, chat, chat.anchor, chat.lead, ""))

    return once_per_tokenizer(tokenizer, "lead", find)
