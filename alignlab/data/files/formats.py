"""Shapes of records, recognised by their columns, and how each is read.

A file plays one of six roles: corpus, prompts, instructions, preferences, rankings, labelled. Each role accepts the
shapes of `SHAPES`; the first whose columns are all there is taken, so the more specific ones stand first.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

from alignlab.data import conversations, judgement
from alignlab.data.files.fields import Fields
from alignlab.data.records import Asked, Comparison, Document, Example, Facts, Labelled, Prompt, Ranking
from alignlab.errors import ConfigError, DataError

Role = Literal["corpus", "prompts", "instructions", "preferences", "rankings", "labelled"]
Record = Document | Asked | Example | Comparison | Ranking | Labelled
SYSTEM = "system"
"""A column that every shape with a prompt also reads."""
ANSWER = "answer"
"""The fact that holds the reference answer of a `question_answer` record."""


@dataclass(frozen=True)
class Shape:
    """One way to lay out a record.

    Args:
        name: for `data.shape`.
        columns: all of these are needed.
        read: the records that one row holds.
        optional: also read where they are there.
    """

    name: str
    columns: tuple[str, ...]
    read: Callable[[Fields], Sequence[Record]]
    optional: tuple[str, ...] = ()

    def __str__(self) -> str:
        extra = "".join(f", [{c}]" for c in self.optional)
        return f"{self.name} ({', '.join(self.columns)}{extra})"


def _text(row: Fields) -> list[Document]:
    return [Document(row.text("text"), row.where)]


def _asked(row: Fields) -> list[Asked]:
    return [Asked(row.prompt("prompt"), row.where)]


def _asked_messages(row: Fields) -> list[Asked]:
    """A conversation up to the last turn that is to be answered; an answer that it ends with is left out."""
    said, _ = row.turns("messages")
    asked = said[:-1] if said[-1].role == "assistant" else said
    return [Asked(row.checked("messages", lambda: conversations.as_prompt(asked)), row.where)]


def _asked_instruction(row: Fields) -> list[Asked]:
    return [Asked(_alpaca_prompt(row), row.where)]


def _asked_question(row: Fields) -> list[Asked]:
    prompt, answer = _question(row), row.optional("answer")
    return [Asked(replace(prompt, facts=((ANSWER, answer),)) if answer else prompt, row.where)]


def _question(row: Fields) -> Prompt:
    return _instructed(row.said("question"), row.optional("context"), row.optional("system"))


def _instructed(instruction: str, context: str, system: str = "") -> Prompt:
    return Prompt.user(f"{instruction}\n\n{context}" if context.strip() else instruction, system)


def _alpaca_prompt(row: Fields) -> Prompt:
    return _instructed(row.said("instruction"), row.optional("input"), row.optional("system"))


def _alpaca(row: Fields) -> list[Example]:
    return [Example(_alpaca_prompt(row), row.said("output"), source=row.where)]


def _messages(row: Fields) -> list[Example]:
    messages, learnt = row.turns("messages")
    answers = row.checked("messages", lambda: conversations.answers(messages, learnt))
    for message, on in zip(messages, learnt, strict=True):
        if message.role == "assistant" and not on:
            row.remarks.add(row.where, "answers not learnt from, as their weight is 0 or their train is false")
    return [Example(prompt, answer, source=row.where) for prompt, answer in answers]


def _prompt_completion(row: Fields) -> list[Example]:
    return [Example(*row.reply("completion", row.prompt("prompt")), source=row.where)]


def _prompt_completion_label(row: Fields) -> list[Labelled]:
    prompt, answer = row.reply("completion", row.prompt("prompt"))
    return [Labelled(prompt, answer, row.flag("label"), row.where)]


def _question_answer(row: Fields) -> list[Example]:
    prompt, answer = _question(row), row.said("answer")
    return [Example(replace(prompt, facts=((ANSWER, answer),)), answer, source=row.where)]


def _self_instruct(row: Fields) -> list[Example]:
    instruction, system = row.said("instruction"), row.optional("system")
    prompts = [(_instructed(instruction, i.optional("input"), system), i) for i in row.records("instances")]
    return [Example(prompt, i.said("output"), source=row.where) for prompt, i in prompts]


def _prompt_chosen_rejected(row: Fields) -> list[Comparison]:
    return [Comparison(*row.replies(row.prompt("prompt")), row.where, row.notes())]


def _alpaca_chosen_rejected(row: Fields) -> list[Comparison]:
    return [Comparison(*row.replies(_alpaca_prompt(row)), row.where, row.notes())]


def _transcripts(row: Fields) -> list[Comparison]:
    chosen, rejected = row.conversation("chosen"), row.conversation("rejected")
    prompt, better, worse = row.checked("chosen", lambda: conversations.compared(chosen, rejected))
    return [Comparison(prompt, better, worse, row.where, row.notes())]


def _prompt_answers(row: Fields) -> list[Ranking]:
    return [Ranking(row.prompt("prompt"), tuple(row.ranked("answers")), row.where)]


_LABELLED = (Shape("prompt_completion_label", ("prompt", "completion", "label"), _prompt_completion_label),)
_PREFERENCES = (
    Shape("alpaca_chosen_rejected", ("instruction", "chosen", "rejected"), _alpaca_chosen_rejected, ("input",)),
    Shape("prompt_chosen_rejected", ("prompt", "chosen", "rejected"), _prompt_chosen_rejected),
    Shape("transcripts", ("chosen", "rejected"), _transcripts),
)
SHAPES: Mapping[Role, tuple[Shape, ...]] = {
    "corpus": (Shape("text", ("text",), _text),),
    "prompts": (
        Shape("messages", ("messages",), _asked_messages),
        Shape("prompt", ("prompt",), _asked),
        Shape("instruction", ("instruction",), _asked_instruction, ("input",)),
        Shape("question", ("question",), _asked_question, ("context", "answer")),
    ),
    "instructions": (
        Shape("messages", ("messages",), _messages),
        Shape("self_instruct", ("instruction", "instances"), _self_instruct),
        Shape("alpaca", ("instruction", "output"), _alpaca, ("input",)),
        *_LABELLED,
        Shape("prompt_completion", ("prompt", "completion"), _prompt_completion),
        Shape("question_answer", ("question", "answer"), _question_answer, ("context",)),
        *_PREFERENCES,
    ),
    "preferences": _PREFERENCES,
    "rankings": (Shape("prompt_answers", ("prompt", "answers"), _prompt_answers),),
    "labelled": _LABELLED,
}
"""Shapes of each role. As instructions, a labelled answer counts when it is good, a pair by its chosen answer."""


def named(role: Role, name: str) -> Shape:
    """The shape that the configuration asks for.

    Raises:
        ConfigError: the role has no such shape.
    """
    for shape in SHAPES[role]:
        if shape.name == name:
            return shape
    raise ConfigError(f"data.shape.{role}: no shape {name!r}; {role} may be {_listed(role)}, or null to detect it")


def detect(role: Role, columns: Collection[str], where: str) -> Shape:
    """The first of the role's shapes whose columns are all there; `where` is for the message.

    Raises:
        DataError: there is none; the message lists what was found and what is accepted.
    """
    for shape in SHAPES[role]:
        if set(shape.columns) <= set(columns):
            return shape
    raise DataError(
        f"{where}: the columns ({', '.join(columns) or 'none'}) fit no shape of {role}{_nearest(role, columns)}; "
        f"rename them to one of: {_listed(role)}"
    )


def _nearest(role: Role, columns: Collection[str]) -> str:
    """The shape that lacks the fewest columns, among those of which any column is there."""
    near = [s for s in SHAPES[role] if set(s.columns) & set(columns)]
    if not near:
        return ""

    def lacking(shape: Shape) -> list[str]:
        return [c for c in shape.columns if c not in columns]

    def misspelt(shape: Shape) -> int:
        return sum(bool(get_close_matches(c, columns)) for c in lacking(shape))

    shape = min(near, key=lambda s: (len(lacking(s)) - misspelt(s), len(lacking(s))))
    return f" (nearest: {shape.name}, which lacks {', '.join(lacking(shape))})"


def in_role(role: Role, record: Record) -> Record | None:
    """The record as its role needs it; None for a bad answer among instructions."""
    if role == "instructions" and isinstance(record, Comparison):
        return Example(record.prompt, record.chosen, source=record.source)
    if role == "instructions" and isinstance(record, Labelled):
        return Example(record.prompt, record.answer, source=record.source) if record.good else None
    return record


def with_facts(record: Record, facts: Facts) -> Record:
    """The record, its prompt carrying these facts too."""
    if isinstance(record, Document) or not facts:
        return record
    known = dict(record.prompt.facts)
    more = tuple((name, value) for name, value in facts if name not in known)
    return replace(record, prompt=replace(record.prompt, facts=(*record.prompt.facts, *more)))


def with_scores(record: Record, scores: Mapping[str, float]) -> Record:
    """The record, its answer carrying these scores too."""
    if not isinstance(record, Example) or not scores:
        return record
    return replace(record, scores={**record.scores, **scores})


def is_record(role: Role, columns: Iterable[str]) -> bool:
    """Whether some columns are those of a record of this role."""
    found = set(columns)
    return any(set(shape.columns) <= found for shape in SHAPES[role])


def used_columns(role: Role, shape: Shape, columns: Collection[str]) -> set[str]:
    """Those of a record's columns that are read for this role."""
    used = {*shape.columns, *shape.optional, *(() if role == "corpus" else (SYSTEM,))}
    return used | (judgement.columns(columns) if role == "preferences" else set())


def teaches_nothing(record: Record) -> str:
    """Why a well-formed record is left out, empty where it is not."""
    if isinstance(record, Document):
        return "" if record.text.strip() else "empty text"
    if not record.prompt.messages[-1].content.strip():
        return "empty prompt"
    if isinstance(record, Asked):
        return ""
    if isinstance(record, Comparison):
        answers: tuple[str, ...] = (record.chosen, record.rejected)
    else:
        answers = record.answers if isinstance(record, Ranking) else (record.answer,)
    if not all(a.strip() for a in answers):
        return "empty answer"
    return "chosen and rejected are the same" if len(set(answers)) < len(answers) else ""


def _listed(role: Role) -> str:
    return "; ".join(str(shape) for shape in SHAPES[role])
