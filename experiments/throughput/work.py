"""The work that both sides do: a model, and rows of token ids of fixed or real lengths. Plain Python, no torch.

Each task is timed by a process of its own, on rows that one file holds, so that both sides see the same tokens.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

VOCABULARY, WIDTH, LAYERS, HEADS, FEEDFORWARD, CONTEXT = 2048, 128, 4, 4, 512, 1024
PAD, BOS, EOS = 0, 1, 2
ROWS = 512
WARMUP = 3


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Args:
        kind: what is trained.
        batch: sequences, pairs or samples per optimizer step.
        prompt: tokens of every prompt; 0 where there is none. Of uneven tasks, see `file`.
        answer: tokens of every answer.
        file: role of the real file whose lengths are taken; empty for fixed lengths.
        reference: "step" asks the reference in every step, "once" before training.
        group: samples per prompt.
        epochs: visits to each buffer of samples.
    """

    kind: str
    batch: int
    prompt: int = 0
    answer: int = 0
    file: str = ""
    reference: str = ""
    group: int = 1
    epochs: int = 1


TASKS = {
    "sft": Task("sft", 8, 0, 128),
    "sft_completion": Task("sft", 8, 64, 64),
    "dpo": Task("dpo", 8, 32, 64, reference="step"),
    "dpo_once": Task("dpo", 8, 32, 64, reference="once"),
    "reward": Task("reward", 8, 1, 95),
    "ppo_1_epoch": Task("ppo", 16, 16, 32, epochs=1),
    "ppo_4_epochs": Task("ppo", 16, 16, 32, epochs=4),
    "grpo": Task("grpo", 16, 16, 32, group=8),
    "sft_uneven": Task("sft", 8, file="instructions"),
    "dpo_uneven": Task("dpo", 8, file="pairs", reference="step"),
    "dpo_once_uneven": Task("dpo", 8, file="pairs", reference="once"),
    "reward_uneven": Task("reward", 8, file="pairs"),
}


@dataclass(frozen=True)
class Rows:
    """Token ids of one task: prompts, and one or two answers to each, which end with EOS."""

    prompts: Sequence[Sequence[int]]
    answers: Sequence[Sequence[Sequence[int]]]

    @classmethod
    def read(cls, file: Path) -> "Rows":
        found = json.loads(file.read_text(encoding="utf-8"))
        return cls(found["prompts"], found["answers"])

    def write(self, file: Path) -> None:
        file.write_text(json.dumps({"prompts": self.prompts, "answers": self.answers}), encoding="utf-8")

    @property
    def tokens(self) -> float:
        """Mean tokens of one unit (a text, a pair), padding and shared prompts counted as the unit has them."""
        pairs = zip(self.prompts, self.answers, strict=True)
        return statistics.fmean(sum(len(p) + len(a) for a in answers) for p, answers in pairs)


def fixed_rows(task: Task, seed: int = 1) -> Rows:
    """Rows of exactly the task's lengths, of random tokens."""
    draw = random.Random(seed)
    each = 2 if task.kind in ("dpo", "reward") else 1

    def tokens(count: int) -> list[int]:
        return [draw.randrange(EOS + 1, VOCABULARY) for _ in range(count)]

    prompts = [tokens(task.prompt) for _ in range(ROWS)]
    return Rows(prompts, [[[*tokens(task.answer - 1), EOS] for _ in range(each)] for _ in range(ROWS)])


class Done(Exception):
    """Enough steps were timed."""


class Clock:
    """Times a step from one `tick` to the next: everything that the trainer does is in it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._wall: list[float] = []
        self._cpu: list[float] = []

    def tick(self) -> bool:
        """Whether `seconds` have passed, with at least ten steps after the warm-up."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._wall.append(time.perf_counter())
        self._cpu.append(used.ru_utime + used.ru_stime)
        return len(self._wall) > WARMUP + 10 and self._wall[-1] - self._wall[0] > self._seconds

    def result(self, tokens: float) -> dict[str, float]:
        """Medians over the steps after the warm-up; `tokens` of one step."""
        wall, cpu = _differences(self._wall), _differences(self._cpu)
        return {
            "steps": len(wall),
            "ms": round(1e3 * statistics.median(wall), 2),
            "cpu_ms": round(1e3 * statistics.median(cpu), 2),
            "tokens_per_second": round(tokens / statistics.median(wall)),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }


def _differences(times: Sequence[float]) -> list[float]:
    return [b - a for a, b in zip(times[WARMUP:], times[WARMUP + 1 :], strict=False)]


def arguments(tasks: Iterable[str] = TASKS, **further: str) -> argparse.Namespace:
    """The arguments of one side; `further` are options by their defaults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=list(tasks))
    parser.add_argument("--work", type=Path, required=True, help="folder with the models and the rows")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=2)
    for name, default in further.items():
        parser.add_argument(f"--{name}", default=default)
    return parser.parse_args()


@contextlib.contextmanager
def until_done() -> Iterator[None]:
    """Context that ends quietly when a step's clock says that it is enough."""
    with contextlib.suppress(Done):
        yield


def environment(threads: int) -> dict[str, str]:
    """Variables of a timed process: offline, quiet, and without threads that spin while they wait."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "CI": "1",  # TRL sends no telemetry then
    }
