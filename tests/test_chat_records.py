"""Records that a chat template refuses: named by file and line with the template's reason, or skipped and counted."""

import pytest
from chat_templates import CHATML, DEEPSEEK_R1, GEMMA, bpe

from alignlab.data.records import Comparison, Example, Prompt
from alignlab.data.rows import Truncation, comparison_rows, example_rows
from alignlab.errors import DataError, StoreError

GOOD = Example(Prompt.user("the cat"), "yes", source="a.jsonl:1")
BAD = Example(Prompt.user("the cat", system="a mat"), "no", source="a.jsonl:2")
WHY = r"the chat template of the tokenizer refuses a conversation of system, user: no system role here"


def test_a_record_that_the_template_refuses_is_named_with_file_and_line() -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl:2: {WHY}"):
        example_rows(bpe(GEMMA), [GOOD, BAD], Truncation(99))
    pair = Comparison(BAD.prompt, "yes", "no", source="pairs.jsonl:7")
    with pytest.raises(DataError, match=rf"pairs\.jsonl:7.*: {WHY}"):
        comparison_rows(bpe(GEMMA), [pair], Truncation(99))


def test_skip_leaves_out_such_records_and_says_how_many_and_why() -> None:
    truncation = Truncation(99)
    (row,) = example_rows(bpe(GEMMA), [GOOD, BAD, BAD], truncation, skip=True)
    assert row.name == GOOD.source
    assert "2 skipped" in truncation.describe("examples") and "no system role here" in truncation.describe("examples")


@pytest.mark.parametrize("template", [None, DEEPSEEK_R1, CHATML.replace("endfor", "endif")])
def test_a_template_that_fits_no_record_is_an_error_of_the_folder_whatever_is_skipped(template: str | None) -> None:
    with pytest.raises(StoreError, match="chat template"):
        example_rows(bpe(template), [GOOD, BAD], Truncation(99), skip=True)
