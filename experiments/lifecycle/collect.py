"""Collect what lifecycle runs measured: `python experiments/lifecycle/collect.py RUN_FOLDER RUN_FOLDER ...`.

Writes results.csv (a row for each run, model and metric) and figure.png beside this file. What is no folder of a run
(a sweep's multirun.yaml) is passed over; a run that is not complete is named.
"""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

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


def rows(folder: Path) -> list[dict[str, object]]:
    """What one run measured, with the seconds of each stage."""
    seed = yaml.safe_load((folder / "config.yaml").read_text())["seed"]
    metrics = json.loads((folder / "metrics.json").read_text())
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    found = [(*name.split("/"), value) for name, value in metrics.items()]
    found += [(name, "seconds", stage["seconds"]) for name, stage in stages.items() if not stage["cached"]]
    return [{"seed": seed, "stage": s, "metric": m, "value": f"{v:.6g}"} for s, m, v in sorted(found)]


def draw(table: list[dict[str, object]], path: Path) -> None:
    """A panel for each metric, a column for each model, a dot for each seed."""
    figure, axes = plt.subplots(2, 4, figsize=(10.5, 5), constrained_layout=True)
    for axis, (metric, title) in zip(axes.flat, PANELS.items(), strict=True):
        for x, (model, color) in enumerate(MODELS.items()):
            values = [float(str(r["value"])) for r in table if (r["stage"], r["metric"]) == (model, metric)]
            axis.bar(x, sum(values) / max(1, len(values)), color=color, alpha=0.25, width=0.7)
            axis.plot([x] * len(values), values, "o", color=color, markersize=5)
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


if __name__ == "__main__":
    everything = [row for folder in runs(sys.argv[1:]) for row in rows(folder)]
    with (HERE / "results.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["seed", "stage", "metric", "value"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(everything)
    draw(everything, HERE / "figure.png")
