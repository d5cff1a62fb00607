"""docs/lm-eval.md: its task can be read, and the harness scores the tokens that alignlab trains.

The harness is not installed here. What it does is written out below: `HFLM.apply_chat_template`, `tok_encode` and
`_encode_pair` of lm-eval 0.4.13.
"""

import json
from pathlib import Path
from typing import Any

import docs_pages
import pytest
import transformers
import yaml

from alignlab.data.chat import encode_answer, encode_document
from alignlab.data.records import Prompt
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.policy import Llama, Policy

PAGE = docs_pages.files("lm-eval.md")
TASK = yaml.safe_load(PAGE["tasks/facts.yaml"])
ROWS = [json.loads(line) for line in PAGE["tasks/facts.jsonl"].splitlines()]


def encoded(tokenizer: Any, text: str) -> list[int]:
    """The begin-of-text token is added where the text does not begin with it."""
    own = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    ids: list[int] = tokenizer.encode(text, **({"add_special_tokens": False} if own else {}))
    return ids


def scored(tokenizer: Any, question: str, answer: str) -> tuple[list[int], list[int]]:
    """Tokens of the context and of the answer, as the harness has them for a chat model."""
    said = [{"role": "user", "content": question}]
    context = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    whole, before = (encoded(tokenizer, text) for text in (context + TASK["target_delimiter"] + answer, context))
    return before, whole[len(before) :]


@pytest.fixture(scope="module", params=["word", "bpe"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """That of a published folder, as transformers loads it."""
    texts = [f"{row['question']} {' '.join(row['choices'])}" for row in ROWS]
    trained = TrainTokenizer(request.param, 300).train(texts * 2)
    shape = Llama(layers=1, width=16, heads=2, feedforward=16, context=64)
    folder: Path = tmp_path_factory.mktemp(request.param)
    Policy(shape.build(trained, 0), trained).save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_the_harness_scores_the_tokens_that_are_trained(tokenizer: Any) -> None:
    for row in ROWS:
        for choice in row["choices"]:
            ids, mask = encode_answer(tokenizer, Prompt.user(row["question"]), choice)
            start = mask.index(True)
            context, answer = scored(tokenizer, row["question"], choice)
            assert context == ids[:start] and answer == ids[start:-1], "all but the stop token"


def test_a_base_model_reads_a_document(tokenizer: Any) -> None:
    text = ROWS[0]["choices"][0]
    assert encoded(tokenizer, text) == encode_document(tokenizer, text)[:-1]


def test_its_questions_are_what_the_task_reads() -> None:
    read = {TASK["doc_to_text"].strip("{} "), TASK["doc_to_choice"], TASK["doc_to_target"]}
    assert all(row.keys() == read and row["answer"] in range(len(row["choices"])) for row in ROWS)
