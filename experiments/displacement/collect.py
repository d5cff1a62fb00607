"""Collect what losses on pairs did to both answers: `python experiments/displacement/collect.py FOLDER`.

FOLDER is that of `experiments/methods/run.py`. Writes results.csv (a row for each run) and figure.png next to this file
and prints the table of README.md; without a folder it reads results.csv as it is.
"""

import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from sweeps import summary  # noqa: E402  # the folder above is not a package

METHODS = {
    "dpo": "DPO",
    "ipo": "IPO",
    "cdpo": "cDPO",
    "rdpo": "rDPO",
    "soft_dpo": "DPO on soft labels",
    "slic": "hinge (SLiC)",
    "apo_zero": "APO-zero",
    "wpo": "WPO",
    "dpo_sft": "DPO + 0.2 imitation",
}
"""Those that log both answers' log-ratios to the reference, summed over the answer. Names as of the run folders."""
COLUMNS = ("chosen_log_ratio", "rejected_log_ratio", "kl", "true_taste")
Row = dict[str, float | str]


def read(folder: Path) -> Iterable[Row]:
    """One row for each complete run of a method in METHODS."""
    for file in sorted(folder.glob("runs/*/*/*/metrics.json")):
        name, strength, seed = file.parts[-4:-1]
        found = json.loads(file.read_text())
        if name not in METHODS or "method/kl" not in found:
            continue
        part = "dpo/" if name == "dpo_sft" else ""  # a sum of objectives logs each under its name
        logged = [found[f"method/validation_{part}{which}_log_ratio"] for which in ("chosen", "rejected")]
        numbers = dict(zip(COLUMNS, (*logged, found["method/kl"], found["method/true_taste"]), strict=True))
        yield {"method": name, "strength": float(strength), "seed": int(seed), **numbers}


def grouped(rows: list[Row]) -> dict[tuple[str, float], list[Row]]:
    """Rows of one method and strength, the methods in the order of METHODS, the strongest price last."""
    keys = {(str(r["method"]), float(r["strength"])) for r in rows}
    order = sorted(keys, key=lambda k: (list(METHODS).index(k[0]), k[1]))
    return {k: [r for r in rows if (r["method"], r["strength"]) == k] for k in order}


def table(rows: list[Row]) -> str:
    """Means over seeds, and in how many of them the chosen answers became less likely."""
    head = ["loss", "price", "chosen, nats", "rejected, nats", "chosen fell in", "KL"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (name, strength), own in grouped(rows).items():
        found = {c: [float(r[c]) for r in own] for c in COLUMNS}
        fell = sum(x < 0 for x in found["chosen_log_ratio"])
        cells = [METHODS[name], f"{strength:g}", *(summary(found[c]) for c in COLUMNS[:2]), f"{fell} of {len(own)}"]
        lines.append(f"| {' | '.join([*cells, summary(found['kl'])])} |")
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """Both answers' log-ratios over the KL, a colour for each loss."""
    figure, axis = plt.subplots(figsize=(6.4, 4.4), constrained_layout=True)
    for index, name in enumerate(METHODS):
        own = sorted((k, v) for k, v in grouped(rows).items() if k[0] == name)
        points = sorted((mean(float(r["kl"]) for r in v), v) for _, v in own)
        for column, line in zip(COLUMNS[:2], ("-", ":"), strict=True):
            xs = [0.0, *(kl for kl, _ in points)]
            ys = [0.0, *(mean(float(r[column]) for r in v) for _, v in points)]
            label = METHODS[name] if line == "-" else None
            axis.plot(xs, ys, line, marker="o", markersize=3, color=plt.cm.tab10(index), label=label, linewidth=1.2)
    axis.axhline(0.0, color="0.6", linewidth=0.8)
    axis.set_xlabel("KL to the SFT model, nats per answer")
    axis.set_ylabel("log-ratio to the SFT model, nats\nsolid: chosen answers, dotted: rejected")
    axis.legend(fontsize=7.5, frameon=False)
    axis.grid(alpha=0.2)
    figure.savefig(path, dpi=110)


def load(path: Path) -> list[Row]:
    """The rows of a table."""
    with path.open(newline="") as file:
        return [{k: v if k == "method" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def main() -> None:
    if len(sys.argv) > 1:
        with (HERE / "results.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["method", "strength", "seed", *COLUMNS])
            for row in read(Path(sys.argv[1]).resolve()):
                numbers = [f"{row[c]:.5g}" for c in COLUMNS]
                writer.writerow([row["method"], f"{row['strength']:g}", row["seed"], *numbers])
    rows = load(HERE / "results.csv")
    print(table(rows))
    draw(rows, HERE / "figure.png")


if __name__ == "__main__":
    main()
