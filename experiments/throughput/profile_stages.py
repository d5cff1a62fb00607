"""Where the time of a step goes, per task: shares of the parts of a stage, written to profile.csv.

    python profile_stages.py [TASK ...] [--pairs FILE] [--instructions FILE]

Each part is timed from its call to its return, without the parts that it calls itself.
"""

import argparse
import csv
import functools
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from run import HERE, make_models, make_rows
from work import TASKS, Clock, Rows, environment, until_done

PARTS = ("sampling", "reward", "reference and old log-probabilities", "forward", "head and loss", "backward")
REST = ("optimizer", "everything else")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--instructions", type=Path)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--one", type=Path, help="work folder: profile in this process, print a JSON line")
    given = parser.parse_args()
    if given.one:
        return print(json.dumps(profiled(given.tasks[0], given.one, given.seconds)))
    files = {"pairs": given.pairs, "instructions": given.instructions}
    names = given.tasks or [name for name, task in TASKS.items() if not task.file or files[task.file]]
    with tempfile.TemporaryDirectory() as folder, (HERE / "profile.csv").open("w", newline="") as stream:
        work = Path(folder)
        make_models(work)
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["task", *PARTS, *REST])
        for name in names:
            make_rows(TASKS[name], files).write(work / f"{name}.json")
            command = [sys.executable, __file__, name, "--one", folder, "--seconds", str(given.seconds)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(1), cwd=HERE)
            shares = json.loads(done.stdout.splitlines()[-1])
            writer.writerow([name, *(round(shares.get(part, 0.0), 3) for part in (*PARTS, *REST))])
            print(name, shares, flush=True)
    return None


class Shares:
    """Time by part, of nested calls without what they call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack: list[str] = ["everything else"]
        self._since = time.perf_counter()

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def timed(self, owner: Any, name: str, part: str) -> None:
        """Time a function or method of a module or class under a part."""
        plain: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(plain)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self._charge()
            self._stack.append(part)
            try:
                return plain(*arguments, **named)
            finally:
                self._charge()
                self._stack.pop()

        setattr(owner, name, wrapped)

    def of(self, parts: Iterable[str]) -> dict[str, float]:
        """Shares of all time."""
        self._charge()
        total = sum(self.seconds.values())
        return {part: self.seconds[part] / total for part in parts}


def profiled(name: str, work: Path, seconds: float) -> dict[str, float]:
    """Shares of one task, after its first steps."""
    import torch
    from side_alignlab import stage_of

    import alignlab.policy.policy as policy
    import alignlab.training.rollouts as rollouts
    from alignlab import Artifact, Runtime, StageContext

    torch.set_num_threads(1)
    task, rows, shares = TASKS[name], Rows.read(work / f"{name}.json"), Shares()
    shares.timed(policy.Policy, "hidden_states", "forward")
    shares.timed(policy, "from_head", "head and loss")
    shares.timed(policy.Policy, "_from_score_head", "head and loss")
    shares.timed(torch.Tensor, "backward", "backward")
    shares.timed(importlib.import_module("torch.optim.adam"), "adam", "optimizer")
    shares.timed(rollouts.Collector, "_rewards", "reward")
    shares.timed(rollouts.Collector, "measure", "reference and old log-probabilities")
    shares.timed(rollouts, "answers", "sampling")

    class Warmed(Clock):
        def tick(self) -> bool:
            done = super().tick()
            if len(self._wall) == 4:
                shares.seconds.clear()
            return done

    clock = Warmed(seconds)
    stage = stage_of(task, rows, clock, work)
    inputs = {key: Artifact.open(work / key) for key in stage.inputs}
    with tempfile.TemporaryDirectory() as scratch, until_done():
        folders = [Path(scratch, key) for key in ("artifact", "work")]
        for folder in folders:
            folder.mkdir()
        stage.run(inputs, StageContext("profile", *folders, Runtime(accelerator="cpu")))
    return shares.of((*PARTS, *REST))


if __name__ == "__main__":
    main()
