"""Measure what a sweep over beta costs, with what its runs share, against each run by itself; writes results.csv.

    python run.py            # a few minutes on two cores that are free

Every command is a process of its own with a store of its own, which is empty at first. CPU seconds are those of the
process and of all that it started and waited for (`getrusage`).
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean

HERE = Path(__file__).resolve().parent
BETAS = tuple(round(0.05 * number, 2) for number in range(1, 21))
ALONE = (0.05, 0.5, 1.0)
"""Values that are also run by themselves, each with an empty store."""
KEY = "pipeline.dpo.objective.beta"
COMMON = ("experiment=smoke", "tracking=off", "runtime.threads=1")
SWEEPS: Mapping[str, Sequence[str]] = {
    "basic": (),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
}
NAMES: Mapping[str, str] = {
    "basic": "one sweep, one run after another (`basic`)",
    "joblib": "one sweep, two runs at the same time (`joblib`)",
}


@dataclass(frozen=True)
class Row:
    """A measurement: of a whole command where `stage` is empty, else of a stage.

    Args:
        command: `basic` and `joblib` are sweeps; `alone 0.5` is one run.
        stage: by name.
        runs: that the command has, or that computed the stage.
        cpu: seconds of the whole command, 0 for a stage.
        wall: seconds of the command, or of the stage in a run that computed it, on average.
    """

    command: str
    stage: str
    runs: int
    cpu: float
    wall: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    given = parser.parse_args()
    rows: list[Row] = []
    for beta in ALONE:
        rows += measured(f"alone {beta}", ["hydra.run.dir=runs", f"{KEY}={beta}"])
        write(rows, given.out)
    for name, launcher in SWEEPS.items():
        betas = ",".join(map(str, BETAS))
        rows += measured(name, ["-m", "hydra.sweep.dir=runs", f"{KEY}={betas}", *launcher])
        write(rows, given.out)
    print(f"\n{costs(rows)}\n\n{stages(rows)}")


def measured(command: str, words: Sequence[str]) -> list[Row]:
    """Run a command in an empty folder; a row for the whole and one for each stage that it computed."""
    with tempfile.TemporaryDirectory() as folder:
        before, started = _cpu(), time.perf_counter()
        line = [sys.executable, "-m", "alignlab", *words, *COMMON]
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, cwd=folder, env=variables, capture_output=True, text=True, check=False)
        wall, cpu = time.perf_counter() - started, _cpu() - before
        if done.returncode:
            raise SystemExit(f"{' '.join(line)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
        manifests = [json.loads(file.read_text()) for file in sorted(Path(folder, "runs").glob("**/manifest.json"))]
    runs = [manifest["stages"] for manifest in manifests if "overrides" in manifest]
    rows = [Row(command, "", len(runs), round(cpu, 1), round(wall, 1))]
    for stage in runs[0]:
        seconds = [run[stage]["seconds"] for run in runs if not run[stage]["cached"]]
        rows.append(Row(command, stage, len(seconds), 0.0, round(mean(seconds), 2)))
    print(rows[0], flush=True)
    return rows


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# ---- the page --------------------------------------------------------------------------------------------------------
def write(rows: Iterable[Row], file: Path) -> None:
    """Write the table."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def load(file: Path) -> list[Row]:
    """Read it again."""
    with file.open(newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))
    return [Row(r["command"], r["stage"], int(r["runs"]), float(r["cpu"]), float(r["wall"])) for r in found]


def whole(rows: Iterable[Row], command: str) -> Row:
    """The row of a whole sweep."""
    (found,) = (row for row in rows if row.command == command and not row.stage)
    return found


def twenty_alone(rows: Iterable[Row]) -> tuple[float, float]:
    """CPU and wall seconds of a run by itself, times twenty."""
    alone = [row for row in rows if row.command.startswith("alone") and not row.stage]
    return len(BETAS) * mean(row.cpu for row in alone), len(BETAS) * mean(row.wall for row in alone)


def computed(rows: Iterable[Row], command: str) -> dict[str, int]:
    """How many runs of a sweep computed each stage."""
    return {row.stage: row.runs for row in rows if row.command == command and row.stage}


def seconds(rows: Iterable[Row]) -> dict[str, float]:
    """Seconds of each stage in a run by itself."""
    alone = [row for row in rows if row.command.startswith("alone") and row.stage]
    return {stage: mean(r.wall for r in alone if r.stage == stage) for stage in dict.fromkeys(r.stage for r in alone)}


def promised(rows: Sequence[Row]) -> float:
    """The share that is left by arithmetic: what all runs share once and the rest twenty times, over all twenty times.

    From the seconds of the stages alone; a stage is shared where one run of the `basic` sweep computed it.
    """
    times, cost = computed(rows, "basic"), seconds(rows)
    return sum(times[stage] * cost[stage] for stage in cost) / (len(BETAS) * sum(cost.values()))


def costs(rows: Sequence[Row]) -> str:
    """The first table of the page."""
    cpu, wall = twenty_alone(rows)
    lines = ["| twenty values of beta | CPU seconds | of alone | wall seconds | of alone |", "|---|---|---|---|---|"]
    lines.append(f"| each by itself (3 measured, × 20/3) | {cpu:.0f} | 100 % | {wall:.0f} | 100 % |")
    for command, name in NAMES.items():
        row = whole(rows, command)
        lines.append(f"| {name} | {row.cpu:.0f} | {row.cpu / cpu:.1%} | {row.wall:.0f} | {row.wall / wall:.1%} |")
    lines.append(f"| promised by the seconds of the stages | | {promised(rows):.1%} | | |")
    return "\n".join(lines).replace("%", " %").replace("  %", " %")


def stages(rows: Sequence[Row]) -> str:
    """The second one."""
    lines = ["| stage | seconds, alone | computed in `basic` | computed in `joblib` |", "|---|---|---|---|"]
    basic, joblib = computed(rows, "basic"), computed(rows, "joblib")
    lines += [f"| {s} | {cost:.1f} | {basic[s]} of 20 | {joblib[s]} of 20 |" for s, cost in seconds(rows).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
