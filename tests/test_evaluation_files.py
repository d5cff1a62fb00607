"""FilesEvaluation: what a policy that knows nothing must score, and what it says when a role has no file."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch

from alignlab.data.chat import encode_text
from alignlab.data.files import Files
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import MissingDataError
from alignlab.evaluation.files import FilesEvaluation
from alignlab.policy import Llama, Policy, Sampling

PAIRS = [
    {
        "prompt": f"Say {i}.",
        "chosen": f"{i}." if i % 4 else f"{i}, and then {i}, and on and on.",
        "rejected": f"No, not {i}.",
    }
    for i in range(60)
]
TEXT = "\n".join(f"Line {i} of a text.\nIt has {i} words, or so.\n" for i in range(60))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    (folder / "text.txt").write_text(TEXT)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PAIRS))
    pairs = str(folder / "pairs.jsonl")
    return Files(str(folder / "text.txt"), pairs, pairs, validation_fraction=0.5, document_characters=100)


@pytest.fixture(scope="module")
def clueless(files: Files) -> Policy:
    """Every weight 0, so that each next token is as likely as any other."""
    return clueless_policy("bpe", [TEXT])


def test_a_uniform_policy_scores_the_logarithm_of_its_vocabulary(files: Files, clueless: Policy) -> None:
    metrics = FilesEvaluation(files, prompts=4)(clueless, Sampling(max_new_tokens=4), seed=0).metrics
    vocabulary = len(clueless.tokenizer)
    assert metrics["document_loss"] == pytest.approx(math.log(vocabulary), rel=1e-6)
    assert metrics["document_perplexity"] == pytest.approx(vocabulary, rel=1e-5)
    assert metrics["answer_loss"] == pytest.approx(math.log(vocabulary), rel=1e-6)
    held = files.documents("validation")
    tokens = sum(len(encode_text(clueless.tokenizer, d.text)) + 1 for d in held)
    per_character = tokens * math.log2(vocabulary) / sum(len(d.text) for d in held)
    assert metrics["document_bits_per_character"] == pytest.approx(per_character, rel=1e-6)


def test_a_uniform_policy_prefers_the_shorter_answer_and_per_token_neither(files: Files, clueless: Policy) -> None:
    metrics = FilesEvaluation(files, prompts=4)(clueless, Sampling(max_new_tokens=4), seed=0).metrics

    def tokens(text: str) -> int:
        return len(encode_text(clueless.tokenizer, text))

    held = files.comparisons("validation")
    shorter = [float(tokens(p.chosen) < tokens(p.rejected)) for p in held]
    assert 0 < sum(shorter) < len(shorter)
    assert metrics["preference_accuracy"] == pytest.approx(sum(shorter) / len(shorter))
    assert metrics["preference_accuracy_per_token"] == pytest.approx(0.5)


def test_every_policy_is_asked_the_same_and_its_words_are_kept(files: Files, clueless: Policy) -> None:
    evaluation = FilesEvaluation(files, prompts=5, openings=2, opening_words=3)
    first, second = (evaluation(clueless, Sampling(max_new_tokens=6), seed=s).samples for s in (0, 1))
    assert [s["prompt"] for s in first] == [s["prompt"] for s in second]
    assert [s["answer"] for s in first] != [s["answer"] for s in second]
    assert [s["kind"] for s in first] == ["instruction"] * 5 + ["document"] * 2
    held = {d.text for d in files.documents("validation")}
    assert all(any(text.startswith(str(s["prompt"])) for text in held) for s in first[5:])


def test_a_share_of_stopped_answers_is_counted_over_the_instructions(files: Files, clueless: Policy) -> None:
    result = FilesEvaluation(files, prompts=5)(clueless, Sampling(temperature=0.0, max_new_tokens=6), seed=0)
    # Greedy on equal logits takes token 0, which is no stop token.
    assert result.metrics["finished"] == 0.0
    assert {s["finished"] for s in result.samples} == {False}


def test_what_has_no_file_is_left_out(files: Files, clueless: Policy) -> None:
    corpus = Files(corpus=str(files.files["corpus"][0]), validation_fraction=0.5, document_characters=100)
    result = FilesEvaluation(corpus)(clueless, Sampling(max_new_tokens=4), seed=0)
    assert set(result.metrics) == {"document_loss", "document_perplexity", "document_bits_per_character"}
    assert {s["kind"] for s in result.samples} == {"document"}


def test_a_prompt_that_fills_the_context_is_not_asked(tmp_path: Path, clueless: Policy) -> None:
    rows = [{"question": "Why? " * (400 if i % 2 else 1) + str(i), "answer": "So."} for i in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    files = Files(instructions=str(tmp_path / "a.jsonl"), validation_fraction=0.5)
    assert any(len(p.text) > 100 for p in files.prompts("validation"))
    result = FilesEvaluation(files)(clueless, Sampling(max_new_tokens=4), seed=0)
    assert result.samples and all(len(str(s["prompt"])) < 100 for s in result.samples)


@pytest.mark.parametrize("name", ["records", "prompts", "opening_words"])
def test_limits_below_one_are_refused(files: Files, name: str) -> None:
    with pytest.raises(ValueError, match=rf"FilesEvaluation: {name} must be >= 1, got 0"):
        FilesEvaluation(files, **{name: 0})


def clueless_policy(kind: Literal["bpe", "word"], texts: Sequence[str], context: int = 64) -> Policy:
    """Every weight 0, with a tokenizer of its own."""
    tokenizer = TrainTokenizer(kind, 300).train(texts)
    policy = Policy(Llama(layers=1, width=16, heads=2, feedforward=16, context=context).build(tokenizer, 0), tokenizer)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    return policy


def written(path: Path, rows: Sequence[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def test_pairs_of_which_none_fits_are_left_out_and_the_rest_is_measured(tmp_path: Path, clueless: Policy) -> None:
    long = "Why? " * 400
    pairs = [{"prompt": f"{long}{i}", "chosen": "So.", "rejected": "No."} for i in range(20)]
    answered = [{"question": f"Say {i}.", "answer": "So."} for i in range(20)]
    files = Files(
        instructions=written(tmp_path / "a.jsonl", answered),
        preferences=written(tmp_path / "b.jsonl", pairs),
        validation_fraction=0.5,
    )
    metrics = FilesEvaluation(files)(clueless, Sampling(max_new_tokens=4), seed=0).metrics
    assert set(metrics) == {"answer_loss", "answer_perplexity", "finished", "answer_length"}


def test_answers_and_prompts_of_which_none_fits_are_left_out(tmp_path: Path, clueless: Policy) -> None:
    rows = [{"question": "Why? " * 400 + str(i), "answer": "So."} for i in range(20)]
    files = Files(instructions=written(tmp_path / "a.jsonl", rows), validation_fraction=0.5)
    result = FilesEvaluation(files)(clueless, Sampling(max_new_tokens=4), seed=0)
    assert result.metrics == {} and list(result.samples) == []


def test_pairs_that_are_the_same_within_the_context_are_not_called_ties(tmp_path: Path, clueless: Policy) -> None:
    start = "word " * 200
    rows = [{"prompt": f"Say {i}.", "chosen": f"{start}yes", "rejected": f"{start}no"} for i in range(20)]
    rows += [{"prompt": f"Tell {i}.", "chosen": "So.", "rejected": "No, not that."} for i in range(20)]
    files = Files(preferences=written(tmp_path / "a.jsonl", rows), validation_fraction=0.5)
    metrics = FilesEvaluation(files, prompts=1)(clueless, Sampling(max_new_tokens=4), seed=0).metrics
    assert metrics["preference_accuracy"] == 1.0, "only pairs that differ count; there the shorter one is chosen"


@pytest.mark.parametrize(
    ("text", "measured"),
    [("one two three . one two", True), ("one two zebra", False), ("one two\nthree .", False), ("one  two", False)],
    ids=["as it is", "an unknown word", "a line break", "two blanks"],
)
def test_bits_per_character_are_there_only_where_the_tokenizer_writes_every_character(
    tmp_path: Path, text: str, measured: bool
) -> None:
    policy = clueless_policy("word", ["one two three ."] * 3)
    rows = [{"text": f"{text}{' one' * i}"} for i in range(20)]
    files = Files(corpus=written(tmp_path / "a.jsonl", rows), validation_fraction=0.5)
    metrics = FilesEvaluation(files)(policy, Sampling(max_new_tokens=4), seed=0).metrics
    assert ("document_bits_per_character" in metrics) is measured
    assert metrics["document_loss"] == pytest.approx(math.log(len(policy.tokenizer)), rel=1e-6)


def test_it_says_which_held_out_records_it_needs(tmp_path: Path, files: Files, clueless: Policy) -> None:
    needs = [(need.records, need.held_out) for _, need in FilesEvaluation(files).data_needs()]
    assert needs == [("documents", True), ("instructions", True), ("comparisons", True)]
    with pytest.raises(MissingDataError, match=r"set data\.corpus=FILE for FilesEvaluation"):
        FilesEvaluation(Files())(clueless, Sampling(), seed=0)
    rows = [{"question": f"Say {i}.", "answer": "So."} for i in range(20)]
    unsplit = Files(instructions=written(tmp_path / "a.jsonl", rows), validation_fraction=0.0)
    with pytest.raises(MissingDataError, match=r"set data\.validation_fraction above 0"):
        FilesEvaluation(unsplit)(clueless, Sampling(), seed=0)
