"""Collect what runs of `experiment=overoptimisation` found: `python experiments/overoptimisation/collect.py FOLDER...`.

Writes results.csv (models and best of n, on held-out prompts), curves.csv (PPO along its training) and figure.png next
to this file, and prints the tables of README.md; without a folder it reads both tables as they are.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
import signals as scoring  # noqa: E402  # neither folder is a package
import sweeps  # noqa: E402
from figure import draw  # noqa: E402
from measured import METRICS, PPO, SETTINGS, SIGNALS, Points, load_curves, read, watched, write_curves  # noqa: E402


def shown(value: float | None, digits: int) -> str:
    """A number for a table; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def turns(curves: Mapping[tuple[str, int], Points]) -> str:
    """Where each kind of training is best, and where it ends."""
    head = ["trained by", "best true taste", "at KL", "at step", "true taste at the end", "at KL", "its proxy", "fell"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for setting, name in PPO.items():
        own = [(watched(p, seed), p) for (s, seed), p in curves.items() if s == setting]
        numbers = [
            [c.gold[c.peak] for c, _ in own], [c.kl[c.peak] for c, _ in own], [c.steps[c.peak] for c, _ in own],
            [c.gold[-1] for c, _ in own], [c.kl[-1] for c, _ in own], [c.signals["proxy"][-1] for c, _ in own],
        ]  # fmt: skip
        cells = [sweeps.summary(x, 0 if i == 2 else 2) for i, x in enumerate(numbers)]
        fell = sum(c.fall is not None for c, _ in own)
        lines.append(f"| {' | '.join([name, *cells, f'{fell} of {len(own)}'])} |")
    return "\n".join(lines)


def warnings(curves: Mapping[tuple[str, int], Points]) -> str:
    """How well each signal warned, its threshold chosen on the other seeds; the least loss first."""
    runs = [watched(p, seed) for (_, seed), p in curves.items()]
    falls = sum(c.fall is not None for c in runs)
    head = [
        "signal", "area", f"in time, of {falls}", "too early", "late or never", f"false, of {len(runs) - falls}",
        "lead, steps", "lead, nats", "true taste lost",
    ]  # fmt: skip
    lines = []
    for signal, name in SIGNALS.items():
        found = scoring.held_out(runs, signal)
        count = {o: sum(s.outcome == o for s in found) for o in ("in time", "early", "late", "false")}
        leads = [shown(scoring.median_lead(found), 0), shown(scoring.median_lead(found, lambda s: s.lead_kl), 1)]
        lost = [s.lost for s in found]
        cells = [name, f"{scoring.auc(runs, signal):.2f}", *map(str, count.values()), *leads]
        lines.append((mean(lost), f"| {' | '.join([*cells, sweeps.summary(lost)])} |"))
    never = [c.gold[c.peak] - c.gold[-1] for c in runs]
    last = ["never stopping", "–", "0", "0", str(falls), "0", "–", "–", sweeps.summary(never)]
    table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(line for _, line in sorted(lines))]
    return "\n".join([*table, f"| {' | '.join(last)} |"])


def tables(runs: list[sweeps.Run], curves: Mapping[tuple[str, int], Points]) -> list[str]:
    """Those of README.md: along the training, on held-out prompts, the signals."""
    return [turns(curves), sweeps.table(runs, SETTINGS, METRICS, "model"), warnings(curves)]


def main() -> None:
    if len(sys.argv) > 1:
        runs, curves = read([Path(a).resolve() for a in sys.argv[1:]])
        sweeps.write(runs, list(METRICS), HERE / "results.csv")
        write_curves(curves, HERE / "curves.csv")
    runs, curves = sweeps.load(HERE / "results.csv"), load_curves(HERE / "curves.csv")
    print(*tables(runs, curves), sep="\n\n")
    draw(runs, curves, HERE / "figure.png")


if __name__ == "__main__":
    main()
