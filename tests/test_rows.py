"""From text to rows: one BOS, a trained stop token, no merge at the boundary, nothing cut without a word."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from alignlab.data.chat import encode_answer, encode_prompt, encode_text
from alignlab.data.records import Comparison, Document, Example, Message, Prompt
from alignlab.data.rows import Truncation, comparison_rows, document_rows, example_rows, order_at
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import DataError
from alignlab.seed import fold_in, seed_torch

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
@given(st.text(max_size=20).filter(lambda t: "<" not in t), st.text(max_size=20))
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
    assert skipping.describe("instructions") == (
        "of 2 instructions: 1 cut short at 5 tokens, 1 skipped: file.json:3: the whole answer is cut away: 5 tokens "
        "come before it and max_length is 5"
    )
    with pytest.raises(DataError, match=r"no example is left of 1 to learn from; of 1 examples: 1 skipped: file"):
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
    assert len({fold_in(a, b) for a in range(100) for b in range(100)}) == 10_000
    assert fold_in(1, 2) != fold_in(2, 1)


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_pytorch_is_seeded_as_by_its_own_function_and_queues_nothing(seed: int) -> None:
    torch.manual_seed(seed)
    expected = torch.rand(3)
    queued = len(torch.cuda._queued_calls)
    seed_torch(seed)
    assert torch.rand(3).tolist() == expected.tolist()
    assert len(torch.cuda._queued_calls) == queued  # torch.manual_seed's own grows by one with every call


@pytest.mark.parametrize(("chosen", "rejected"), [(9, 2), (2, 9), (9, 9)])
def test_either_side_of_a_pair_is_cut_and_counted(chosen: int, rejected: int) -> None:
    pair = Comparison(Prompt.user("a"), " ".join(["dog"] * chosen), " ".join(["cat"] * rejected))
    truncation = Truncation(7)
    ((one, other),) = comparison_rows(WORD, [pair], truncation, skip=True)
    assert len(one.tokens) == min(7, chosen + 5) and len(other.tokens) == min(7, rejected + 5)
    assert truncation.cut == 1 and truncation.describe("pairs") == "of 1 pairs: 1 cut short at 7 tokens"
    words = [WORD.decode(row.tokens) for row in (one, other)]
    assert words[0].split()[4] == "dog" and words[1].split()[4] == "cat"


def merging() -> Any:
    """A tokenizer to which "answers" is one token, under a template that ends in the plain text "answer"."""
    words: Any = TrainTokenizer("bpe", 300).train(["answer answers answers answers"] * 9)
    words.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %} answer{% else %}"
        "{{ eos_token }}{% endif %}{% endfor %}"
    )
    return words


def test_no_token_spans_the_boundary_of_a_template_that_ends_in_plain_text() -> None:
    words = merging()
    prompt, answer = Prompt.user("answer"), "s answer"
    before = encode_prompt(words, prompt)
    joint = encode_text(words, "<bos>answer answers answer")
    tokens, mask = encode_answer(words, prompt, answer)
    assert tokens[len(before) : -1] == encode_text(words, answer)
    assert tokens == [*before, *encode_text(words, answer), words.eos_token_id]
    assert mask == [False] * len(before) + [True] * (len(tokens) - len(before))
    assert joint[: len(before)] != before, "together they would have merged"
    assert words.decode(joint) == words.decode(tokens[:-1])


def test_any_control_token_of_a_tokenizer_is_refused_in_a_message_and_spelt_out_in_an_answer() -> None:
    """Also one that has no role by name, as header tokens of published tokenizers."""
    bpe = TrainTokenizer("bpe", 400).train(["say <|turn|> and <eos>"])
    bpe.add_tokens([AddedToken("<|turn|>", special=True)])
    for token in ("<|turn|>", "<eos>", "<assistant>"):
        with pytest.raises(DataError, match="a control token of the tokenizer"):
            encode_prompt(bpe, Prompt.user(f"say {token}"))
        ids, mask = encode_answer(bpe, Prompt.user("say"), f"say {token}")
        answer = [i for i, m in zip(ids, mask, strict=True) if m]
        assert bpe.convert_tokens_to_ids(token) not in answer[:-1] and answer[-1] == bpe.eos_token_id


def test_transformers_own_mask_of_what_is_generated_is_the_one_that_is_trained_on() -> None:
    said = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "a dog"}]
    theirs = WORD.apply_chat_template(said, return_dict=True, return_assistant_tokens_mask=True)
    ids, mask = encode_answer(WORD, Prompt.user("the cat"), "a dog")
    assert theirs["input_ids"] == ids and theirs["assistant_masks"] == [int(m) for m in mask]
