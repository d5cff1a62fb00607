"""What is trained is what the chat template writes for a finished turn, in the tokens of the whole conversation."""

from typing import Any

import pytest
from chat_templates import (
    CHATML,
    DEEPSEEK_R1,
    FAMILIES,
    HARMONY,
    LLAMA_2,
    QWEN_3,
    QWEN_3_THINKING,
    REASONED_ONLY,
    bpe,
    metaspace,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from alignlab.data.chat import decode, encode_answer, encode_prompt, stop_tokens
from alignlab.data.records import Message, Prompt
from alignlab.errors import DataError, StoreError

TOKENIZERS = {name: bpe(template) for name, (template, _) in FAMILIES.items()}
ASKED = Message("user", "the cat")
TURNS = {
    "one turn": (ASKED,),
    "system": (Message("system", "sat on"), ASKED),
    "several turns": (ASKED, Message("assistant", "a mat"), Message("user", "yes")),
}
ANSWERS = {"plain": "a River", "blank ends": "  a River \n", "odd blanks": "a \t River\n\n Rhine", "unicode": "Rhône …"}


def whole(tokenizer: Any, turns: tuple[Message, ...], answer: str) -> tuple[str, list[int]]:
    """The finished conversation, and its ids, as transformers has them in one go."""
    said = [{"role": m.role, "content": m.content} for m in (*turns, Message("assistant", answer))]
    text = tokenizer.apply_chat_template(said, tokenize=False)
    return text, tokenizer.apply_chat_template(said, return_dict=True)["input_ids"]


def answer_ids(tokenizer: Any, prompt: Prompt, answer: str) -> list[int]:
    ids, mask = encode_answer(tokenizer, prompt, answer)
    return [i for i, m in zip(ids, mask, strict=True) if m]


@pytest.mark.parametrize("answer", list(ANSWERS))
@pytest.mark.parametrize("turns", list(TURNS))
@pytest.mark.parametrize("family", list(FAMILIES))
def test_what_is_trained_is_the_finished_turn(family: str, turns: str, answer: str) -> None:
    tokenizer, end = TOKENIZERS[family], FAMILIES[family][1]
    prompt = Prompt(TURNS[turns])
    if turns == "system" and family in ("llama_2", "gemma"):
        with pytest.raises(DataError, match="no system role here"):
            encode_answer(tokenizer, prompt, ANSWERS[answer])
        return
    ids, mask = encode_answer(tokenizer, prompt, ANSWERS[answer])
    text, joint = whole(tokenizer, prompt.messages, ANSWERS[answer])
    before = encode_prompt(tokenizer, prompt)
    assert ids[: len(before)] == before and mask == [i >= len(before) for i in range(len(ids))]
    assert ids[-1] == tokenizer.convert_tokens_to_ids(end) == stop_tokens(tokenizer)[0]
    assert text.startswith(tokenizer.decode(ids)), "nothing is added, left out or changed"
    assert tokenizer.convert_tokens_to_ids(end) not in ids[len(before) : -1]
    if tokenizer.decode(before) == tokenizer.decode(joint[: len(before)]):  # else a token spans the boundary
        assert ids == joint[: len(ids)]


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"qwen_3_thinking"}))
def test_the_ids_are_those_of_the_conversation_rendered_in_one_go(family: str) -> None:
    tokenizer = TOKENIZERS[family]
    ids, _ = encode_answer(tokenizer, Prompt(TURNS["several turns"]), "a River")
    assert ids == whole(tokenizer, TURNS["several turns"], "a River")[1][: len(ids)]


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize("family", ["chatml", "llama_2", "llama_3", "mistral", "vicuna", "zephyr"])
def test_a_tokenizer_that_marks_beginnings_of_words_marks_none_that_is_not_there(family: str, scheme: str) -> None:
    tokenizer = metaspace(FAMILIES[family][0], scheme)
    ids, _ = encode_answer(tokenizer, Prompt(TURNS["several turns"]), "a River")
    assert ids == whole(tokenizer, TURNS["several turns"], "a River")[1][: len(ids)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.text(max_size=20), st.text(max_size=20))
def test_any_text_is_trained_as_the_template_writes_it(family: str, asked: str, answer: str) -> None:
    tokenizer = TOKENIZERS[family]
    ids, mask = encode_answer(tokenizer, Prompt.user(asked), answer)
    assert ids[: mask.index(True)] == encode_prompt(tokenizer, Prompt.user(asked))
    assert whole(tokenizer, Prompt.user(asked).messages, answer)[0].startswith(tokenizer.decode(ids))


# ---- where the answer begins -----------------------------------------------------------------------------------------
def test_a_generation_prompt_that_changes_nothing_is_completed_by_the_header_of_a_finished_turn() -> None:
    tokenizer = TOKENIZERS["no_generation_prompt"]
    assert tokenizer.decode(encode_prompt(tokenizer, Prompt((ASKED,)))).endswith("<|im_start|>assistant\n")
    assert encode_answer(tokenizer, Prompt((ASKED,)), "yes") == encode_answer(
        TOKENIZERS["chatml"], Prompt((ASKED,)), "yes"
    )


def test_a_blank_before_every_answer_goes_with_its_first_word() -> None:
    tokenizer = bpe(LLAMA_2)
    assert tokenizer.decode(encode_prompt(tokenizer, Prompt((ASKED,)))).endswith("[/INST]")
    assert tokenizer.decode(answer_ids(tokenizer, Prompt((ASKED,)), "River")) == " River <eos>"


@pytest.mark.parametrize(
    ("template", "opening", "trained"),
    [
        (QWEN_3, "<|im_start|>assistant\n", "<think>\n\n</think>\n\nyes<|im_end|>"),
        (QWEN_3_THINKING, "<|im_start|>assistant\n<think>\n", "\n</think>\n\nyes<|im_end|>"),
        (HARMONY, "<|start|>assistant", "<|channel|>final<|message|>yes<|return|>"),
    ],
)
def test_what_the_template_writes_before_an_answer_is_trained_with_it_and_is_not_part_of_its_text(
    template: str, opening: str, trained: str
) -> None:
    tokenizer = bpe(template)
    prompt = Prompt((ASKED,))
    assert tokenizer.decode(encode_prompt(tokenizer, prompt)).endswith(opening)
    ids = answer_ids(tokenizer, prompt, "yes")
    assert tokenizer.decode(ids) == trained
    assert decode(tokenizer, ids[:-1]) == "yes", "so that a sampled answer can be trained on as it is"


@pytest.mark.parametrize("template", [QWEN_3, QWEN_3_THINKING, REASONED_ONLY])
def test_reasoning_in_an_answer_is_trained_where_the_template_writes_it(template: str) -> None:
    tokenizer = bpe(template)
    prompt = Prompt((ASKED, Message("assistant", "<think>\na mat\n</think>\n\nno"), Message("user", "cat")))
    ids, mask = encode_answer(tokenizer, prompt, "<think>\nRiver\n</think>\n\nyes")
    text = tokenizer.decode(ids)
    assert text.endswith("<|im_start|>assistant\n<think>\nRiver\n</think>\n\nyes<|im_end|>")
    assert "a mat" not in text, "a template may leave out earlier reasoning"
    assert tokenizer.decode(ids[mask.index(True) :]).endswith("River\n</think>\n\nyes<|im_end|>")


def test_a_thinking_block_that_no_finished_turn_has_is_refused() -> None:
    with pytest.raises(StoreError, match=r"cannot be split at the answer.*'<think>\\n'.*chat_template\.jinja"):
        encode_prompt(bpe(DEEPSEEK_R1), Prompt((ASKED,)))
    with pytest.raises(DataError, match="cannot be split at the answer"):
        encode_answer(bpe(REASONED_ONLY), Prompt((ASKED,)), "yes, without reasoning")


# ---- where it ends ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", list(FAMILIES))
def test_sampling_stops_at_what_is_trained_and_at_the_end_of_a_document(family: str) -> None:
    tokenizer, end = TOKENIZERS[family], FAMILIES[family][1]
    assert set(stop_tokens(tokenizer)) == {tokenizer.convert_tokens_to_ids(end), tokenizer.eos_token_id}


def test_a_turn_may_end_in_an_added_token_that_is_no_control_token() -> None:
    tokenizer = bpe(CHATML, special=False)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = answer_ids(tokenizer, Prompt((ASKED,)), "say <|im_end|>")
    assert ids[-1] == end and end not in ids[:-1]
    with pytest.raises(DataError, match=r"holds '<\|im_start\|>'"):
        encode_prompt(tokenizer, Prompt.user("say <|im_start|>"))


def test_what_follows_the_end_of_a_turn_is_context_and_not_trained() -> None:
    tokenizer = bpe(CHATML)
    prompt = Prompt(TURNS["several turns"])
    text = tokenizer.decode(encode_prompt(tokenizer, prompt))
    assert "a mat<|im_end|>\n<|im_start|>user" in text
    assert tokenizer.decode(answer_ids(tokenizer, prompt, "yes")) == "yes<|im_end|>"


def test_a_template_that_ends_no_turn_is_refused() -> None:
    endless = CHATML.replace("'<|im_end|>' + ", "")
    with pytest.raises(StoreError, match=r"does not end an assistant's turn.*'\\n'.*eos_token"):
        encode_answer(bpe(endless), Prompt((ASKED,)), "yes")
