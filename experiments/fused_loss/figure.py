"""Draw results.csv: time against memory for each shape, with the floors that arithmetic sets."""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

OURS, PEER, FLOOR = "#1b6ca8", "#8a8a8a", "#c0504d"


def draw(source: Path, target: Path) -> None:
    """One panel a shape, forward and backward together."""
    with source.open() as file:
        rows = [row for row in csv.DictReader(file) if row["pass"] == "forward+backward"]
    shapes = list(dict.fromkeys((int(r["tokens"]), int(r["vocabulary"]), int(r["width"])) for r in rows))
    figure, axes = plt.subplots(1, len(shapes), figsize=(6.4 * len(shapes), 5.2), squeeze=False)
    for axis, shape in zip(axes[0], shapes, strict=True):
        _panel(axis, shape, [r for r in rows if (int(r["tokens"]), int(r["vocabulary"]), int(r["width"])) == shape])
    facts = rows[0]
    figure.suptitle(
        f"Fused loss, forward + backward: {facts['device']}, torch {facts['torch']}, {facts['date']}", fontsize=11
    )
    figure.tight_layout()
    figure.savefig(target, dpi=130)


def _panel(axis: Axes, shape: tuple[int, int, int], rows: list[dict[str, str]]) -> None:
    tokens, words, width = shape
    size = 2 if "CPU" not in rows[0]["device"] else 4
    least = size * width * (tokens + words) / 2**20
    axis.axvline(least, color=FLOOR, lw=1, ls="--")
    axis.axhline(3 * float(rows[0]["gemm_ms"]), color=FLOOR, lw=1, ls="--")
    _points(axis, rows)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.margins(x=0.34, y=0.14)
    axis.annotate("gradients alone ", (least, 1), xycoords=("data", "axes fraction"), color=FLOOR, fontsize=8,
                  rotation=90, ha="right", va="top")  # fmt: skip
    axis.annotate(" three products", (0, 3 * float(rows[0]["gemm_ms"])), xycoords=("axes fraction", "data"),
                  color=FLOOR, fontsize=8, ha="left", va="bottom")  # fmt: skip
    axis.set_title(f"N = {tokens}, V = {words}, d = {width}", fontsize=10)
    axis.set_xlabel("peak memory beyond the inputs, MiB (gradients included)")
    axis.set_ylabel(f"least of {rows[0]['rounds']} rounds, ms")
    axis.grid(True, which="both", alpha=0.15)


def _points(axis: Axes, rows: list[dict[str, str]]) -> None:
    """A dot and its name for each implementation; names take turns at four heights, in the order of the dots."""
    for index, row in enumerate(sorted(rows, key=lambda r: float(r["min_ms"]))):
        x, y, ours = float(row["extra_mib"]), float(row["min_ms"]), row["ours"] == "1"
        axis.plot(x, y, "o", color=OURS if ours else PEER, ms=7, zorder=3)
        axis.annotate(
            row["implementation"], (x, y), xytext=(6, (-22, -11, 5, 16)[index % 4]), textcoords="offset points",
            fontsize=8, color=OURS if ours else "#444444", weight="bold" if ours else "normal",
        )  # fmt: skip
