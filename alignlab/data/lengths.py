"""Lengths: whether records fit, for all stages that share a tokenizer, before the first of them trains.

The third question of `alignlab.data.preflight`, for the stage that makes or loads the tokenizer to ask.
"""

import itertools
from collections.abc import Iterator, Sequence

from alignlab.data.chat import encode_prompt
from alignlab.data.coverage import coverage
from alignlab.data.encoding import ComparisonEncoder, ExampleEncoder, quiet
from alignlab.data.problems import Problems, fact_of
from alignlab.data.rankings import ranking_encoder
from alignlab.data.records import Example, Prompt
from alignlab.data.source import DataSource, Need, Records, Split
from alignlab.data.tokenised import collected
from alignlab.data.truncation import REMEDY, Truncation
from alignlab.data.types import PreTrainedTokenizerBase
from alignlab.errors import DataError

MOST_TEXTS = 500
"""Texts of each kind that are looked at for unknown words."""
SPLITS: tuple[Split, ...] = ("train", "validation")


def unknown_words(needs: Sequence[tuple[DataSource, Need]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A warning for each kind of record whose words the tokenizer does not know: a policy of another world, say.

    The first records of each kind are looked at; documents are those that a tokenizer is made from, and are left out.
    """
    found, sources = [], {(id(source), need.records): source for source, need in needs}
    for (_, records), source in sources.items():
        if warning := coverage(tokenizer, itertools.islice(_texts(source, records), MOST_TEXTS)).warning():
            found.append(f"{records}: {warning.rpartition(';')[0]}; was the policy trained on other data?")
    return found


def _texts(source: DataSource, records: Records) -> Iterator[str]:
    """Prompts and answers of one kind of record, of the part to learn from."""
    if records == "prompts":
        yield from (prompt.text for prompt in source.prompts("train"))
    elif records == "instructions":
        yield from (text for example in source.instructions("train") for text in (example.prompt.text, example.answer))
    elif records == "comparisons":
        yield from (text for pair in source.comparisons("train") for text in (pair.prompt.text, pair.chosen))
    elif records == "rankings":
        yield from (text for r in source.rankings("train") for text in (r.prompt.text, r.answers[0]))
    elif records == "labelled":
        yield from (text for record in source.labelled("train") for text in (record.prompt.text, record.answer))


def check_lengths(needs: Sequence[tuple[DataSource, Need]], tokenizer: PreTrainedTokenizerBase, context: int) -> None:
    """Check that every record that stages will read can be used: its prompt fits, and something of its answer.

    Documents are cut into windows and always fit. A source that skips what cannot be used is not checked: its stages
    count what they leave out.

    Args:
        needs: of all stages that will use the tokenizer.
        tokenizer: of their policies.
        context: the model's, in tokens.

    Raises:
        DataError: records cannot be used; all of them are in the message, by kind.
    """
    sources = {id(source): source for source, _ in needs if source.on_bad_record == "stop"}
    wanted: dict[tuple[int, Records], int] = {}  # the shortest length at which each kind of record is used
    for source, need in needs:
        if id(source) in sources:
            kind = id(source), need.records
            wanted[kind] = min(wanted.get(kind, context), need.max_length or context)
    problems = Problems()
    for (key, records), length in wanted.items():
        # Prompts that fill the context are those of instructions whose answer is cut away.
        if records != "prompts" or (key, "instructions") not in wanted:
            problems.update(unusable(sources[key], records, tokenizer, length))
    problems.stop(REMEDY)


def unusable(source: DataSource, records: Records, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Problems:
    """The records of one kind that cannot be used at a length."""
    truncation = Truncation(max_length)
    for split in SPLITS:
        if records == "instructions":
            collected(source.instructions(split), ExampleEncoder(tokenizer, truncation), "example", truncation)
        elif records == "comparisons":
            collected(source.comparisons(split), ComparisonEncoder(tokenizer, truncation), "comparison", truncation)
        elif records == "rankings":
            collected(source.rankings(split), ranking_encoder(tokenizer, truncation), "ranking", truncation)
        elif records == "labelled":
            found = [Example(r.prompt, r.answer, source=r.source) for r in source.labelled(split)]
            collected(found, ExampleEncoder(tokenizer, truncation), "answer", truncation)
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
