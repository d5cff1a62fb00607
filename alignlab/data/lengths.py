"""Lengths: whether records fit, for all stages that share a tokenizer, before the first of them trains.

The third question of `alignlab.data.preflight`, for the stage that makes or loads the tokenizer to ask.
"""

from collections.abc import Sequence

from alignlab.data.chat import encode_prompt
from alignlab.data.problems import Problems, fact_of
from alignlab.data.records import Example, Prompt
from alignlab.data.rows import comparison_encoder, example_encoder, quiet
from alignlab.data.source import DataSource, Need, Records, Split
from alignlab.data.truncation import REMEDY, Truncation, collected
from alignlab.data.types import PreTrainedTokenizerBase
from alignlab.errors import DataError

SPLITS: tuple[Split, ...] = ("train", "validation")


def check_lengths(
    needs: Sequence[tuple[DataSource, Need]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> None:
    """Check that every record that stages will read can be used: its prompt fits, and something of its answer.

    Documents are cut into windows and always fit. A source that skips what cannot be used is not checked: its stages
    count what they leave out.

    Args:
        needs: of all stages that will use the tokenizer.
        tokenizer: of their policies.
        max_length: the model's context, or the shortest `max_length` of a stage, in tokens.

    Raises:
        DataError: records cannot be used; all of them are in the message, by kind.
    """
    wanted = {(id(source), need.records): source for source, need in needs if source.on_bad_record == "stop"}
    problems = Problems()
    for (key, records), source in wanted.items():
        # Prompts that fill the context are those of instructions whose answer is cut away.
        if records != "prompts" or (key, "instructions") not in wanted:
            problems.update(unusable(source, records, tokenizer, max_length))
    problems.stop(REMEDY)


def unusable(source: DataSource, records: Records, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Problems:
    """The records of one kind that cannot be used at a length."""
    truncation = Truncation(max_length)
    for split in SPLITS:
        if records == "instructions":
            collected(source.instructions(split), example_encoder(tokenizer, truncation), "example", truncation)
        elif records == "comparisons":
            collected(source.comparisons(split), comparison_encoder(tokenizer, truncation), "comparison", truncation)
        elif records == "labelled":
            found = [Example(r.prompt, r.answer, source=r.source) for r in source.labelled(split)]
            collected(found, example_encoder(tokenizer, truncation), "answer", truncation)
        elif records == "prompts":
            _check_prompts(source.prompts(split), tokenizer, truncation)
    return truncation.problems


def _check_prompts(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, truncation: Truncation) -> None:
    quiet(tokenizer)
    for prompt in prompts:
        name = repr(prompt.text[:60])
        try:
            length = len(encode_prompt(tokenizer, prompt))
        except DataError as error:
            truncation.problems.add(name, fact_of(str(error)))
        else:
            if length >= truncation.max_length:
                what = f"a prompt to be answered has {length} tokens and max_length is {truncation.max_length}"
                truncation.problems.add(name, what)
