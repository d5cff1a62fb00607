"""The tables of the page, and its figure: ratios to TRL per task, and tokens per second on a GPU.

python figure.py            # writes throughput.png, prints the tables
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOALS = {
    "sft": 1.35,
    "sft_completion": 1.45,
    "dpo": 1.8,
    "dpo_once": 1.6,
    "reward": 1.2,
    "ppo_1_epoch": 2.6,
    "ppo_4_epochs": 1.7,
    "grpo": 2.5,
    "sft_uneven": 2.0,
    "dpo_once_uneven": 2.5,
    "dpo_uneven": 2.5,
    "reward_uneven": 2.0,
}
"""CPU time per step, TRL over alignlab, that was aimed at."""

Rows = Sequence[Mapping[str, str]]


def load(file: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def cpu_table(rows: Rows) -> str:
    """Both sides of each task, in Markdown."""
    lines = [
        "| task | TRL, CPU ms (ms) | alignlab | ratio | goal | tokens/s, TRL / alignlab | MB, TRL / alignlab |",
        "|---|---|---|---|---|---|---|",
    ]
    by = {(row["task"], row["side"]): row for row in rows}
    for task, goal in GOALS.items():
        ours, theirs = by.get((task, "alignlab")), by.get((task, "trl"))
        if ours is None or theirs is None:
            continue
        reached = float(theirs["ratio_cpu"]) >= goal
        ratio = f"**{theirs['ratio_cpu']}**" if reached else theirs["ratio_cpu"]
        cells = [
            task,
            f"{float(theirs['cpu_ms']):.0f} ({float(theirs['ms']):.0f})",
            f"{float(ours['cpu_ms']):.0f} ({float(ours['ms']):.0f})",
            ratio,
            str(goal),
            f"{float(theirs['tokens_per_second']):.0f} / {float(ours['tokens_per_second']):.0f}",
            f"{float(theirs['peak_mb']):.0f} / {float(ours['peak_mb']):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def gpu_table(rows: Rows) -> str:
    """Each measurement on a GPU, in Markdown."""
    lines = ["| work | side | ms | tokens/s | peak GiB | model FLOPs utilisation |", "|---|---|---|---|---|---|"]
    for row in rows:
        share = f"{100 * float(row['mfu']):.0f} %"
        tokens = f"{int(row['tokens_per_second']):,}"
        lines.append(f"| {row['work']} | {row['side']} | {row['ms']} | {tokens} | {row['peak_gb']} | {share} |")
    return "\n".join(lines)


def profile_table(rows: Rows) -> str:
    """Shares of the parts of each task, in Markdown."""
    heads = list(rows[0])
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        shares = [f"{100 * float(row[h]):.0f} %" if float(row[h]) >= 0.005 else "–" for h in heads[1:]]
        lines.append(f"| {' | '.join([row['task'], *shares])} |")
    return "\n".join(lines)


def draw(cpu: Rows, gpu: Rows, file: Path) -> None:
    """Bars of the ratios with their goals, and of the tokens per second."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained", width_ratios=[1, 1.15])
    ratios = {row["task"]: float(row["ratio_cpu"]) for row in cpu if row["side"] == "trl"}
    tasks = [task for task in GOALS if task in ratios][::-1]
    colors = ["#2a6f97" if ratios[task] >= GOALS[task] else "#a9c4d4" for task in tasks]
    left.barh(tasks, [ratios[task] for task in tasks], color=colors)
    for place, task in enumerate(tasks):
        left.plot([GOALS[task]] * 2, [place - 0.4, place + 0.4], color="#d1495b", lw=2)
        left.text(max(ratios[task], GOALS[task]) + 0.06, place, f"{ratios[task]:.2f}", va="center", fontsize=9)
    left.axvline(1, color="#888", lw=0.8)
    left.set_xlim(0, 1.1 * max(*ratios.values(), *GOALS.values()))
    left.set_xlabel("CPU time per step, TRL over alignlab (red: goal)")
    works = list(dict.fromkeys(row["work"] for row in gpu))
    shown = {"trl": "#d1a25b", "trl checkpoint": "#e6cfa8", "alignlab": "#a9c4d4", "alignlab compile": "#2a6f97"}
    shown |= {"alignlab checkpoint": "#c9d9e2", "alignlab compile checkpoint": "#5b93b3"}
    place, ticks = 0.0, []
    for work in works:
        sides = [row for row in gpu if row["work"] == work and row["side"] in shown]
        for row in sorted(sides, key=lambda row: list(shown).index(row["side"])):
            right.barh(place, float(row["tokens_per_second"]) / 1e3, color=shown[row["side"]])
            right.text(float(row["tokens_per_second"]) / 1e3 + 1, place, row["side"], va="center", fontsize=7)
            place += 1
        ticks.append((place - len(sides) / 2 - 0.5, work))
        place += 0.7
    right.set_yticks([t for t, _ in ticks], [work for _, work in ticks])
    right.invert_yaxis()
    right.set_xlim(0, 160)
    right.set_xlabel("thousand tokens per second, one GPU, bfloat16")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    cpu, gpu = load(HERE / "results.csv"), load(HERE / "results-gpu.csv")
    draw(cpu, gpu, HERE / "throughput.png")
    print(cpu_table(cpu), gpu_table(gpu), sep="\n\n")
    if (HERE / "profile.csv").is_file():
        print(profile_table(load(HERE / "profile.csv")), sep="\n\n")
