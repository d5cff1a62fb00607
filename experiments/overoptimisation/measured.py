"""What runs of `experiment=overoptimisation` measured: of models, of the best of n, and along the training of PPO.

Gains are over the instruct model of the same seed and on the same prompts; those of a reward model are in standard
deviations of its scores of that model's answers.
"""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, pstdev

import signals as scoring
import sweeps

MEMBERS = ("reward", "second", "third", "fourth")
JUDGES = {"single": "any one of four", "mean": "mean of four", "worst": "worst of four"}
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
METRICS = {"kl": "KL, nats", "gold": "true taste", "proxy": "proxy reward", "words": "words per answer"}
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
    """Scores of one answer by each of the reward models, the mean and the worst of all; the first is the single one."""
    members = {m: row[f"panel_{m}"] for m in MEMBERS}
    return {**members, "single": members["reward"], "mean": mean(members.values()), "worst": min(members.values())}


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
    """Gains of the best of n by each judge, at the KL of continuous rewards; by one model, the mean over all four."""
    for judge in JUDGES:
        for n in ALL_N:
            own = [gains(answers, one, n) for one in (MEMBERS if judge == "single" else (judge,))]
            found = {what: mean(g[what] for g in own) for what in own[0]}
            yield sweeps.Run(f"{judge} {n}", seed, {"kl": math.log(n) - (n - 1) / n, **found})


def gains(answers: Mapping[str, Sequence[Mapping[str, float]]], judge: str, n: int) -> dict[str, float]:
    """Gains in true taste and in the judge's own opinion, and the length of the answers that it chooses."""
    found = {w: mean(best_of(rows, judge, n, w) for rows in answers.values()) for w in ("gold", judge, "words")}
    start, scale = level(answers, judge)
    gold = found["gold"] - level(answers, "gold")[0]
    return {"gold": gold, "proxy": (found[judge] - start) / scale, "words": found["words"]}


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


# ---- what a watcher sees ---------------------------------------------------------------------------------------------
def watched(points: Points, seed: int) -> scoring.Curve:
    """A run as its watcher sees it: signals of the latest points, relative to the first ones."""
    late = {c: scoring.trailing(points[c], PAST) for c in COLUMNS}
    relative = {  # nothing has changed yet while the first points are being counted
        c: [x / late[c][PAST - 1] - 1 if i >= PAST else 0.0 for i, x in enumerate(late[c])]
        for c in ("deviation", "disagreement", "length")
    }
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
