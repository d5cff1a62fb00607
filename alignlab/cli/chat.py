"""`alignlab chat RUN STAGE`: talk to any stage's model in the terminal.

A model that was only ever pretrained continues the text it is given; every other one is asked through its chat
template, each line on its own: most models here were never shown a second turn. `--history` keeps the turns. Reads
standard input, so that questions can be piped in.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alignlab.artifact import MANIFEST, SAMPLES, Artifact
from alignlab.errors import ConfigError, DataError, PipelineError, suggestion
from alignlab.sanitize import printable

Answer = Callable[[str], str]


def run(arguments: list[str]) -> int:
    """Answer line by line until the input ends; exit code."""
    asked = _parser().parse_args(arguments)
    artifact = find_model(Path(asked.run), asked.stage)
    plain = is_base(artifact) if asked.plain is None else asked.plain
    answer = _model(artifact, plain, asked)
    turns = "; /new forgets what was said" if asked.history else ", each line on its own"
    how = "it continues what you write" if plain else f"ask it something{turns}"
    _note(f"{asked.stage or artifact.path.name}: {how}; /quit or Ctrl-D ends")
    if examples := _examples(Path(asked.run)):
        _note(f"it was evaluated on questions such as: {' | '.join(examples)}")
    for line in _lines():
        try:
            _say(answer(line) or "(empty)")
        except DataError as error:  # too long, or with a control token in it
            _note(str(error))
    return 0


def _examples(run: Path, count: int = 3) -> list[str]:
    """Prompts that the run's models were evaluated on, of different kinds."""
    file = run / SAMPLES
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    first: dict[str, str] = {}
    for row in rows:
        first.setdefault(str(row.get("kind")), " ".join(str(row["prompt"]).split()))
    return [printable(text, limit=60) for text in list(first.values())[:count]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("alignlab chat", description="Talk to a stage's model in the terminal.")
    parser.add_argument("run", metavar="RUN", help="a run folder, or a model's folder")
    parser.add_argument("stage", metavar="STAGE", nargs="?", help="name of a stage of the run")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (default 0.7)")
    parser.add_argument("--top-p", type=float, default=1.0, help="keep the likeliest tokens up to this sum (default 1)")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="longest answer in tokens (default 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default 0)")
    parser.add_argument("--history", action="store_true", help="let the model see the turns before")
    parser.add_argument("--plain", action=argparse.BooleanOptionalAction, help="continue text instead of chatting")
    return parser


def find_model(run: Path, stage: str | None) -> Artifact:
    """The model of a stage of a run, or in a folder of its own.

    Raises:
        PipelineError: there is no such run or stage, or what the stage made is no policy.
    """
    if not run.is_dir():
        raise PipelineError(f"no such folder: {run}; RUN is a run folder such as runs/DATE/TIME")
    stages = _stages(run)
    if stages is None:
        if stage is not None:
            raise PipelineError(f"{run} is no run folder: its {MANIFEST} lists no stages")
        return _policy(Artifact.open(run), str(run))
    in_order = sorted(stages, key=lambda name: stages[name]["order"])
    models = [name for name in in_order if stages[name]["kind"] == "policy"]
    if stage is None or stage not in stages:
        what = f"{stage!r} is no stage of {run}" if stage else f"name a stage of {run}"
        raise PipelineError(f"{what}; models: {', '.join(models)}{suggestion(stage or '', models)}")
    return _policy(Artifact.open(stages[stage]["artifact"]), f"{stage} (talk to {', '.join(models)})")


def _stages(run: Path) -> dict[str, Any] | None:
    file = run / MANIFEST
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    stages: dict[str, Any] | None = content.get("stages")
    return stages


def _policy(artifact: Artifact, what: str) -> Artifact:
    if artifact.kind != "policy":
        raise PipelineError(f"{what} made a {artifact.kind}; only a policy can be talked to")
    return artifact


def is_base(artifact: Artifact) -> bool:
    """Whether a policy was made from scratch: it has never seen a conversation."""
    return bool(artifact.manifest) and "policy" not in artifact.manifest.get("inputs", {})


# ---- answering -------------------------------------------------------------------------------------------------------
def _model(artifact: Artifact, plain: bool, asked: argparse.Namespace) -> Answer:
    """What answers a line."""
    from alignlab.policy import Policy, Sampling

    try:
        sampling = Sampling(asked.temperature, asked.top_p, 0, asked.max_new_tokens)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    policy = Policy.load(artifact)
    return (
        Continuation(policy, sampling, asked.seed)
        if plain
        else Conversation(policy, sampling, asked.seed, asked.history)
    )


class Continuation:
    """Continues each line as a text of its own."""

    def __init__(self, policy: Any, sampling: Any, seed: int) -> None:
        self.policy, self.sampling, self.seed = policy, sampling, seed
        self._asked = 0

    def __call__(self, line: str) -> str:
        from alignlab.policy import complete

        self._asked += 1
        return complete(self.policy, [line], self.sampling, self.seed + self._asked)[0].text


class Conversation:
    """Answers each line; one that keeps the turns forgets the oldest when they no longer fit the model's context."""

    def __init__(self, policy: Any, sampling: Any, seed: int, keeps: bool) -> None:
        self.policy, self.sampling, self.seed = policy, sampling, seed
        self.keeps = keeps
        self.turns: list[tuple[str, str]] = []
        self._asked = 0

    def __call__(self, line: str) -> str:
        from alignlab.policy import generate

        if line == "/new":
            self.turns.clear()
            return "forgotten"
        self._asked += 1
        if unknown := unknown_words(self.policy.tokenizer, line):
            _note(f"this model has no token for: {', '.join(unknown)}")
        prompt = self._prompt(line)
        answer = generate(self.policy, [prompt], self.sampling, self.seed + self._asked)[0].text
        if self.keeps:
            self.turns.append((line, answer))
        return answer

    def _prompt(self, line: str) -> Any:
        """The conversation up to a line, as much of it as leaves room for an answer."""
        from alignlab.data.chat import encode_prompt
        from alignlab.data.records import Message, Prompt

        room = self.policy.context - min(self.sampling.max_new_tokens, self.policy.context // 2)
        while True:
            said = [m for ask, told in self.turns for m in (Message("user", ask), Message("assistant", told))]
            prompt = Prompt((*said, Message("user", line)))
            if not self.turns or len(encode_prompt(self.policy.tokenizer, prompt)) <= room:
                return prompt
            self.turns.pop(0)


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """The blank-separated words of a text that the tokenizer can only write as its unknown token."""
    if tokenizer.unk_token_id is None:
        return []
    return [w for w in text.split() if tokenizer.unk_token_id in tokenizer(w, add_special_tokens=False)["input_ids"]]


# ---- the terminal ----------------------------------------------------------------------------------------------------
def _lines() -> Iterator[str]:
    """What is typed or piped in, up to its end or `/quit`."""
    typed = sys.stdin.isatty()
    while True:
        try:
            line = input("> " if typed else "").strip()
        except EOFError:
            return
        if line == "/quit":
            return
        if line:
            yield line


def _note(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text(text, style="dim"), soft_wrap=True)


def _say(text: str) -> None:
    """Print what a model said, without the control characters that it may hold."""
    from rich.console import Console
    from rich.text import Text

    Console().print(Text(printable(text)), soft_wrap=True)
