"""Rendering by a tokenizer's chat template, with one message for any failure.

A template comes with a model's folder, so it may be missing, broken, written for other conversations, or malicious.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from alignlab.data import bounded_render
from alignlab.errors import DataError, StoreError

if TYPE_CHECKING:
    import transformers

Messages: TypeAlias = Sequence[dict[str, Any]]

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

_SECONDS_TO_START = 60
"""For the process that renders; its own limit is on the time that it computes."""


def owner(tokenizer: "transformers.PreTrainedTokenizerBase") -> str:
    """A tokenizer by the folder that it came from, for messages."""
    folder = str(tokenizer.name_or_path or "")
    return f"the tokenizer of {folder}" if folder else "the tokenizer"


def render(tokenizer: "transformers.PreTrainedTokenizerBase", messages: Messages, add_generation_prompt: bool) -> str:
    """A conversation as the chat template writes it.

    Raises:
        DataError: the template refuses the conversation; with its reason.
    """
    try:
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a template is somebody else's program: it may raise anything
        raise DataError(
            f"the chat template of {owner(tokenizer)} refuses a conversation of "
            f"{', '.join(str(m['role']) for m in messages)}: {reason(error)}"
        ) from error
    return str(text)


def reason(error: BaseException) -> str:
    """First line of an error's message, or its name where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    at = f"line {line} of the template: " if (line := getattr(error, "lineno", None)) else ""
    return at + (lines[0][:300] if lines else type(error).__name__)


def check_template(tokenizer: "transformers.PreTrainedTokenizerBase", conversations: Sequence[Messages]) -> None:
    """Refuse a tokenizer whose template is missing, or does not end on these conversations.

    Raises:
        StoreError: the message says what to do.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise StoreError(
            f"{owner(tokenizer)} has no chat template: {_why_missing(tokenizer, error)}; give a chat model, or write "
            f"its template to chat_template.jinja in the folder"
        ) from error
    if template != CHAT_TEMPLATE and not _ends(_job(tokenizer, template, conversations)):
        raise StoreError(
            f"the chat template of {owner(tokenizer)} does not end: it takes more than {bounded_render.SECONDS} s or "
            f"{bounded_render.CHARACTERS} characters for a question and an answer; "
            f"write a chat_template.jinja that does"
        )


def _why_missing(tokenizer: "transformers.PreTrainedTokenizerBase", error: ValueError) -> str:
    if tokenizer.chat_template is None:
        return "it is a base model's, or chat_template.jinja was not copied with it"
    return reason(error)


def _job(tokenizer: "transformers.PreTrainedTokenizerBase", template: str, conversations: Sequence[Messages]) -> str:
    renderings = [
        {**tokenizer.special_tokens_map, "messages": list(c), "add_generation_prompt": opens}
        for c in conversations
        for opens in (True, False)
    ]
    return json.dumps({"template": template, "renderings": renderings}, default=str)


@functools.lru_cache(maxsize=64)
def _ends(job: str) -> bool:
    """Whether the renderings end; a process of its own can be stopped, which a thread cannot."""
    script = Path(bounded_render.__file__)
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(script)],
            input=job.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS_TO_START,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    except OSError:  # no process can be started here: nothing is known
        return True
    return done.returncode >= 0 and done.returncode != bounded_render.TOO_LONG
