"""Prose is plain English: the mechanical part of "Voice" in CONTRIBUTING.md, for pages, options, messages and code."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NOT_A_NOUN = "(?!is|has|was|of|for|in|at|by|to|as|and|or|per|that|with|on|from|after|before)"
HABITS = {
    r"anew": "again",
    r"shall": "must, or the present tense",
    r"of whom": "whose, or a sentence of its own",
    r"beside": "next to",
    r"mends?": "fix",
    r"whoever": "the noun",
    r"held near": "kept close to",
    r"(?:go|goes|gone) on(?= (?:with|from|to the same|\w+ing|offline)\b|[.,;:)])": "continue",
    r"hears?": "receive, read",
    r"moods?": "noise",
    r"(?:stand|stands|stood) by": "the plain verb",
    r"(?<!there\s)(?:is|are) no (?!longer|more|less)\w+": "is not a",
    rf"(?:one {NOT_A_NOUN}\w+|nats|registers|bytes) an? \w+": "per",
}
"""Habits, as expressions, and what to write in their place."""

EXCEPT = ("CONTRIBUTING.md",)  # lists the habits themselves

NUMBERED = {f"h{i}": habit for i, habit in enumerate(HABITS)}
ANY = re.compile(
    "|".join(rf"(?P<{name}>\b{habit}\b)".replace(" ", r"\s+") for name, habit in NUMBERED.items()), re.IGNORECASE
)
SUMMARY = re.compile(r"(?:What|Which|Who)\b")
QUOTED = "he shall you with a dream"
"""A model's own words, in experiments/real_data."""
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

PAGES = ["*.md", "llms.txt", "docs/*.md", "docs/*.yaml", "plugins/*.md", "plugins/*/*.md", "experiments/**/*.md"]
OPTIONS = ["conf/**/*.yaml", "plugins/*/conf/**/*.yaml", "experiments/**/*.yaml"]
CODE = ["alignlab/**/*.py", "plugins/*/*.py"]

Finding = tuple[int, str]
"""Line, and the phrase with what to write in its place."""


def habits(text: str, line: int = 1) -> Iterator[Finding]:
    """The habits in a text whose first line has the number `line`."""
    for found in ANY.finditer(text):
        (habit,) = (NUMBERED[name] for name, phrase in found.groupdict().items() if phrase is not None)
        yield line + text.count("\n", 0, found.start()), f"{' '.join(found[0].split())!r}; write: {HABITS[habit]}"


def page(text: str) -> Iterator[Finding]:
    """Habits of a page, its blocks of code left out."""
    yield from habits(BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text.replace(QUOTED, "")))


def option(text: str) -> Iterator[Finding]:
    """Habits of the comments of a YAML file, and a first comment that begins with a question word."""
    for number, line in enumerate(text.splitlines(), 1):
        comment = line.partition("#")[2].strip()
        yield from habits(comment, number)
        if SUMMARY.match(comment):
            yield number, f"{comment[:40]!r}; write: a noun or an imperative first"


def code(text: str) -> Iterator[Finding]:
    """Habits of the strings and comments of a module, and docstrings that begin with a question word."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from habits(node.value, node.lineno)
        match node:
            case ast.Expr(value=ast.Constant(value=str(docstring))) if SUMMARY.match(docstring.lstrip()):
                yield node.lineno, f"{docstring.lstrip()[:40]!r}; write: a noun or an imperative first"
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield from habits(token.string, token.start[0])


READERS = {"pages": (PAGES, page), "options": (OPTIONS, option), "code": (CODE, code)}


@pytest.mark.parametrize("kind", READERS)
def test_prose_is_plain_english(kind: str) -> None:
    patterns, read = READERS[kind]
    found = [
        f"{name}:{line}: {phrase}"
        for file in sorted({f for pattern in patterns for f in ROOT.glob(pattern)})
        if not (name := file.relative_to(ROOT).as_posix()).startswith(EXCEPT)
        for line, phrase in read(file.read_text(encoding="utf-8"))
    ]
    assert not found, "see Voice in CONTRIBUTING.md\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ('"""Prints.\n\nThe stage begins\nanew.\n"""', (4, "'anew'")),
        ('raise ValueError("a folder is no\\nrun")', (1, "'is no run'")),
        ('"""What the stage does."""', (1, "'What the stage does.'")),
        ("x = 1  # one line a stage", (1, "'one line a stage'")),
        ('say("it goes on from there")', (1, "'goes on'")),
    ],
)
def test_a_habit_is_found_with_its_line(text: str, phrase: Finding) -> None:
    ((line, words),) = code(text)
    assert (line, words.partition(";")[0]) == phrase


@pytest.mark.parametrize(
    "text", ["there is no such run", "is no longer so", "one of a kind", "it depends on what goes on the axis"]
)
def test_plain_words_are_left_alone(text: str) -> None:
    assert not list(habits(text))
