"""How a tokenizer's chat template writes a prompt and a finished answer, found out once by rendering conversations.

    prompt                                    | trained                       | after
    ... <|im_start|>assistant\\n               | Yes.<|im_end|>                | \\n

The prompt is what the template writes with its generation prompt. The finished turn, rendered without one, must begin
with it: what remains, up to the token that ends the turn, is trained. What follows that token is not trained, but
stands in the context of later turns, since those are rendered whole.
"""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignlab.data.control import ControlTokens, once_per_tokenizer, pattern_of
from alignlab.data.template import Messages, check_template, owner, reason, render
from alignlab.errors import DataError, StoreError

if TYPE_CHECKING:
    import transformers

_SYSTEM, _USER, _ANSWER, _AGAIN, _RETURNED = "zsystemz", "zquestionz", "zanswerz", "zfollowupz", "zreturnedz"
_THOUGHTFUL = f"<think>\nzthoughtz\n</think>\n\n{_ANSWER}"
_ASKED = {"role": "user", "content": _USER}
_OPENINGS = ((_ASKED,), ({"role": "system", "content": _SYSTEM}, _ASKED))
_ANSWERED = {"role": "assistant", "content": _ANSWER}
_CALLED = (_ASKED, _ANSWERED, {"role": "tool", "content": _RETURNED})
_ASKED_AGAIN = (_ASKED, _ANSWERED, {"role": "user", "content": _AGAIN})


@dataclass(frozen=True)
class ChatFormat:
    """The format of one tokenizer.

    Args:
        owner: the tokenizer and its folder, for messages.
        header: what stands before an answer and is missing from the generation prompt; it is added to prompts.
        lead: what the template writes between a prompt and the answer's text (an empty thinking block); trained.
        stop: text of the token that ends an assistant's turn; the last that is trained.
        stop_id: its id.
        after: what the template writes after that token.
        anchor: end of every prompt from its last added token on; where tokenising can start without changing ids.
        drops: kinds of messages whose text the template leaves out.
        control: finds what no text of a message may turn into.
    """

    owner: str
    header: str
    lead: str
    stop: str
    stop_id: int
    after: str
    anchor: str
    drops: frozenset[str]
    control: re.Pattern[str] = field(repr=False)

    @classmethod
    def of(cls, tokenizer: "transformers.PreTrainedTokenizerBase") -> "ChatFormat":
        """The format of a tokenizer, worked out once.

        Raises:
            StoreError: there is no template, or it cannot be split at the answer; the message says what to do.
        """
        found = once_per_tokenizer(tokenizer, "chat", lambda: _find_or_error(tokenizer))
        if isinstance(found, StoreError):
            raise StoreError(*found.args) from found.__cause__
        return found


def _find_or_error(tokenizer: "transformers.PreTrainedTokenizerBase") -> ChatFormat | StoreError:
    try:
        return _find(tokenizer)
    except StoreError as error:
        return error


def _find(tokenizer: "transformers.PreTrainedTokenizerBase") -> ChatFormat:
    name = owner(tokenizer)
    check_template(tokenizer, [*_OPENINGS, *([*o, _ANSWERED] for o in _OPENINGS), _ASKED_AGAIN])
    bare, prompt, finished, lead = _finished_turn(tokenizer, name)
    header = ""
    if prompt == bare and lead.strip():  # the generation prompt adds nothing; blanks belong to the answer's first word
        header = lead.rstrip(" ")
        lead = lead[len(header) :]
    control = ControlTokens.of(tokenizer)
    suffix = finished[finished.rindex(_ANSWER) + len(_ANSWER) :]
    stop = _stop(control, suffix, name)
    anchor = _last_added(control, (prompt + header)[prompt.rindex(_USER) + len(_USER) :])
    framing = pattern_of(control.added).findall(bare)
    return ChatFormat(
        owner=name,
        header=header,
        lead=lead,
        stop=stop,
        stop_id=tokenizer.get_vocab()[stop],
        after=suffix[suffix.index(stop) + len(stop) :],
        anchor=anchor,
        drops=_drops(tokenizer),
        control=pattern_of({*control.words, stop, *framing}),
    )


def _finished_turn(tokenizer: "transformers.PreTrainedTokenizerBase", name: str) -> tuple[str, str, str, str]:
    """Renderings of a question alone, with the generation prompt, and with its answer; and the text before the answer.

    An answer with its reasoning is tried where the template has no other way to follow its generation prompt.
    """
    opening, prompt = _prompt(tokenizer, name)
    bare = _write(tokenizer, opening, False, name)
    if _USER not in prompt:
        raise StoreError(
            f"the rendered prompt does not hold the user's text: the chat template of {name} drops it, or expects "
            f"content as a list of parts; write a chat_template.jinja that reads message['content'] as text"
        )
    plain = ""
    for answer in (_ANSWER, _THOUGHTFUL):
        finished = _write(tokenizer, (*opening, {"role": "assistant", "content": answer}), False, name)
        if finished.startswith(prompt) and _ANSWER in finished[len(prompt) :]:
            lead = finished[len(prompt) : finished.rindex(_ANSWER)] if answer == _ANSWER else ""
            return bare, prompt, finished, lead
        plain = plain or finished
    raise StoreError(_cannot_split(name, prompt, plain))


def _prompt(tokenizer: "transformers.PreTrainedTokenizerBase", name: str) -> tuple[Messages, str]:
    """The shortest conversation that the template accepts, and the prompt that it makes of it."""
    refusal: DataError | None = None
    for opening in _OPENINGS:
        try:
            return opening, render(tokenizer, opening, True)
        except DataError as error:
            refusal = refusal or error
    raise StoreError(_broken(name, "question", refusal)) from refusal


def _write(tokenizer: "transformers.PreTrainedTokenizerBase", messages: Messages, opens: bool, name: str) -> str:
    try:
        return render(tokenizer, messages, opens)
    except DataError as error:
        raise StoreError(_broken(name, "answer", error)) from error


def _broken(name: str, what: str, error: BaseException | None) -> str:
    why = reason(error.__cause__ or error) if error else "it raises an error"
    return f"the chat template of {name} is broken: it cannot write a single {what}: {why}; correct chat_template.jinja"


def _cannot_split(name: str, prompt: str, finished: str) -> str:
    if _ANSWER not in finished:
        return (
            f"the rendered conversation does not hold the assistant's text: the chat template of {name} drops it; "
            f"write a chat_template.jinja that does not"
        )
    same = next((i for i, (a, b) in enumerate(zip(prompt, finished, strict=False)) if a != b), len(finished))
    return (
        f"the chat template of {name} cannot be split at the answer: its generation prompt ends in "
        f"{prompt[same:]!r}, where a finished turn has {finished[same : same + 60]!r}, so a model trained on finished "
        f"turns would be asked in another way. Write a chat_template.jinja whose finished turn begins with its "
        f"generation prompt (without an open thinking block, for answers without one)"
    )


def _stop(control: ControlTokens, suffix: str, name: str) -> str:
    """The token that ends a turn: the first control token after the answer, else the first added one."""
    for words in (control.words, control.added):
        if found := pattern_of(words).search(suffix):
            return found.group()
    raise StoreError(
        f"the chat template of {name} does not end an assistant's turn with a token of its own (after the answer it "
        f"writes {suffix[:60]!r}), so no model could learn to stop; write {{{{ eos_token }}}} after an assistant's "
        f"content in chat_template.jinja"
    )


def _last_added(control: ControlTokens, text: str) -> str:
    """The text from its last added token on; empty where it has none."""
    found = list(pattern_of(control.added).finditer(text))
    return text[found[-1].start() :] if found else ""


def _drops(tokenizer: "transformers.PreTrainedTokenizerBase") -> frozenset[str]:
    """Kinds of messages that the template leaves out silently; those that it refuses raise its own error."""
    system, again = _read(tokenizer, _OPENINGS[1]), _read(tokenizer, _ASKED_AGAIN)
    dropped = {"system message"} if system is not None and _SYSTEM not in system else set()
    if again is not None and not all(text in again for text in (_USER, _ANSWER, _AGAIN)):
        dropped.add("earlier turns")
    if (called := _read(tokenizer, _CALLED)) is not None and _RETURNED not in called:
        dropped.add("tool's result")
    return frozenset(dropped)


def _read(tokenizer: "transformers.PreTrainedTokenizerBase", messages: Messages) -> str | None:
    try:
        return render(tokenizer, messages, True)
    except DataError:
        return None
