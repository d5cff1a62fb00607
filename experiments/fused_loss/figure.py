"""Draw results.csv: time against memory for each shape, with the floors that arithmetic sets."""

import csv
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, StrMethodFormatter

OURS, FLOOR = "#1b6ca8", "#c0504d"
PEERS = ("#404040", "#b07d2b", "#8f6bb3", "#4f8f5b", "#a0a0a0", "#c77a9b")
OUR_MARKERS, PEER_MARKERS = "oDs*P", "^v<>Xphd"


def draw(source: Path, target: Path) -> None:
    """One panel a shape, forward and backward together."""
    with source.open() as file:
        rows = [row for row in csv.DictReader(file) if row["pass"] == "forward+backward"]
    shapes = list(dict.fromkeys((int(r["tokens"]), int(r["vocabulary"]), int(r["width"])) for r in rows))
    looks = _looks(rows)
    figure, axes = plt.subplots(1, len(shapes), figsize=(5.2 * len(shapes), 5.4), squeeze=False)
    for axis, shape in zip(axes[0], shapes, strict=True):
        own = [r for r in rows if (int(r["tokens"]), int(r["vocabulary"]), int(r["width"])) == shape]
        _panel(axis, shape, own, looks)
    facts = rows[0]
    figure.suptitle(
        f"Fused loss, forward + backward: {facts['device']}, torch {facts['torch']}, {facts['date']}", fontsize=11
    )
    handles = {name: axes[0, 0].plot([], [], label=name, **look)[0] for name, look in looks.items()}
    figure.legend(handles=list(handles.values()), loc="lower center", ncols=5, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(target, dpi=130)


def _looks(rows: list[dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Marker and colour of each implementation, the same in every panel; ours first."""
    ours = list(dict.fromkeys(r["implementation"] for r in rows if r["ours"] == "1"))
    peers = list(dict.fromkeys(r["implementation"] for r in rows if r["ours"] != "1"))
    common = {"ls": "", "markeredgecolor": "white", "markeredgewidth": 0.6}
    looks: dict[str, dict[str, Any]] = {
        name: {**common, "marker": marker, "color": OURS, "ms": 10, "zorder": 4, "alpha": 0.85}
        for name, marker in zip(ours, cycle(OUR_MARKERS), strict=False)
    }
    for name, marker, colour in zip(peers, cycle(PEER_MARKERS), cycle(PEERS), strict=False):
        looks[name] = {**common, "marker": marker, "color": colour, "ms": 9, "zorder": 3}
    return looks


def _panel(
    axis: Axes, shape: tuple[int, int, int], rows: list[dict[str, str]], looks: dict[str, dict[str, Any]]
) -> None:
    tokens, words, width = shape
    size = 2 if "CPU" not in rows[0]["device"] else 4
    least = size * width * (tokens + words) / 2**20
    axis.axvline(least, color=FLOOR, lw=1, ls="--")
    axis.axhline(3 * float(rows[0]["gemm_ms"]), color=FLOOR, lw=1, ls="--")
    for row in rows:
        axis.plot(float(row["extra_mib"]), float(row["min_ms"]), **looks[row["implementation"]])
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.margins(x=0.12, y=0.12)
    for line in (axis.xaxis, axis.yaxis):
        line.set_major_locator(LogLocator(subs=(1, 2, 5)))
        line.set_major_formatter(StrMethodFormatter("{x:g}"))
        line.set_minor_formatter("")
    axis.annotate("gradients alone ", (least, 1), xycoords=("data", "axes fraction"), color=FLOOR, fontsize=8,
                  rotation=90, ha="right", va="top")  # fmt: skip
    axis.annotate(" three products", (0, 3 * float(rows[0]["gemm_ms"])), xycoords=("axes fraction", "data"),
                  color=FLOOR, fontsize=8, ha="left", va="bottom")  # fmt: skip
    axis.set_title(f"N = {tokens}, V = {words}, d = {width}", fontsize=10)
    axis.set_xlabel("peak memory beyond the inputs, MiB (gradients included)")
    axis.set_ylabel(f"least of {rows[0]['rounds']} rounds, ms")
    axis.grid(True, which="both", alpha=0.15)
