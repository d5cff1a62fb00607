"""Collect what runs of `experiment=overoptimisation` found: `python experiments/overoptimisation/collect.py FOLDER...`.

Writes results.csv (models and best of n, on held-out prompts), curves.csv (PPO along its training) and figure.png next
to this file, and prints the tables of README.md; without a folder it reads both tables as they are. Gains are over the
instruct model of the same seed and on the same prompts; those of a reward model are in standard deviations of its
scores of that model's answers.
"""

import csv
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, pstdev

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
import signals as scoring  # noqa: E402  # neither folder is a package
import sweeps  # noqa: E402

MEMBERS = ("reward", "second", "third", "fourth")
JUDGES = {"single": "one reward model", "mean": "mean of four", "worst": "worst of four"}
PPO = {
    "single": "PPO, one reward model",
    "priced": "PPO, one, with a price on the KL",
    "mean": "PPO, mean of four",
    "worst": "PPO, worst of four",
}
DPO = {"dpo_3": "DPO, beta 1", "dpo_2": "DPO, beta 0.3", "dpo_1": "DPO, beta 0.1"}
SHOWN_N = (4, 16, 256)
ALL_N = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SETTINGS = {
    **PPO,
    **{f"{judge} {n}": f"best of {n}, {name}" for judge, name in JUDGES.items() for n in SHOWN_N},
    **DPO,
}
METRICS = {"kl": "KL, nats", "gold": "true taste", "proxy": "the one reward model", "words": "words per answer"}
WIDTH = 9
"""Points over which the truth is smoothed, half of them to come."""
PAST = 5
"""Latest points over which a signal is smoothed."""
COLUMNS = ("step", "kl", "gold", "proxy", "disagreement", "deviation", "length")
SIGNALS = {
    "proxy": "proxy reward",
    "kl": "KL",
    "speed": "KL per step",
    "length": "answer length, change",
    "longer": "answer length, growth",
    "deviation": "deviation of rewards, rise",
    "narrower": "deviation of rewards, fall",
    "disagreement": "disagreement, rise",
    "agreement": "disagreement, fall",
    "steps": "a fixed number of steps",
}
Points = Mapping[str, list[float]]


# ---- what runs have found --------------------------------------------------------------------------------------------
def by_judge(row: Mapping[str, float]) -> dict[str, float]:
    """Scores of one answer by the single model, the mean and the worst of all."""
    members = [row[f"panel_{m}"] for m in MEMBERS]
    return {"single": members[0], "mean": mean(members), "worst": min(members)}


def scored(artifact: Path) -> dict[str, list[dict[str, float]]]:
    """Scores of every answer, with its true taste, by prompt."""
    found: dict[str, list[dict[str, float]]] = {}
    for line in (artifact / "samples.jsonl").read_text().splitlines():
        row = json.loads(line)
        own = {"gold": row["gold"], "words": float(len(row["answer"].split())), **by_judge(row)}
        found.setdefault(row["prompt"], []).append(own)
    return found


def best_of(rows: Sequence[Mapping[str, float]], judge: str, n: int, what: str) -> float:
    """Expectation over all choices of n of the answers of a number of the answer that the judge likes best.

    The i-th lowest of N answers (from 0) is the best of n with probability C(i, n - 1) / C(N, n).
    """
    ordered, total = sorted(rows, key=lambda r: r[judge]), math.comb(len(rows), n)
    return sum(math.comb(i, n - 1) / total * r[what] for i, r in enumerate(ordered) if i >= n - 1)


def level(answers: Mapping[str, Sequence[Mapping[str, float]]], what: str) -> tuple[float, float]:
    """Mean and standard deviation over all answers."""
    values = [r[what] for rows in answers.values() for r in rows]
    return mean(values), pstdev(values)


def best_of_n(answers: Mapping[str, Sequence[Mapping[str, float]]], seed: int) -> Iterable[sweeps.Run]:
    """Gains of the best of n by each judge, at the KL of continuous rewards."""
    for judge in JUDGES:
        for n in ALL_N:
            what = ("gold", "words", "single")
            found = {w: mean(best_of(rows, judge, n, w) for rows in answers.values()) for w in what}
            start, scale = level(answers, "single")
            numbers = {
                "kl": math.log(n) - (n - 1) / n,
                "gold": found["gold"] - level(answers, "gold")[0],
                "proxy": (found["single"] - start) / scale,
                "words": found["words"],
            }
            yield sweeps.Run(f"{judge} {n}", seed, numbers)


def models(
    metrics: Mapping[str, float], answers: Mapping[str, list[dict[str, float]]], seed: int
) -> Iterable[sweeps.Run]:
    """What `stage=drift` measured of each trained model."""
    (gold, _), (proxy, scale) = level(answers, "gold"), level(answers, "single")
    for name in (*PPO, *DPO):
        yield sweeps.Run(
            name, seed,
            {
                "kl": metrics[f"{name}/kl"], "gold": metrics[f"{name}/gold"] - gold,
                "proxy": (metrics[f"{name}/proxy_reward"] - proxy) / scale, "words": metrics[f"{name}/answer_length"],
            },
        )  # fmt: skip


def along(artifact: Path, start: Mapping[str, list[dict[str, float]]], judge: str) -> Iterable[dict[str, float]]:
    """One row for each buffer of a training, its gains over the instruct model on the same prompts."""
    gold, (proxy, scale) = level(start, "gold")[0], level(start, judge)
    for text in (artifact / "curves.jsonl").read_text().splitlines():
        line = {k.removeprefix("train/"): v for k, v in json.loads(text).items()}
        if "reward_gold" in line:
            yield {
                "step": line["step"],
                "kl": line["kl"],
                "gold": line["reward_gold"] - gold,
                "proxy": (line["reward"] - proxy) / scale,
                "disagreement": line["reward_panel_disagreement"],
                "deviation": math.sqrt(line["group_variance"]),
                "length": line["answer_length"],
            }


def read(folders: Sequence[Path]) -> tuple[list[sweeps.Run], dict[tuple[str, int], Points]]:
    """Both tables, from every complete run."""
    runs: list[sweeps.Run] = []
    curves: dict[tuple[str, int], Points] = {}
    for status in sorted(s for folder in folders for s in folder.rglob("status.json")):
        if json.loads(status.read_text())["status"] != "completed":
            continue
        manifest = json.loads((status.parent / "manifest.json").read_text())
        metrics = json.loads((status.parent / "metrics.json").read_text())
        where = {name: Path(stage["artifact"]) for name, stage in manifest["stages"].items()}
        seed = manifest["seed"]
        held, start = scored(where["samples"]), scored(where["start"])
        runs += [*best_of_n(held, seed), *models(metrics, held, seed)]
        for name in PPO:
            rows = list(along(where[name], start, "single" if name == "priced" else name))
            curves[name, seed] = {c: [r[c] for r in rows] for c in COLUMNS}
    return runs, curves


def write_curves(curves: Mapping[tuple[str, int], Points], path: Path) -> None:
    """A row for each point."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "seed", *COLUMNS])
        for (setting, seed), points in sorted(curves.items()):
            writer.writerows([setting, seed, *(f"{x:.4g}" for x in row)] for row in zip(*points.values(), strict=True))


def load_curves(path: Path) -> dict[tuple[str, int], Points]:
    """The curves of a table."""
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            points = found.setdefault((row["setting"], int(row["seed"])), {c: [] for c in COLUMNS})
            for c in COLUMNS:
                points[c].append(float(row[c]))
    return dict(found)


# ---- along the training ----------------------------------------------------------------------------------------------
def watched(points: Points, seed: int) -> scoring.Curve:
    """A run as its watcher sees it: signals of the latest points, relative to the first ones."""
    late = {c: scoring.trailing(points[c], PAST) for c in COLUMNS}
    relative = {c: [x / late[c][PAST - 1] - 1 for x in late[c]] for c in ("deviation", "disagreement", "length")}
    back = [max(0, i - PAST) for i in range(len(late["kl"]))]
    speed = [
        (late["kl"][i] - late["kl"][j]) / max(1.0, points["step"][i] - points["step"][j]) for i, j in enumerate(back)
    ]
    signals = {
        "proxy": late["proxy"],
        "kl": late["kl"],
        "speed": speed,
        "length": [abs(x) for x in relative["length"]],
        "longer": relative["length"],
        "deviation": relative["deviation"],
        "narrower": [-x for x in relative["deviation"]],
        "disagreement": relative["disagreement"],
        "agreement": [-x for x in relative["disagreement"]],
        "steps": points["step"],
    }
    kl, gold = scoring.smooth(points["kl"], WIDTH), scoring.smooth(points["gold"], WIDTH)
    return scoring.Curve(points["step"], kl, gold, scoring.significant(points["gold"], WIDTH), signals, seed)


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


if __name__ == "__main__":
    main()
