"""Collect what run.py measured: `python experiments/methods/collect.py FOLDER`.

Writes results.csv (a row for each run) and figure.png next to this file, and prints the tables of README.md; without a
folder it reads results.csv as it is. At a KL
that lies between two strengths of a method, a number is read off the straight line between them over sqrt(KL), seed by
seed; the SFT model is the line's beginning, at KL 0. Gains are over the SFT model of the same seed.
"""

import csv
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import yaml
from grid import METHODS
from run import START, is_complete

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from sweeps import summary  # noqa: E402  # the folder above is not a package

TARGETS = (0.5, 1.0)
"""Nats per answer at which methods are compared."""
METRICS = ("kl", "true_taste", "proxy_reward", "answer_length", "finished_answers")
PANELS = {
    "pairs, with a reference": [n for n, m in METHODS.items() if "=dpo" in m.overrides[0]],
    "without a reference, or by single labels": ["simpo", "orpo", "cpo", "kto", "imitation of chosen", "best of n"],
    "online, by the reward model": list(METHODS)[list(METHODS).index("online dpo") :],
}


@dataclass(frozen=True)
class Run:
    """One run's numbers."""

    method: str
    strength: float
    seed: int
    numbers: dict[str, float]

    @property
    def root(self) -> float:
        """sqrt(KL), 0 where sampling noise makes the estimate negative."""
        return math.sqrt(max(0.0, self.numbers["kl"]))


def read(folder: Path) -> Iterable[Run]:
    """Every complete run below `folder`."""
    for status in sorted(folder.glob("runs/*/*/*/status.json")):
        run = status.parent
        if not is_complete(run):
            continue
        name, strength, seed = run.relative_to(folder / "runs").parts
        stages = json.loads((run / "manifest.json").read_text())["stages"]
        drift = next(s for s in stages.values() if s["stage"].endswith("Drift"))
        found = json.loads((run / "metrics.json").read_text())
        whose = drift["inputs"]["policy"]
        numbers = {m: found[k] for m in METRICS if (k := f"{whose}/{m}") in found or (k := f"drift/{m}") in found}
        numbers |= {"kl_low": found[f"{whose}/kl_low"], "kl_high": found[f"{whose}/kl_high"]}
        numbers["seconds"] = sum(stages[s]["seconds"] for s in ("best_of_n", "method") if s in stages)
        numbers["sampled_tokens"] = found.get("method/validation_sampled_tokens", 0.0)
        assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == int(seed)
        yield Run(name.replace("_", " ") if name not in METHODS else name, float(strength), int(seed), numbers)


def at(runs: list[Run], kl: float, metric: str) -> float | None:
    """One seed's number at a KL, see above; None beyond the method's reach."""
    points = sorted((r.root, r.numbers[metric]) for r in runs)
    wanted = math.sqrt(kl)
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 <= wanted <= x1:
            return y0 + (y1 - y0) * (wanted - x0) / (x1 - x0)
    return None


def grouped(runs: list[Run], key: Callable[[Run], object]) -> dict[object, list[Run]]:
    """Runs by key, in their order."""
    found: dict[object, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def gains(runs: list[Run], start: dict[object, list[Run]], kl: float, metric: str) -> list[float]:
    """What each seed that reaches the KL has gained over its SFT model there."""
    own = grouped(runs, lambda r: r.seed)
    found = {seed: at([*rs, *start[seed]], kl, metric) for seed, rs in own.items()}
    return [x - start[seed][0].numbers[metric] for seed, x in found.items() if x is not None]


def cost(runs: list[Run], kl: float, metric: str) -> str:
    """A cost at the strength whose KL is nearest, seed by seed; a dash where there is none."""
    own = grouped(runs, lambda r: r.seed).values()
    found = [min(rs, key=lambda r: abs(r.numbers["kl"] - kl)).numbers[metric] for rs in own]
    return summary(found, 0) if any(found) else "–"


def matched(runs: list[Run], names: Iterable[str], kl: float) -> str:
    """The table at one KL: every method that reaches it in all seeds, the largest gain first."""
    start = grouped([r for r in runs if r.method == START], lambda r: r.seed)
    lines = []
    for name in names:
        own = [r for r in runs if r.method == name]
        found = [gains(own, start, kl, m) for m in ("true_taste", "proxy_reward", "answer_length")]
        if len(found[0]) < len(start):
            continue
        costs = [cost(own, kl, m) for m in ("seconds", "sampled_tokens")]
        row = [name, *(summary(x) for x in found), *costs]
        lines.append((-mean(found[0]), f"| {' | '.join(row)} |"))
    head = ["method", "true taste", "proxy reward", "words per answer", "seconds", "tokens sampled"]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(line for _, line in sorted(lines))])


def peaks(runs: list[Run]) -> str:
    """The strength with the best true taste of each method, and the farthest that it went."""
    start = grouped([r for r in runs if r.method == START], lambda r: r.seed)
    lines = []
    for name in METHODS:
        by = grouped([r for r in runs if r.method == name], lambda r: r.strength)
        gain = {
            s: [r.numbers["true_taste"] - start[r.seed][0].numbers["true_taste"] for r in rs] for s, rs in by.items()
        }
        kl = {s: mean(r.numbers["kl"] for r in by[s]) for s in gain}
        best, far = max(gain, key=lambda s: mean(gain[s])), max(kl, key=lambda s: kl[s])
        row = [name, summary(gain[best]), f"{kl[best]:.2f}", summary(gain[far]), f"{kl[far]:.2f}"]
        lines.append((-mean(gain[best]), f"| {' | '.join(row)} |"))
    head = ["method", "best gain in true taste", "at KL", "gain at the farthest", "at KL"]
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(line for _, line in sorted(lines))])


def draw(runs: list[Run], path: Path) -> None:
    """Gains in true taste and proxy reward over sqrt(KL): a line per method, means and standard errors over seeds."""
    start = grouped([r for r in runs if r.method == START], lambda r: r.seed)
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.2), sharex=True, sharey="row", constrained_layout=True)
    for column, (title, names) in enumerate(PANELS.items()):
        for index, name in enumerate(names):
            by = grouped([r for r in runs if r.method == name], lambda r: r.strength).values()
            points = sorted((rs for rs in by if len(rs) == len(start)), key=lambda rs: mean(r.root for r in rs))
            for row, metric in enumerate(("true_taste", "proxy_reward")):
                gained = [[r.numbers[metric] - start[r.seed][0].numbers[metric] for r in rs] for rs in points]
                axes[row][column].errorbar(
                    [0.0, *(mean(r.root for r in rs) for rs in points)], [0.0, *(mean(g) for g in gained)],
                    [0.0, *(stdev(g) / math.sqrt(len(g)) for g in gained)], label=name, elinewidth=0.8, capsize=2,
                    color=plt.cm.tab10(index % 10), marker="os^Dv"[index % 5], markersize=4, linewidth=1.2,
                )  # fmt: skip
        axes[0][column].set_title(title, fontsize=10)
        axes[0][column].legend(fontsize=7.5, ncols=2, loc="lower left", frameon=False)
        axes[1][column].set_xlabel("sqrt(KL to the SFT model), KL in nats per answer", fontsize=9)
        for row in range(2):
            axes[row][column].axhline(0.0, color="0.6", linewidth=0.8)
            axes[row][column].grid(alpha=0.2)
            axes[row][column].tick_params(labelsize=8)
    axes[0][0].set_ylabel("gain in true taste\n(what raters want on reflection)", fontsize=9)
    axes[1][0].set_ylabel("gain in proxy reward\n(what the reward model says)", fontsize=9)
    figure.savefig(path, dpi=110)


COLUMNS = (*METRICS, "kl_low", "kl_high", "seconds", "sampled_tokens")


def write(runs: list[Run], path: Path) -> None:
    """A row for each run."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "strength", "seed", *COLUMNS])
        for run in runs:
            numbers = [f"{run.numbers[c]:.5g}" if c in run.numbers else "" for c in COLUMNS]
            writer.writerow([run.method, f"{run.strength:g}", run.seed, *numbers])


def load(path: Path) -> list[Run]:
    """The runs of a table."""
    with path.open(newline="") as file:
        return [
            Run(row["method"], float(row["strength"]), int(row["seed"]), {c: float(row[c]) for c in COLUMNS if row[c]})
            for row in csv.DictReader(file)
        ]


def tables(runs: list[Run]) -> list[str]:
    """Those of README.md: gains at each target, then the best and the farthest strength of each method."""
    return [*(matched(runs, METHODS, kl) for kl in TARGETS), peaks(runs)]


def main() -> None:
    if len(sys.argv) > 1:
        write(list(read(Path(sys.argv[1]).resolve())), HERE / "results.csv")
    runs = [r for r in load(HERE / "results.csv") if r.method == START or r.strength in METHODS[r.method].values]
    start = [r.numbers for r in runs if r.method == START]
    print(f"SFT: true taste {summary([n['true_taste'] for n in start])}, {len(runs)} runs")
    print(*tables(runs), sep="\n\n")
    draw(runs, HERE / "figure.png")


if __name__ == "__main__":
    main()
