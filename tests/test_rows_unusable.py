"""Rows of records that cannot all be used: everything is in one message, or left out and counted."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignlab.data.coverage import coverage
from alignlab.data.files import Files
from alignlab.data.lengths import check_lengths, unknown_words
from alignlab.data.records import Comparison, Document, Example, Prompt
from alignlab.data.rows import (
    Truncation,
    comparison_parts,
    comparison_rows,
    document_rows,
    example_parts,
    example_rows,
)
from alignlab.data.source import DataSource, Need
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.data.world import World
from alignlab.errors import DataError

WORD = TrainTokenizer("word", 300).train(["the cat sat on the mat", "a cat and a dog", "the dog ran"] * 3)
LONG = " ".join(["cat"] * 20)


def write(path: Path, *records: Any) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return str(path)


def answered(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"What is {i}?", "answer": "A number."} for i in range(start, start + count)]


def paired(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"prompt": f"What is {i}?", "chosen": "A number.", "rejected": "No."} for i in range(start, start + count)]


# ---- rows --------------------------------------------------------------------------------------------------------
TOO_LONG = [Example(Prompt.user(LONG), "dog", source=f"a.jsonl:{i}") for i in (3, 5)]
CONTROL = Example(Prompt.user("say <eos>"), "dog", source="a.jsonl:4")
FINE = [Example(Prompt.user("the cat"), "dog", source=f"b.jsonl:{i}") for i in range(3)]
DOCUMENTS = [Document(LONG)]


def test_what_cannot_be_used_in_either_part_is_in_one_message_with_counts_and_firsts() -> None:
    with pytest.raises(DataError) as caught:
        example_parts(WORD, [*FINE, TOO_LONG[0], CONTROL], [FINE[0], TOO_LONG[1]], Truncation(12))
    lines = str(caught.value).split("\n")
    assert lines[0] == "3 records cannot be used:"
    assert lines[1].startswith(
        "  a.jsonl:3: the whole answer is cut away: 23 tokens come before it and max_length is 12"
    )
    assert lines[1].endswith("(2 such, next: a.jsonl:5)")
    assert lines[2].startswith("  a.jsonl:4: ") and "'<eos>'" in lines[2]
    assert "on_bad_record=skip" in lines[3]


def test_skipping_trains_on_the_rest_even_where_nothing_is_left_to_hold_out() -> None:
    truncation = Truncation(12)
    train, held = example_parts(WORD, [*FINE, TOO_LONG[0]], [CONTROL], truncation, skip=True)
    assert len(train) == 3 and held == []
    described = truncation.describe("instructions")
    assert described.startswith("of 5 instructions: 2 skipped: a.jsonl:3: the whole answer is cut away: ")
    assert "; a.jsonl:4: " in described
    assert described.endswith("none of the 1 held-out ones is left, so nothing is validated")
    apart = Truncation(12)
    assert len(example_rows(WORD, FINE, apart, skip=True)) == 3
    assert example_rows(WORD, [CONTROL], apart, skip=True) == [], "the second part of a stage that reads them apart"


def test_nothing_to_learn_from_is_an_error_whatever_is_held_out() -> None:
    for held in ([], FINE):
        with pytest.raises(DataError, match=r"no example is left of 1 to learn from; of \d examples: 1 skipped: a"):
            example_parts(WORD, TOO_LONG[:1], held, Truncation(12), skip=True)
    with pytest.raises(DataError, match=r"no example is left of 0 to learn from; there was none"):
        example_parts(WORD, [], FINE, Truncation(12))


def pair(chosen: str, rejected: str, line: int) -> Comparison:
    return Comparison(Prompt.user("the cat"), chosen, rejected, f"p.jsonl:{line}")


def test_pairs_that_are_the_same_once_cut_are_left_out_and_pairs_are_counted() -> None:
    same = [pair(f"{LONG} dog", f"{LONG} mat", i) for i in range(150)]
    cut = [pair(f"dog {LONG}", f"mat {LONG}", 150 + i) for i in range(50)]
    truncation = Truncation(10)
    train, held = comparison_parts(WORD, same + cut, [*same[:2], cut[0]], truncation)
    assert len(train) == 50 and len(held) == 1
    assert truncation.describe("pairs") == (
        "of 203 pairs: 51 cut short at 10 tokens, 152 left out, chosen and rejected are the same within 10 tokens "
        "(first: p.jsonl:0)"
    )
    with pytest.raises(DataError, match=r"no comparison is left of 150 to learn from; .*150 left out, chosen and rej"):
        comparison_rows(WORD, same, Truncation(10))


def test_numbers_on_a_record_stay_with_its_rows_whatever_is_left_out() -> None:
    pairs = [
        Comparison(p.prompt, p.chosen, p.rejected, p.source, {"margin": float(i)})
        for i, p in enumerate([pair("dog", "dog", 1), pair("dog", LONG, 2), pair("mat", "cat", 3)])
    ]
    rows = comparison_rows(WORD, pairs, Truncation(10))
    assert [[row.notes for row in both] for both in rows] == [[{"margin": 1.0}] * 2, [{"margin": 2.0}] * 2]
    scored = Example(Prompt.user("the cat"), LONG, scores={"reward": 0.5})
    assert example_rows(WORD, [scored], Truncation(10))[0].notes == {"reward": 0.5}


def test_pairs_that_the_tokenizer_cannot_tell_apart_are_left_out_too() -> None:
    """Every unknown word of a tokenizer of words is the same token."""
    truncation = Truncation(64)
    rows = comparison_rows(WORD, [pair("zebra", "giraffe", 1), pair("dog", "cat", 2)], truncation)
    assert len(rows) == 1 and truncation.describe("pairs").startswith("of 2 pairs: 1 left out, chosen and rejected are")


def test_a_pair_whose_prompt_fills_the_length_is_refused_rather_than_called_identical() -> None:
    both = Comparison(Prompt.user(LONG), "dog", "mat", "p.jsonl:1")
    with pytest.raises(DataError, match=r"p\.jsonl:1: the whole answer is cut away"):
        comparison_rows(WORD, [both, pair("dog", "mat", 2)], Truncation(10))


@pytest.mark.parametrize(
    "use",
    [
        lambda t: document_rows(t, DOCUMENTS, 8),
        lambda t: example_rows(t, FINE, Truncation(8)),
        lambda t: comparison_rows(t, [pair("dog", LONG, 1)], Truncation(8)),
    ],
    ids=["documents", "examples", "comparisons"],
)
def test_transformers_does_not_warn_of_sequences_that_are_cut(
    use: Callable[[Any], object], caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = TrainTokenizer("word", 300).train(["the cat sat on the mat dog"] * 3)
    tokenizer.model_max_length = 2
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        use(tokenizer)
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.records == []


# ---- lengths: all stages that share a tokenizer ------------------------------------------------------------------
def test_records_that_do_not_fit_are_found_for_all_stages_at_once(tmp_path: Path) -> None:
    files = Files(
        instructions=write(tmp_path / "a.jsonl", *answered(20), {"question": LONG, "answer": "dog"}),
        preferences=write(
            tmp_path / "b.jsonl",
            *paired(20),
            {"prompt": f"{LONG} mat", "chosen": "dog", "rejected": "cat"},
            {"prompt": "say <eos>", "chosen": "dog", "rejected": "cat"},
        ),
    )
    needs: list[tuple[DataSource, Need]] = [
        (files, Need("instructions")),
        (files, Need("prompts")),
        (files, Need("comparisons", held_out=True)),
        (files, Need("instructions", held_out=True)),
    ]
    with pytest.raises(DataError) as caught:
        check_lengths(needs, WORD, 12)
    message = str(caught.value)
    assert message.startswith("3 records cannot be used:\n")
    assert "a.jsonl:21: the whole answer is cut away" in message and "(2 such, next: " in message
    assert "b.jsonl:22: " in message and "'<eos>'" in message
    check_lengths(needs[:2], WORD, 64)
    with pytest.raises(DataError, match=r"a prompt to be answered has 23 tokens and max_length is 12"):
        check_lengths([(files, Need("prompts"))], WORD, 12)


def test_a_source_that_skips_is_left_to_its_stages(tmp_path: Path) -> None:
    rows = [*answered(20), {"question": LONG, "answer": "dog"}]
    file = write(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError, match=r"a\.jsonl:21"):
        check_lengths([(Files(instructions=file), Need("instructions"))], WORD, 12)
    files = Files(instructions=file, on_bad_record="skip")
    check_lengths([(files, Need("instructions"))], WORD, 12)
    assert len(files.instructions("train")) + len(files.instructions("validation")) == 21


# ---- coverage ----------------------------------------------------------------------------------------------------
def test_the_share_of_unknown_words_is_told_with_the_first_of_them() -> None:
    found = coverage(WORD, ["the cat sat", "the\nzebra sat on a\nmat", "a dog"])
    assert (found.tokens, found.unknown, found.texts, found.altered) == (11, 1, 3, 1)
    assert found.unknown_share == pytest.approx(1 / 11) and not found.lossless
    assert found.warning() == (
        "the tokenizer cannot write the texts: 9.1 % of 11 tokens are unknown words (first: 'zebra'), and 1 of 3 texts "
        "lose blanks or line breaks; tokenizer=bpe can write any text"
    )


def test_a_tokenizer_that_can_write_the_texts_is_not_warned_of() -> None:
    texts = ["Où est-il ?\n\n\tIci — №1.", "naïve 🙂", ""]
    bpe = TrainTokenizer("bpe", 300).train(texts)
    found = coverage(bpe, texts)
    assert found.lossless and found.warning() == "" and found.unknown_share == 0
    assert coverage(bpe, []).unknown_share == 0
    broken = coverage(WORD, ["the cat\nsat"])
    assert broken.altered == 1 and not broken.lossless and broken.warning() == ""


def test_a_real_text_is_warned_of_with_the_word_tokenizer() -> None:
    shakespeare = Path(__file__).parents[2] / "shared" / "data" / "tinyshakespeare.txt"
    if not shakespeare.is_file():
        pytest.skip("tinyshakespeare.txt is not in shared/data next to the repository")
    files = Files(corpus=str(shakespeare))
    texts = [d.text for d in files.documents("train")]
    found = coverage(TrainTokenizer("word", 4096).train(texts), texts)
    assert 0.10 < found.unknown_share < 0.25 and found.altered == found.texts
    assert "% of" in found.warning()


def test_words_that_the_tokenizer_does_not_know_are_reported_by_kind() -> None:
    """A policy of another world would learn from `<unk>` without anybody noticing."""
    world = World(entities=8, unknown=2, relations=2, training_documents=4, training_instructions=40)
    other = World(entities=8, unknown=2, relations=2, training_documents=4, training_instructions=40, seed=5)
    own = TrainTokenizer("word", 4096).train(
        [t for e in world.instructions("train") for t in (e.prompt.text, e.answer)]
    )
    needs = [(world, Need("instructions")), (world, Need("documents"))]
    assert unknown_words(needs, own) == []
    (warning,) = unknown_words([(other, need) for _, need in needs], own)
    assert warning.startswith("instructions: the tokenizer cannot write the texts:") and "other data?" in warning
