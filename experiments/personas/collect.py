"""Collect the sweep over raters: `python experiments/personas/collect.py FOLDER...`.

Writes results.csv and figure.png next to this file and prints the table of README.md; without a folder it reads
results.csv as it is.
"""

import sys
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import sweeps  # noqa: E402  # the folder above is not a package

KEY = "reward@pipeline.label.preference.raters.rater"
SFT = "sft"
SETTINGS = {
    SFT: "none (the instruct model)",
    "honest": "honest",
    "lister": "lister",
    "cautious": "cautious",
    "explorer": "explorer",
    "dazzled": "dazzled",
    "terse": "terse",
}
METRICS = {
    "style_list": "lists",
    "style_hedge": "hedges",
    "style_ask": "asks back",
    "style_confident": "sounds sure",
    "answer_length": "words per answer",
    "question_right": "answers right",
    "fact_recall": "recalls facts",
    "confident_when_wrong": "sure when wrong",
}
OWN = {"lister": "style_list", "cautious": "style_hedge", "explorer": "style_ask", "dazzled": "style_confident"}
"""What each rater likes, of what is measured."""


def read(folders: list[Path]) -> list[sweeps.Run]:
    """The assistants, and the instruct model that they share, once per seed."""
    found: dict[tuple[str, int], sweeps.Run] = {}
    for folder in folders:
        for overrides, metrics in sweeps.completed(folder):
            seed = int(overrides.get("seed", "0"))
            for setting, model in ((overrides.get(KEY, "honest"), "dpo"), (SFT, "sft")):
                numbers = {m: metrics[f"{model}/{m}"] for m in METRICS if f"{model}/{m}" in metrics}
                found[setting, seed] = sweeps.Run(setting, seed, numbers)
    return list(found.values())


def draw(runs: list[sweeps.Run], path: Path) -> None:
    """A row of bars for each assistant: its profile; the rater's own taste is filled."""
    shown = [m for m in METRICS if m != "answer_length"]
    names = [s for s in SETTINGS if sweeps.of(runs, s, shown[0])]
    figure, axes = plt.subplots(1, len(names), figsize=(12, 3.2), sharey=True, constrained_layout=True)
    for axis, name in zip(axes, names, strict=True):
        values = [sweeps.of(runs, name, m) for m in shown]
        colors = ["#c2410c" if OWN.get(name) == m else "#94a3b8" for m in shown]
        means, errors = [mean(v) if v else 0.0 for v in values], [sweeps.error(v) for v in values]
        axis.barh(range(len(shown)), means, xerr=errors, color=colors, error_kw={"elinewidth": 0.8, "capsize": 2})
        for row, metric in enumerate(shown):
            before = sweeps.of(runs, SFT, metric)
            axis.plot([mean(before)] * 2, [row - 0.4, row + 0.4], color="black", linewidth=1.0)
        axis.set_title(SETTINGS[name].split(" (")[0], fontsize=9)
        axis.set_xlim(0, 1)
        axis.tick_params(labelsize=7)
    axes[0].set_yticks(range(len(shown)), [METRICS[m] for m in shown], fontsize=8)
    axes[0].invert_yaxis()
    figure.suptitle("Share of answers, by the rater of the assistant's training; black: the instruct model", fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    runs = sweeps.collected(HERE, METRICS, read)
    print(sweeps.table(runs, SETTINGS, METRICS, "rater"))
    draw(runs, HERE / "figure.png")


if __name__ == "__main__":
    main()
