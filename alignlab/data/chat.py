"""From conversations to tokens, in one way only.

Prompt and answer are tokenised apart and then joined, so that no token spans the boundary (what is sampled after a
prompt and what is trained on after it begin alike). Special tokens come from the chat template alone: exactly one
BOS on every path. The stop token ends every answer, and is trained.
"""

from collections.abc import Sequence
from typing import Any

from alignlab.data.records import Message, Prompt
from alignlab.data.types import PreTrainedTokenizerBase
from alignlab.errors import DataError

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<' + message['role'] + '>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""For tokenizers that the lab trains; `<system>`, `<user>` and `<assistant>` are tokens of their own. What is generated
is marked, so that `return_assistant_tokens_mask=True` of transformers gives the mask that is trained on here."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of the conversation, up to where the answer begins.

    Raises:
        DataError: a message holds a control token of the tokenizer, and could speak for somebody else with it.
    """
    for message in prompt.messages:
        for token in control_tokens(tokenizer):
            if token in message.content:
                raise DataError(
                    f"a message holds {token!r}, a control token of the tokenizer; change it, or leave such records "
                    f"out with on_bad_record=skip: {message.content[:60]!r}"
                )
    messages = _as_dicts(prompt.messages)
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(str(text), add_special_tokens=False)["input_ids"]
    return ids


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Texts that the tokenizer takes for control tokens, whether or not they have a role by name."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)


def encode_answer(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, answer: str) -> tuple[list[int], list[bool]]:
    """Token ids of conversation, answer and stop token, and a mask that is true from the answer on."""
    before = encode_prompt(tokenizer, prompt)
    after = [*encode_text(tokenizer, answer), stop_token(tokenizer)]
    return before + after, [False] * len(before) + [True] * len(after)


def encode_document(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """BOS (where the tokenizer has one), the text, and the stop token."""
    start = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    return [*start, *encode_text(tokenizer, text), stop_token(tokenizer)]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text; nothing is added, and what reads like a control token is spelt out as text."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of an answer, special tokens left out."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def stop_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer."""
    if tokenizer.eos_token_id is None:
        raise DataError(f"{type(tokenizer).__name__} has no EOS token, so no model could learn to stop; set eos_token")
    return int(tokenizer.eos_token_id)


def _as_dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{"role": m.role, "content": m.content} for m in messages]
