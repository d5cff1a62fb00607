"""`alignlab chat RUN STAGE`: talk to any stage's model in the terminal.

A model that was only pretrained continues the text that it is given. Any other model is asked through its chat
template, and each line is a conversation of its own: most models here were never trained on a second turn. `--history`
keeps the turns. Reads standard input, so that questions can be piped in.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignlab.artifact import SAMPLES, Artifact
from alignlab.cli.arguments import Parser
from alignlab.cli.models import POLICIES, find_model
from alignlab.cli.talk import Talk, meant, spelt, unknown_words
from alignlab.errors import ConfigError, DataError, suggestion
from alignlab.sanitize import printable

COMMANDS = {
    "/help": "this list",
    "/examples": "questions that can be asked",
    "/temperature X": "how freely the model answers; 0 always takes the likeliest word",
    "/history on|off": "let the model see the turns before, or each line on its own",
    "/new": "forget the turns before",
    "/quit": "end (also Ctrl-D)",
}


def run(arguments: list[str]) -> int:
    """Answer line by line until the input ends; exit code."""
    asked = _parser().parse_args(arguments)
    artifact = find_model(Path(asked.run), asked.stage, POLICIES, "be talked to")
    examples = _examples(Path(asked.run), artifact)
    talk = _model(artifact, asked)
    how = "it continues what you write" if talk.plain else "ask it something"
    _note(f"{asked.stage or artifact.path.name}: {how}; /help lists commands, /quit or Ctrl-D ends")
    if examples and not talk.plain:
        _note(f"you could ask: {examples[0]}")
    for line in _lines():
        if line.startswith("/"):
            if line == "/quit":
                break
            _command(line, talk, examples)
        else:
            _answer(line, talk)
    return 0


def _answer(line: str, talk: Talk) -> None:
    tokenizer = talk.policy.tokenizer
    text = spelt(tokenizer, line)
    if text != line:
        _note(f"read as: {text}")
    if unknown := unknown_words(tokenizer, text):
        _note(f"this model has no token for: {', '.join(unknown)}{meant(tokenizer, unknown)}")
    try:
        _say(talk(text) or "(an empty answer)")
    except DataError as error:  # too long, or with a control token in it
        _note(str(error))


def _command(line: str, talk: Talk, examples: Sequence[str]) -> None:
    """Run a slash command, and print its effect."""
    word, _, value = line.partition(" ")
    if word == "/help":
        _note("\n".join(f"{name:<16} {what}" for name, what in COMMANDS.items()))
    elif word == "/examples":
        _note("\n".join(examples) or "there are no examples: this run evaluated no model")
    elif word == "/temperature":
        try:
            talk.sampling = dataclasses.replace(talk.sampling, temperature=float(value))
            _note(f"temperature {talk.sampling.temperature:g}")
        except ValueError:
            _note(f"/temperature takes a number from 0 up, such as /temperature 0.7; got {value or 'nothing'}")
    elif word == "/history" and value in ("on", "off"):
        talk.keeps = value == "on"
        talk.turns.clear()
        _note("it sees the turns before" if talk.keeps else "each line on its own")
    elif word == "/new":
        talk.turns.clear()
        _note("the turns before are forgotten")
    else:
        known = [name.partition(" ")[0] for name in COMMANDS]
        _note(f"unknown command {line}{suggestion(word, known) or '; /help lists them'}")


def _examples(run: Path, artifact: Artifact) -> list[str]:
    """Prompts of different kinds that the run's models were evaluated on, or that the stage's own samples answer."""
    rows = [row for folder in (run, artifact.path) for row in _rows(folder / SAMPLES)]
    first: dict[str, str] = {}
    for row in rows:
        if "prompt" in row and row.get("kind") not in ("document", "cloze"):
            first.setdefault(str(row.get("kind")), " ".join(str(row["prompt"]).split()))
    return [printable(text, limit=76) for text in first.values()]


def _rows(file: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError):  # examples help, but are not required
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return []


def _parser() -> Parser:
    parser = Parser("alignlab chat", description="Talk to a stage's model in the terminal.")
    parser.add_argument("run", metavar="RUN", help="a run folder, or a model's folder")
    parser.add_argument("stage", metavar="STAGE", nargs="?", help="name of a stage of the run")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (default 0.7)")
    parser.add_argument("--top-p", type=float, default=1.0, help="keep the likeliest tokens up to this sum (default 1)")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest answer in tokens (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default 0)")
    parser.add_argument("--history", action="store_true", help="let the model see the turns before")
    parser.add_argument("--plain", action=argparse.BooleanOptionalAction, help="continue text instead of chatting")
    return parser


def is_base(artifact: Artifact) -> bool:
    """Whether a policy was made from scratch: it has never seen a conversation."""
    return bool(artifact.manifest) and "policy" not in artifact.manifest.get("inputs", {})


def _model(artifact: Artifact, asked: argparse.Namespace) -> Talk:
    """The model, ready to answer lines."""
    from alignlab.policy import Policy, Sampling

    try:
        sampling = Sampling(asked.temperature, asked.top_p, 0, asked.max_new_tokens)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    plain = is_base(artifact) if asked.plain is None else asked.plain
    return Talk(Policy.load(artifact), sampling, plain, asked.history, asked.seed)


# ---- the terminal ----------------------------------------------------------------------------------------------------
def _lines() -> Iterator[str]:
    """Lines of standard input, typed or piped in, without the empty ones."""
    typed = sys.stdin.isatty()
    if typed:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # `input` then edits lines, and remembers them
    while True:
        try:
            line = input("> " if typed else "").strip()
        except EOFError:
            return
        if line:
            yield line


def _note(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text(text, style="dim"), soft_wrap=True)


def _say(text: str) -> None:
    """Print a model's answer without the control characters that it may hold."""
    from rich.console import Console
    from rich.text import Text

    Console().print(Text(printable(text)), soft_wrap=True)
