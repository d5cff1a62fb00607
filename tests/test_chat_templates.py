"""Templates that lose, change or refuse a text, are missing or broken, or never end: one message, or none is needed."""

from typing import Any

import pytest
from chat_templates import (
    CHATML,
    GEMMA,
    bpe,
)

from alignlab.data.chat import encode_answer, encode_prompt, stop_tokens
from alignlab.data.records import Message, Prompt
from alignlab.errors import DataError, StoreError

ASKED = Message("user", "the cat")


def answer_ids(tokenizer: Any, prompt: Prompt, answer: str) -> list[int]:
    ids, mask = encode_answer(tokenizer, prompt, answer)
    return [i for i, m in zip(ids, mask, strict=True) if m]


# ---- what gets lost --------------------------------------------------------------------------------------------------
PARTS = CHATML.replace("m['content']", "(m['content'] | selectattr('type') | map(attribute='text') | join)")
DROPS_SYSTEM = "{% for m in messages if m['role'] != 'system' %}" + CHATML.partition("%}")[2]


def test_a_template_that_loses_a_message_is_refused() -> None:
    with pytest.raises(StoreError, match="does not hold the user's text"):
        encode_prompt(bpe(PARTS), Prompt((ASKED,)))
    with pytest.raises(StoreError, match="does not hold the assistant's text"):
        encode_prompt(
            bpe("{% for m in messages if m['role'] != 'assistant' %}" + CHATML.partition("%}")[2]), Prompt((ASKED,))
        )
    system = Prompt((Message("system", "cat"), ASKED))  # whose text is in the user's too
    with pytest.raises(DataError, match=r"does not hold the system message.*drops"):
        encode_prompt(bpe(DROPS_SYSTEM), system)
    assert encode_prompt(bpe(DROPS_SYSTEM), Prompt((ASKED,)))
    last = bpe(CHATML.replace("in messages", "in (messages[-1:] if add_generation_prompt else messages)"))
    with pytest.raises(DataError, match="does not hold the earlier turns"):
        encode_prompt(last, Prompt((ASKED, Message("assistant", "cat"), ASKED)))


@pytest.mark.parametrize("change", ["upper", "truncate(9, True, '')", "replace('cat', 'dog')"])
def test_a_template_that_changes_a_text_is_refused(change: str) -> None:
    changed = CHATML.replace("m['content']", f"(m['content'] if m['content'][0] == 'z' else m['content'] | {change})")
    with pytest.raises(DataError, match="does not hold the text of the user's message"):
        encode_prompt(bpe(changed), Prompt.user("a cat on the mat"))
    asks = changed.replace("if m['content'][0] == 'z'", "if m['role'] == 'user' or m['content'][0] == 'z'")
    with pytest.raises(DataError, match="does not hold the whole of the answer"):
        encode_answer(bpe(asks), Prompt.user("yes"), "a cat on the mat")


def test_what_the_template_trims_is_not_lost() -> None:
    tokenizer = bpe(GEMMA)
    assert tokenizer.decode(answer_ids(tokenizer, Prompt.user("  cat \n"), "\n yes ")) == "yes<end_of_turn>"


# ---- templates that fail ---------------------------------------------------------------------------------------------
def test_a_missing_template_is_named() -> None:
    for encode in (encode_prompt, lambda t, p: encode_answer(t, p, "yes")):
        with pytest.raises(StoreError, match=r"^the tokenizer of some/folder has no chat template: .*chat_template"):
            tokenizer = bpe(None)
            tokenizer.name_or_path = "some/folder"
            encode(tokenizer, Prompt((ASKED,)))
    assert stop_tokens(bpe(None)) == (bpe(None).eos_token_id,), "a base model needs none"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for m in messages %}{{ m['content'] }}", "endfor"),
        ("{{ messages[0]['content'] + 1 }}", "concatenate|must be str"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{{ messages.pop() }}", "unsafe|safely callable"),
        ("{" + "{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "."),
        ({"tool_use": CHATML}, "no default|multiple chat templates"),
    ],
)
def test_a_broken_template_is_one_message_with_its_reason(template: Any, why: str) -> None:
    with pytest.raises(StoreError, match=f"chat template.*({why})") as refused:
        encode_answer(bpe(template), Prompt((ASKED,)), "yes")
    assert "\n" not in str(refused.value)


def test_a_named_default_template_is_taken() -> None:
    tokenizer = bpe({"default": CHATML, "tool_use": "{{ raise_exception('no') }}"})  # type: ignore[arg-type]
    assert encode_answer(tokenizer, Prompt((ASKED,)), "yes") == encode_answer(bpe(CHATML), Prompt((ASKED,)), "yes")


@pytest.mark.parametrize(
    "loop",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 99 }}{% endfor %}",
        pytest.param("{% set x = 10 ** (10 ** 10) %}", marks=pytest.mark.slow),
        "{{ 'x' * 10 ** 11 }}",
    ],
)
def test_a_template_that_does_not_end_is_refused(loop: str) -> None:
    with pytest.raises(StoreError, match="does not end"):
        encode_prompt(bpe(loop + CHATML), Prompt((ASKED,)))
