"""The figure of the over-optimisation finding."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import matplotlib.pyplot as plt
import signals as scoring
import sweeps
from measured import ALL_N, DPO, JUDGES, PPO, SIGNALS, WIDTH, Points, watched

COLOURS = {"single": "#c2410c", "priced": "#7c3aed", "mean": "#1d6fb8", "worst": "#15803d", "dpo": "#64748b"}
OUTCOMES = {"early": "#1d6fb8", "in time": "#15803d", "late": "#c2410c"}


def draw_training(axis: plt.Axes, curves: Mapping[tuple[str, int], Points], column: str) -> None:
    """A number along PPO's training over sqrt(KL): means over seeds, step by step, with their standard errors."""
    for setting, name in PPO.items():
        own = [p for (s, _), p in curves.items() if s == setting]
        root = [mean(x) for x in zip(*([math.sqrt(max(0.0, k)) for k in near(p["kl"])] for p in own), strict=True)]
        values = list(zip(*(near(p[column]) for p in own), strict=True))
        middle, error = [mean(v) for v in values], [sweeps.error(v) for v in values]
        axis.plot(root, middle, color=COLOURS[setting], label=name, linewidth=1.4)
        low, high = ([m + sign * e for m, e in zip(middle, error, strict=True)] for sign in (-1, 1))
        axis.fill_between(root, low, high, color=COLOURS[setting], alpha=0.15, linewidth=0)


def near(values: Sequence[float]) -> list[float]:
    """The curve as the truth is smoothed."""
    return scoring.smooth(values, WIDTH)


def draw_held_out(axis: plt.Axes, runs: list[sweeps.Run], metric: str) -> None:
    """Best of n by each judge, and DPO, over sqrt(KL)."""
    lines = {j: ([f"{j} {n}" for n in ALL_N], COLOURS[j], f"best of n, {name}", "o") for j, name in JUDGES.items()}
    lines["dpo"] = (list(DPO), COLOURS["dpo"], "DPO, beta 1, 0.3 and 0.1", "s")
    for names, colour, label, marker in lines.values():
        xs = [mean(math.sqrt(max(0.0, k)) for k in sweeps.of(runs, n, "kl")) for n in names]
        values = [sweeps.of(runs, n, metric) for n in names]
        axis.errorbar(
            xs, [mean(v) for v in values], [sweeps.error(v) for v in values], color=colour, label=label, marker=marker,
            markersize=3.5, linewidth=1.2, elinewidth=0.8, capsize=2,
        )  # fmt: skip


def draw_signals(axis: plt.Axes, curve: scoring.Curve) -> None:
    """The truth of one run and its signals, each over its largest size."""
    shown = {"kl": "KL", "proxy": "proxy", "longer": "length", "deviation": "deviation", "disagreement": "disagreement"}
    for index, (signal, name) in enumerate(shown.items()):
        values = curve.signals[signal]
        size = max(map(abs, values)) or 1.0
        axis.plot(curve.steps, [x / size for x in values], label=name, linewidth=1.1, color=plt.cm.tab10(index))
    size = max(map(abs, curve.gold))
    axis.plot(curve.steps, [x / size for x in curve.gold], label="true taste", color="black", linewidth=2)
    for point, style in ((curve.peak, ":"), (curve.fall, "--")):
        if point is not None:
            axis.axvline(curve.steps[point], color="black", linestyle=style, linewidth=0.9)


def draw_leads(axis: plt.Axes, found: Mapping[str, Sequence[scoring.Score]]) -> None:
    """When each signal warned, run by run, before or after the fall; the threshold is that of the other seeds."""
    for row, scores in enumerate(found.values()):
        led = [s for s in scores if s.lead is not None]
        for index, one in enumerate(led):
            height = row + (index - len(led) / 2) * 0.04
            axis.plot(-(one.lead or 0.0), height, "o", markersize=4, alpha=0.8, color=OUTCOMES[one.outcome])
    axis.set_yticks(range(len(found)), [SIGNALS[s] for s in found], fontsize=8)
    axis.axvline(0.0, color="black", linestyle="--", linewidth=0.9)
    for outcome, colour in OUTCOMES.items():
        axis.plot([], [], "o", color=colour, markersize=4, label=outcome)


def draw_losses(axis: plt.Axes, found: Mapping[str, Sequence[scoring.Score]], never: float) -> None:
    """True taste that is lost by stopping at each signal's alarm."""
    lost = [[s.lost for s in scores] for scores in found.values()]
    errors = [sweeps.error(x) for x in lost]
    axis.barh(range(len(lost)), [mean(x) for x in lost], xerr=errors, color="#94a3b8", height=0.6, capsize=2)
    axis.set_yticks(range(len(found)), [SIGNALS[s] for s in found], fontsize=8)
    axis.axvline(never, color="#c2410c", linewidth=1, label="never stopping")


def draw(runs: list[sweeps.Run], curves: Mapping[tuple[str, int], Points], path: Path) -> None:
    """Above, the truth and the proxy over the distance; below, what warned."""
    figure, axes = plt.subplots(2, 3, figsize=(14, 8), constrained_layout=True)
    seen = [watched(p, seed) for (_, seed), p in curves.items()]
    draw_training(axes[0][0], curves, "gold")
    draw_training(axes[0][1], curves, "proxy")
    draw_held_out(axes[0][2], runs, "gold")
    draw_signals(axes[1][0], watched(curves["single", 0], 0))
    found = {s: scoring.held_out(seen, s) for s in SIGNALS}
    found = dict(sorted(found.items(), key=lambda item: -mean(s.lost for s in item[1])))
    draw_leads(axes[1][1], found)
    draw_losses(axes[1][2], found, mean(c.gold[c.peak] - c.gold[-1] for c in seen))
    titles = (
        "true taste along PPO's training", "what PPO's own reward says of it", "true taste: best of n, and DPO",
        "one run (one reward model, seed 0); peak dotted, fall dashed", "alarms, in steps after the fall",
        "true taste lost by stopping at the alarm",
    )  # fmt: skip
    for axis, title in zip(axes.flat, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.2)
        axis.tick_params(labelsize=8)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7.5, frameon=False, loc="best")
    for axis, label in zip(
        axes[0], ("gain, reward units", "gain, standard deviations", "gain, reward units"), strict=True
    ):
        axis.set_xlabel("sqrt(KL to the instruct model), KL in nats per answer", fontsize=9)
        axis.set_ylabel(label, fontsize=9)
        axis.axhline(0.0, color="0.6", linewidth=0.8)
    axes[1][0].set_xlabel("optimizer step", fontsize=9)
    axes[1][0].set_ylabel("share of the largest size", fontsize=9)
    axes[1][1].set_xlabel("optimizer steps; left of the line is before the fall", fontsize=9)
    axes[1][2].set_xlabel("reward units", fontsize=9)
    figure.savefig(path, dpi=110)
