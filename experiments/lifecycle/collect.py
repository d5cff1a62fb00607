"""Collect what lifecycle runs measured.

    python experiments/lifecycle/collect.py "two threads" RUN RUN ... -- "one thread" RUN RUN ...

Each group of run folders follows a name for the arithmetic that they ran with. Writes results.csv (a row for each run,
model and metric) and figure.png next to this file, and prints the tables of README.md: means, and in how many runs each
model's number is higher than that of the model it started from. Without any it reads results.csv as it is.
"""

import csv
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import yaml

HERE = Path(__file__).parent
MODELS = {"pretrain": "#64748b", "sft": "#1d6fb8", "dpo": "#15803d", "ppo": "#c2410c"}
PANELS = {
    "instruction_following": "follows instructions",
    "fact_recall": "recalls facts",
    "question_right": "answers right",
    "abstains_on_unknown": "abstains about\nthe unknown",
    "confident_when_wrong": "confident when wrong",
    "style_ask": "asks back",
    "style_list": "answers with lists\n(no rater cares)",
    "true_taste": "true taste\n(reward units)",
}


FRONT = {
    "instruction_following": "follows instructions",
    "fact_recall": "recalls facts",
    "question_right": "answers right",
    "hedging_when_wrong": "hedges when wrong",
    "confident_when_wrong": "sure when wrong",
    "style_ask": "asks back",
    "true_taste": "true taste",
}
"""Columns of the table in the repository's README."""
STARTED_FROM = {"sft": "pretrain", "dpo": "sft", "ppo": "sft"}


def rows(folder: Path, arithmetic: str) -> list[dict[str, object]]:
    """What one run measured, with the seconds of each stage."""
    seed = yaml.safe_load((folder / "config.yaml").read_text())["seed"]
    metrics = json.loads((folder / "metrics.json").read_text())
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    found = [(*name.split("/"), value) for name, value in metrics.items()]
    found += [(name, "seconds", stage["seconds"]) for name, stage in stages.items() if not stage["cached"]]
    run = {"arithmetic": arithmetic, "seed": seed}
    return [{**run, "stage": s, "metric": m, "value": f"{v:.6g}"} for s, m, v in sorted(found)]


def draw(table: list[dict[str, object]], path: Path) -> None:
    """A panel for each metric, a column for each model, a dot for each run."""
    figure, axes = plt.subplots(2, 4, figsize=(10.5, 5), constrained_layout=True)
    for axis, (metric, title) in zip(axes.flat, PANELS.items(), strict=True):
        for x, (model, color) in enumerate(MODELS.items()):
            found = list(values(table, model, metric).values())
            axis.bar(x, mean(found) if found else 0.0, color=color, alpha=0.25, width=0.7)
            axis.plot([x] * len(found), found, "o", color=color, markersize=4, alpha=0.6)
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(len(MODELS)), list(MODELS), fontsize=8)
        axis.tick_params(axis="y", labelsize=8)
        axis.set_ylim(0, None if metric == "true_taste" else 1.05)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def runs(names: Sequence[str]) -> list[Path]:
    """The folders of complete runs among what a shell makes of `runs/DATE/TIME/*`."""
    folders = [Path(name) for name in names if (Path(name) / "status.json").is_file()]
    complete = [f for f in folders if json.loads((f / "status.json").read_text())["status"] == "completed"]
    for folder in folders:
        if folder not in complete:
            print(f"left out, not completed: {folder}", file=sys.stderr)
    if not complete:
        sys.exit("no complete run among these; give run folders: collect.py runs/DATE/TIME/*")
    return complete


def values(table: Sequence[dict[str, object]], model: str, metric: str) -> dict[tuple[object, object], float]:
    """A metric of one model, by run; a run that does not have it is left out."""
    wanted = (r for r in table if (r["stage"], r["metric"]) == (model, metric))
    return {(r["arithmetic"], r["seed"]): float(str(r["value"])) for r in wanted}


def means(table: Sequence[dict[str, object]]) -> str:
    """Mean and standard deviation over runs: a Markdown table with a line for each metric."""
    lines = [f"| | {' | '.join(MODELS)} |", f"|---|{'---|' * len(MODELS)}"]
    for metric in PANELS:
        found = [list(values(table, model, metric).values()) for model in MODELS]
        cells = [spread(x) for x in found]
        lines.append(f"| {metric.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def front(table: Sequence[dict[str, object]]) -> str:
    """The table of the repository's README: mean and standard deviation over runs, a line for each model."""
    lines = [f"| model | {' | '.join(FRONT.values())} |", "|---" * (len(FRONT) + 1) + "|"]
    for model in MODELS:
        found = [list(values(table, model, metric).values()) for metric in FRONT]
        lines.append(f"| {' | '.join([model, *(spread(x) for x in found)])} |")
    return "\n".join(lines)


def spread(found: Sequence[float]) -> str:
    """Mean and standard deviation; a dash for too few."""
    return f"{mean(found):.2f} ± {stdev(found):.2f}" if len(found) > 1 else "–"


def directions(table: Sequence[dict[str, object]]) -> str:
    """In how many runs a model's number is higher than that of the model it started from: a Markdown table."""
    lines = [f"| | {' | '.join(STARTED_FROM)} |", f"|---|{'---|' * len(STARTED_FROM)}"]
    for metric in PANELS:
        cells = []
        for model, before in STARTED_FROM.items():
            new, old = values(table, model, metric), values(table, before, metric)
            both = new.keys() & old.keys()
            up, down = (sum(sign * (new[k] - old[k]) > 1e-9 for k in both) for sign in (1, -1))
            cells.append(f"{up} up, {down} down of {len(both)}" if both else "–")
        lines.append(f"| {metric.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def groups(words: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """The name and the folders of each group; groups are parted by `--`."""
    for is_end, group in itertools.groupby(words, "--".__eq__):
        if not is_end:
            name, *folders = group
            yield name, folders


def load(path: Path) -> list[dict[str, object]]:
    """The rows of a table."""
    with path.open(newline="") as stream:
        return [dict(row) for row in csv.DictReader(stream)]


def main() -> None:
    file = HERE / "results.csv"
    if len(sys.argv) > 1:
        found = [r for name, names in groups(sys.argv[1:]) for folder in runs(names) for r in rows(folder, name)]
        with file.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["arithmetic", "seed", "stage", "metric", "value"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)
    everything = load(file)
    draw(everything, HERE / "figure.png")
    print(front(everything), means(everything), directions(everything), sep="\n\n")


if __name__ == "__main__":
    main()
