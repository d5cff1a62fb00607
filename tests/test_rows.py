"""From text to rows: one BOS, a trained stop token, no merge at the boundary, nothing cut without a word."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignlab.data.chat import encode_answer, encode_prompt
from alignlab.data.records import Comparison, Document, Example, Message, Prompt
from alignlab.data.rows import Truncation, comparison_rows, document_rows, example_rows, mix, order_at
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import DataError

TEXTS = ["the cat sat on the mat", "a cat and a dog", "the dog ran"] * 3
BPE = TrainTokenizer("bpe", 300).train(TEXTS)
WORD = TrainTokenizer("word", 300).train(TEXTS)


@pytest.mark.parametrize("tokenizer", [BPE, WORD], ids=["bpe", "word"])
def test_one_bos_and_a_trained_stop_token(tokenizer: object) -> None:
    tokens, mask = encode_answer(tokenizer, Prompt.user("the cat"), "a dog")  # type: ignore[arg-type]
    assert tokens[0] == tokenizer.bos_token_id and tokens.count(tokenizer.bos_token_id) == 1  # type: ignore[attr-defined]
    assert tokens[-1] == tokenizer.eos_token_id and mask[-1]  # type: ignore[attr-defined]
    assert tokenizer.pad_token_id != tokenizer.eos_token_id  # type: ignore[attr-defined]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_prompt_and_answer_do_not_merge(prompt: str, answer: str) -> None:
    before = encode_prompt(BPE, Prompt.user(prompt))
    tokens, mask = encode_answer(BPE, Prompt.user(prompt), answer)
    assert tokens[: len(before)] == before
    assert mask == [False] * len(before) + [True] * (len(tokens) - len(before))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40).filter(lambda t: "<" not in t))
def test_byte_level_bpe_can_write_any_text(text: str) -> None:
    ids = BPE(text, add_special_tokens=False)["input_ids"]
    assert BPE.decode(ids) == text


def test_a_conversation_is_rendered_as_it_was_trained() -> None:
    turns = (
        Message("system", "the cat"),
        Message("user", "a dog"),
        Message("assistant", "sat"),
        Message("user", "ran"),
    )
    text = WORD.decode(encode_prompt(WORD, Prompt(turns)))
    assert text == "<bos> <system> the cat <user> a dog <assistant> sat <eos> <user> ran <assistant>"


def test_windows_of_a_long_document_score_every_token_once() -> None:
    text = " ".join(TEXTS)
    whole = document_rows(WORD, [Document(text)], 10_000)[0]
    rows = document_rows(WORD, [Document(text)], 8)
    assert all(len(r.tokens) <= 8 for r in rows)
    scored = [t for r in rows for t, m in zip(r.tokens, r.mask, strict=True) if m]
    assert scored == list(whole.tokens[1:])


def test_cutting_is_counted_and_losing_the_answer_is_an_error() -> None:
    long = Example(Prompt.user("the cat"), "a dog and a cat", source="file.json:3")
    truncation = Truncation(8)
    (row,) = example_rows(WORD, [long], truncation)
    assert len(row.tokens) == 8 and truncation.cut == 1
    assert truncation.describe("instructions") == "of 1 instructions: 1 cut short at 8 tokens"
    with pytest.raises(DataError, match=r"file\.json:3: the whole answer is cut away.*max_length is 4"):
        example_rows(WORD, [long], Truncation(4))
    short = Example(Prompt.user("a"), "dog", source="file.json:4")
    skipping = Truncation(5)
    assert len(example_rows(WORD, [long, short], skipping, skip=True)) == 1
    assert (
        skipping.describe("instructions")
        == "of 2 instructions: 1 cut short at 5 tokens, 1 skipped (the answer was wholly cut away, or the prompt held "
        "control tokens)"
    )
    with pytest.raises(DataError, match="no example is left of 1"):
        example_rows(WORD, [long], Truncation(4), skip=True)


def test_a_pair_is_dropped_whole() -> None:
    good = Comparison(Prompt.user("a"), "dog", "cat")
    bad = Comparison(Prompt.user("the cat sat on the mat"), "dog", "cat")
    assert len(comparison_rows(WORD, [bad, good], Truncation(6), skip=True)) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 17), st.integers(0, 3))
def test_every_epoch_visits_every_record_once(size: int, batch: int, seed: int) -> None:
    steps = -(-3 * size // batch)
    visited = [i for step in range(steps) for i in order_at(step, size, batch, seed)]
    for epoch in range(2):
        assert sorted(visited[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_the_order_is_a_function_of_the_step_alone() -> None:
    forwards = [order_at(s, 50, 8, 1) for s in range(20)]
    assert [order_at(s, 50, 8, 1) for s in reversed(range(20))] == forwards[::-1]
    assert [order_at(s, 50, 8, 2) for s in range(20)] != forwards


def test_mixed_seeds_differ() -> None:
    assert len({mix(a, b) for a in range(100) for b in range(100)}) == 10_000
    assert mix(1, 2) != mix(2, 1)
