"""Collect the specialists: `python experiments/specialist/collect.py FOLDER...`.

Writes results.csv and figure.png next to this file and prints the table of README.md; without a folder it reads
results.csv as it is.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import sweeps  # noqa: E402  # the folder above is not a package

RANKS = ("2", "8", "32")
FULL_RATES, LORA_RATES = ("0.00025", "0.0005", "0.001"), ("0.001", "0.003")
SETTINGS = {
    "sft": "the assistant before",
    **{f"full {rate}": f"all weights, rate {rate}" for rate in FULL_RATES},
    **{f"lora {r} {rate}": f"rank {r}, rate {rate}" for r in RANKS for rate in LORA_RATES},
    "full_documents": "all weights, rate 0.0005, old documents",
    "full_replay": "all weights, rate 0.0005, replay",
    **{f"lora_replay {r}": f"rank {r}, rate 0.003, replay" for r in RANKS},
}
METRICS = {
    "new_recall": "recalls newcomers",
    "old_recall": "recalls residents",
    "following": "follows instructions",
    "old_right": "right on residents",
    "new_right": "right on newcomers",
    "unknown": "says unknown",
}
KEYS = {
    "new_recall": "newcomers_{}/fact_recall",
    "old_recall": "{}/fact_recall",
    "following": "{}/instruction_following",
    "old_right": "{}/question_right",
    "new_right": "newcomers_{}/question_right",
    "unknown": "{}/abstains_on_unknown",
}
GROUPS = {
    "all weights": ([f"full {rate}" for rate in FULL_RATES], "#0f172a", "o"),
    **{
        f"rank {r}": ([f"lora {r} {rate}" for rate in LORA_RATES], color, "s")
        for r, color in zip(RANKS, ("#fdba74", "#ea580c", "#7c2d12"), strict=True)
    },
    "all weights, replay": (["full_replay"], "#0f172a", "*"),
    "rank 8, replay": (["lora_replay 8"], "#ea580c", "*"),
    "all weights, old documents": (["full_documents"], "#64748b", "D"),
}
"""Lines of the figure: settings, colour, marker."""


def read(folders: list[Path]) -> list[sweeps.Run]:
    """Each model, once per seed."""
    found: dict[tuple[str, int], sweeps.Run] = {}
    for folder in folders:
        for overrides, metrics in sweeps.completed(folder):
            seed = int(overrides["seed"])
            for setting, model in models(overrides).items():
                numbers = {m: metrics[k] for m, key in KEYS.items() if (k := key.format(model)) in metrics}
                found[setting, seed] = sweeps.Run(setting, seed, numbers)
    return list(found.values())


def models(overrides: Mapping[str, str]) -> dict[str, str]:
    """The stage that made the model of each setting in one run."""
    r, rate = overrides.get("adapter.r", "8"), float(overrides.get("pipeline.lora.optimizer.lr", "3e-3"))
    full = float(overrides.get("pipeline.full.optimizer.lr", "5e-4"))
    return {
        "sft": "sft",
        f"full {full:g}": "full",
        f"lora {r} {rate:g}": "lora",
        "full_documents": "full_documents",
        "full_replay": "full_replay",
        f"lora_replay {r}": "lora_replay",
    }


def draw(runs: list[sweeps.Run], path: Path) -> None:
    """What is gained, to the right, against what is kept, upwards."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, constrained_layout=True)
    for axis, metric in zip(axes, ("following", "old_recall"), strict=True):
        before = mean(sweeps.of(runs, "sft", metric))
        axis.axhline(before, color="black", linewidth=0.8, linestyle=":")
        axis.text(0.0, before + 0.015, "before", fontsize=8)
        for name, (settings, color, marker) in GROUPS.items():
            gained, kept = ([sweeps.of(runs, s, m) for s in settings] for m in ("new_recall", metric))
            axis.errorbar(
                [mean(v) for v in gained],
                [mean(v) for v in kept],
                xerr=[sweeps.error(v) for v in gained],
                yerr=[sweeps.error(v) for v in kept],
                color=color,
                marker=marker,
                markersize=11 if marker == "*" else 6,
                linewidth=1.2,
                elinewidth=0.8,
                label=name,
            )
        axis.set_xlabel("recalls newcomers (gained)")
        axis.set_ylabel(f"{METRICS[metric]} (kept)")
        axis.set_ylim(0, 1.08)
        axis.set_xlim(-0.02, 1.05)
    axes[1].legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=110)


def main() -> None:
    runs = sweeps.collected(HERE, METRICS, read)
    print(sweeps.table(runs, SETTINGS, METRICS, "model"))
    draw(runs, HERE / "figure.png")


if __name__ == "__main__":
    main()
