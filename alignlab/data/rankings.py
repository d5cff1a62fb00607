"""Rankings: as JSON lines between stages, as rows, and as batches.

A line of `rankings.jsonl` holds `prompt` (a list of messages), `answers` (two or more texts, the best first) and
`split`; where there are any, `facts` of the prompt, and whatever the stage logs with it (`source`, `index`, `rater`,
...).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from alignlab.artifact import RANKINGS, Artifact, write_lines
from alignlab.batch import PreferenceBatch
from alignlab.data.artifact_lines import common, prompt_of, records
from alignlab.data.chat import encode_answer
from alignlab.data.records import Ranking
from alignlab.data.rows import quiet
from alignlab.data.source import Split
from alignlab.data.tokenised import settled
from alignlab.data.truncation import Encode, Row, Truncation
from alignlab.data.types import PreTrainedTokenizerBase
from alignlab.errors import DataError

RowList: TypeAlias = list[Row]
"""The answers of one ranking, tokenised with their prompt, the best first."""


# ---- lines -----------------------------------------------------------------------------------------------------------
def row(ranking: Ranking, split: Split, **logged: Any) -> dict[str, Any]:
    """One line of the file, with further facts of the judgement."""
    return {**common(ranking.prompt), "answers": list(ranking.answers), "split": split, **logged}


def write(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rankings.jsonl` into an artifact's folder."""
    write_lines(folder / RANKINGS, rows)


def read(artifact: Artifact, split: Split) -> list[Ranking]:
    """The rankings of one split.

    Raises:
        DataError: there are none, or a line is not a ranking; the message names file and line.
    """
    needs = "a ranking needs prompt, answers (two or more different texts, the best first) and split"
    found = [ranking for part, ranking in records(artifact, RANKINGS, _ranking, needs) if part == split]
    if not found:
        raise DataError(f"{artifact.path / RANKINGS} holds no {split} ranking; rank answers to more prompts")
    return found


def _ranking(line: Mapping[str, Any], where: str) -> Ranking:
    answers = line["answers"]
    if not isinstance(answers, list) or not all(isinstance(a, str) for a in answers):
        raise TypeError("answers must be a list of texts")
    if len(answers) < 2 or len(set(answers)) < len(answers):
        raise ValueError(f"found {len(answers)} answers, {len(set(answers))} of them different")
    return Ranking(prompt_of(line), tuple(answers), line.get("source") or where)


# ---- rows and batches ------------------------------------------------------------------------------------------------
def ranking_encoder(tokenizer: PreTrainedTokenizerBase, truncation: Truncation) -> Encode[Ranking, RowList]:
    """Encodes one ranking; left out where two of its answers are the same tokens."""
    quiet(tokenizer)

    def encode(ranking: Ranking, name: str) -> list[RowList]:
        whole = [
            Row(*encode_answer(tokenizer, ranking.prompt, text), f"{name} (place {place})")
            for place, text in enumerate(ranking.answers, start=1)
        ]
        before = truncation.cut
        found = truncation.fit_all(whole)
        if all(list(a.tokens) != list(b.tokens) for a, b in itertools.combinations(found, 2)):
            return [found]
        truncation.cut = before
        truncation.identical.add(name, f"two answers are the same within {truncation.max_length} tokens")
        return []

    return encode


def ranking_parts(
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[Ranking],
    held_out: Sequence[Ranking],
    truncation: Truncation,
    skip: bool = False,
) -> tuple[Sequence[RowList], Sequence[RowList]]:
    """Rankings of both parts, the answers and their stop tokens scored.

    Args:
        tokenizer: of the policy.
        train: records to learn from.
        held_out: records to validate on.
        truncation: cuts and counts; rankings with two answers of the same tokens (once cut) are left out and counted.
        skip: leave out what cannot be used.

    Raises:
        DataError: some cannot be used (and `skip` is off; all are in the message), or nothing is left to learn from.
    """
    found = settled([train, held_out], ranking_encoder(tokenizer, truncation), "ranking", truncation, skip)
    return found[0], found[1]


def ranking_batch(lists: Sequence[RowList]) -> PreferenceBatch:
    """Rankings as one flat batch; each is a unit, its best answer first."""
    flat = [(unit, row) for unit, rows in enumerate(lists) for row in rows]
    tokens, masks, names = zip(*((row.tokens, row.mask, row.name) for _, row in flat), strict=True)
    return PreferenceBatch.of(tokens, masks, names, unit=[unit for unit, _ in flat])
