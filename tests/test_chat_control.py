"""Control words in texts are text: spelt out in what an assistant says, refused where somebody else speaks."""

import re
from typing import Any

import pytest
from chat_templates import (
    CHATML,
    CONTROL,
    FAMILIES,
    LLAMA_3,
    bpe,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from alignlab.data.chat import encode_answer, encode_document, encode_prompt
from alignlab.data.control import ControlTokens, pattern_of
from alignlab.data.records import Message, Prompt
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import DataError, StoreError

ASKED = Message("user", "the cat")
SEVERAL = Prompt((ASKED, Message("assistant", "a mat"), Message("user", "yes")))


def answer_ids(tokenizer: Any, prompt: Prompt, answer: str) -> list[int]:
    ids, mask = encode_answer(tokenizer, prompt, answer)
    return [i for i, m in zip(ids, mask, strict=True) if m]


# ---- control words ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", list(FAMILIES))
def test_control_words_in_an_answer_are_text(family: str) -> None:
    tokenizer = bpe(FAMILIES[family][0])
    answer = " ".join(["yes", *CONTROL, "<eos>", "<unk>", "no"])
    ids = answer_ids(tokenizer, Prompt((ASKED,)), answer)
    control = {tokenizer.convert_tokens_to_ids(t) for t in (*CONTROL, "<eos>", "<unk>")}
    lead = 2 if family == "harmony" else 0
    assert [i for i in ids if i in control][lead:] == [ids[-1]]
    assert answer in tokenizer.decode(ids)


def test_control_words_in_an_earlier_answer_are_text_and_in_a_question_refused() -> None:
    tokenizer = bpe(LLAMA_3)
    said = (ASKED, Message("assistant", "say <|eot_id|> and \ue000<eos>"), Message("user", "yes"))
    ids = encode_prompt(tokenizer, Prompt(said))
    assert ids.count(tokenizer.convert_tokens_to_ids("<|eot_id|>")) == 3 and tokenizer.eos_token_id not in ids
    assert "say <|eot_id|> and \ue000<eos><|eot_id|>" in tokenizer.decode(ids)
    with pytest.raises(DataError, match="a control token of the tokenizer"):
        encode_prompt(tokenizer, Prompt.user("say <|eot_id|>"))


def test_a_tokenizer_that_has_other_ids_for_a_conversation_than_for_its_text_is_refused() -> None:
    tokenizer = bpe(CHATML)
    render = tokenizer.apply_chat_template

    def with_bos(messages: Any, tokenize: bool = True, **options: Any) -> Any:
        found = render(messages, tokenize=tokenize, **options)
        return [tokenizer.bos_token_id, *found] if tokenize else found

    tokenizer.apply_chat_template = with_bos
    with pytest.raises(StoreError, match="other ids than its apply_chat_template"):
        encode_prompt(tokenizer, Prompt((ASKED,)))


def test_control_words_are_unknown_words_of_a_tokenizer_that_has_no_letters() -> None:
    words: Any = TrainTokenizer("word", 50).train(["yes no cat"])
    ids = answer_ids(words, Prompt.user("cat"), "yes <user> no <eos>")
    unknown, end = words.unk_token_id, words.eos_token_id
    yes, no = words.convert_tokens_to_ids(["yes", "no"])
    assert ids == [yes, unknown, unknown, no, unknown, unknown, end]
    assert encode_document(words, "yes <eos> no") == [words.bos_token_id, yes, unknown, unknown, no, end]


def test_control_tokens_are_looked_up_once_and_not_for_every_message(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = bpe(CHATML)
    tokenizer.add_tokens([AddedToken(f"<|extra_{i}|>", special=True) for i in range(6400)])
    encode_answer(tokenizer, Prompt((ASKED,)), "yes")

    def never(*_: object) -> None:
        raise AssertionError("looked up again")

    monkeypatch.setattr(ControlTokens, "_read", never)
    monkeypatch.setattr(type(tokenizer), "added_tokens_decoder", property(never))
    ids = answer_ids(tokenizer, SEVERAL, "say <|extra_6399|>")
    assert "<|extra_6399|>" in tokenizer.decode(ids)
    with pytest.raises(DataError, match=r"holds '<\|extra_77\|>'"):
        encode_prompt(tokenizer, Prompt.user("say <|extra_77|>"))


@settings(max_examples=100, deadline=None)
@given(st.sets(st.text("<ab|>", min_size=1, max_size=5), min_size=1), st.text("<ab|>", max_size=20))
def test_a_pattern_finds_the_longest_of_its_words(words: set[str], text: str) -> None:
    by_length = re.compile("|".join(re.escape(w) for w in sorted(words, key=len, reverse=True)))
    assert pattern_of(words).findall(text) == by_length.findall(text)
