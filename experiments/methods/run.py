"""Run every method of grid.py at every strength from the same SFT models: `python experiments/methods/run.py FOLDER`.

Runs of one seed share everything up to the reward model through the store, so it is made once. A run that is complete
is not made again: stop this script, start it again, and it goes on.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from grid import METHODS, STEPS

SEEDS = (0, 1, 2)
START = "start"
"""The SFT model itself, measured as the methods are."""


def jobs(names: list[str], seeds: list[int]) -> list[tuple[str, int, list[str]]]:
    """Name of the run's folder, seed and overrides of each run, strengths outermost: a stopped grid is an even one."""
    strengths = range(max(len(METHODS[name].values) for name in names))
    return [
        (f"{name}/{METHODS[name].values[i]}/{seed}", seed, [*METHODS[name].overrides, f"{METHODS[name].knob}={value}"])
        for i in strengths
        for name in names
        for seed in seeds
        for value in METHODS[name].values[i : i + 1]
    ]


def is_complete(target: Path) -> bool:
    """Whether a run's folder says that it came to its end."""
    status = target / "status.json"
    return status.exists() and json.loads(status.read_text())["status"] == "completed"


def run(folder: Path, name: str, seed: int, overrides: list[str]) -> bool:
    """One run in a process and on a thread of its own; returns whether it is complete."""
    target = folder / "runs" / name.replace(" ", "_")
    if is_complete(target):
        return True
    target.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable, "-m", "alignlab", "experiment=methods", "runtime=deterministic", "tracking=off", f"seed={seed}",
        f"store_dir={folder / 'store'}", f"hydra.run.dir={target}", *overrides,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (target / "log.txt").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode
    print(f"{name}: {'done' if code == 0 else f'failed, see {target}/log.txt'}", flush=True)
    return code == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where runs and store go")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--only", nargs="+", default=list(METHODS), help="methods")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    args = parser.parse_args()
    folder = args.folder.resolve()
    itself = ["pipeline.drift.inputs.policy=sft", "pipeline.evaluate.inputs.policy=sft", f"{STEPS}=1"]
    with ThreadPoolExecutor(args.workers) as pool:
        done = list(pool.map(lambda seed: run(folder, f"{START}/0/{seed}", seed, itself), args.seeds))
        done += list(pool.map(lambda job: run(folder, *job), jobs(args.only, args.seeds)))
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
