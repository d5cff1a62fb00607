"""How much of a rater's bias a policy takes over: `python experiments/bias_transfer/run.py`.

Trains every method to its end in the enumerable world, by raters with and without a bias. Writes results.csv (a row for
each method, feature, bias and seed) and figure.png next to this file and prints the tables of README.md. With `--read`
it takes results.csv as it is.

Axes: P prompts, Y answers to each prompt.
"""

import csv
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import torch
from alignlab_dpo import DPO, IPO, LengthNormalizedDPO, RobustDPO, SoftLabelDPO
from alignlab_grpo import DAPO, GRPO, GroupRelative, LeaveOneOut, Reinforce, WhitenedReturns
from alignlab_ppo import GAE, PPO
from alignlab_reward_model import BradleyTerry
from jaxtyping import Float
from torch import Tensor

from alignlab.optimum import Tilted
from alignlab.optimum.tables import kl
from alignlab.testing.oracle import Method, World
from alignlab.testing.oracle.method import PROMPTS
from alignlab.testing.oracle.solve import one_thread

HERE = Path(__file__).parent
BETA = 0.3
"""Price of leaving the reference, reward units per nat: that of every method."""
FLIPS = 0.1
"""Share of the labels that are turned round, where some are."""
BIASES = (0.0, 0.25, 0.5, 1.0)
"""Reward units that raters add for the feature; taste has a standard deviation of 2 BETA."""
SEEDS = (0, 1, 2)
FEATURES = {"contains a": lambda answer: 0 in answer, "stops early": lambda answer: len(answer) <= 2}
"""Of an answer, as token ids. Token 0 is written a; an answer of at most two tokens ends with its stop token."""

METHODS = {
    "DPO": Method(DPO(BETA)),
    "DPO on soft labels": Method(SoftLabelDPO(BETA)),
    "rDPO, one label in ten flipped": Method(RobustDPO(BETA, FLIPS)),
    "RLOO": Method(Reinforce(), LeaveOneOut(BETA, 0.0)),
    "reward model, then RLOO": Method(Reinforce(), LeaveOneOut(BETA, 0.0)),
    "PPO": Method(PPO(), GAE(BETA, missing_eos_penalty=0.0)),
    "REINFORCE++": Method(DAPO(clip_high=0.2), WhitenedReturns(BETA, 0.0)),
    "DPO, one label in ten flipped": Method(DPO(BETA), held_against=Tilted(BETA, flips=FLIPS)),
    "IPO": Method(IPO(BETA)),
    "length-normalized DPO": Method(LengthNormalizedDPO(BETA)),
    "GRPO": Method(GRPO(beta=BETA), GroupRelative()),
    "GRPO, not scaled": Method(GRPO(beta=BETA), GroupRelative(scale=False)),
}
LEARNS_REWARD = "reward model, then RLOO"
TILTED = tuple(METHODS)[:7]
"""Those that end at the exact tilt. Plain DPO on flipped labels is given the same labels as rDPO, and misses it."""

Row = dict[str, float | str]
COLUMNS = ("shift", "slope", "transfer", "taste", "regret", "per_taste", "per_bias", "own", "away")


@dataclass(frozen=True, eq=False)
class Rated(World):
    """The world under raters of a given utility.

    Args:
        utility: `(P, Y)` reward units.
    """

    utility: Float[Tensor, "P Y"] = field(kw_only=True)

    @cached_property
    def reward(self) -> Float[Tensor, "P Y"]:
        """The raters' utility, reward units."""
        return self.utility


def taste_of(seed: int) -> World:
    """The world of raters without a bias. Online, its last prompt is not trained; it is never measured."""
    return World(PROMPTS + 1, seed, 2 * BETA)


def feature_of(name: str, world: World) -> Float[Tensor, "Y"]:
    """1 for the answers that have a feature."""
    return torch.tensor([float(FEATURES[name](answer)) for answer in world.answers], dtype=torch.float64)


# ---- one end ---------------------------------------------------------------------------------------------------------
def end(name: str, world: World) -> tuple[Float[Tensor, "P Y"], float | None]:
    """Where a method ends, nats, and its KL from where it says so; of the measured prompts."""
    paid = world
    if name == LEARNS_REWARD:
        scores = Method(BradleyTerry(), within=world).solve().scores.detach()
        paid = Rated(world.prompts, world.seed, world.scale, utility=scores - scores.mean(-1, keepdim=True))
    logp = replace(METHODS[name], within=paid).solve().log_probability()
    own = replace(METHODS[name], within=world).distance_of(logp) if name in ends_known() else None
    return logp[:PROMPTS], own


def ends_known() -> list[str]:
    """Methods that are held against their own declaration."""
    return [name for name, method in METHODS.items() if method.held_against is None]


def measured(
    logp: Float[Tensor, "P Y"], unbiased: Float[Tensor, "P Y"], taste: World, name: str, bias: float
) -> Mapping[str, float]:
    """A policy that was trained by biased raters, next to its sibling of unbiased ones; means over prompts.

    - shift: of logit P(feature), nats; slope: that over bias / BETA
    - transfer: (E f - E_ref f) / (E* f - E_ref f), the star being the exact tilt by the biased utility
    - taste: gain of taste over the reference, reward units; regret: taste less BETA KL that is lost against its maximum
    - per_taste, per_bias: nats of log(pi / pi_ref) per unit of utility / BETA, by least squares
    - away: KL from the exact tilt by the biased utility, nats, of the worst prompt
    """
    has, reference = feature_of(name, taste), taste.tables.reference[:PROMPTS]
    liked = taste.reward[:PROMPTS]
    exact = (reference + (liked + bias * has) / BETA).log_softmax(-1)

    def share(policy: Tensor) -> Tensor:
        return (policy.exp() * has).sum(-1)

    shift = float((share(logp).logit() - share(unbiased).logit()).mean())
    per_taste, per_bias = fitted(logp - reference, reference.exp(), liked / BETA, bias * has / BETA)
    return {
        "shift": shift,
        "slope": shift * BETA / bias if bias else math.nan,
        "transfer": float((share(logp) - share(reference)).sum() / (share(exact) - share(reference)).sum()),
        "taste": float(((logp.exp() - reference.exp()) * liked).sum(-1).mean()),
        "regret": float(BETA * kl(logp, (reference + liked / BETA).log_softmax(-1)).mean()),
        "per_taste": per_taste,
        "per_bias": per_bias if bias else math.nan,
        "away": float(kl(logp, exact).max()),
    }


def fitted(ratio: Tensor, weight: Tensor, *causes: Tensor) -> list[float]:
    """Coefficients of a weighted least-squares fit of log-ratios, with a constant per prompt."""
    design = torch.stack([x.expand_as(ratio) for x in causes], -1)
    design = design - (weight[..., None] * design).sum(1, keepdim=True)
    wanted = ratio - (weight * ratio).sum(-1, keepdim=True)
    root = weight.sqrt()
    solved = torch.linalg.lstsq((design * root[..., None]).flatten(0, 1), (wanted * root).flatten(), driver="gelsd")
    return [float(x) for x in solved.solution]


def rows_of(
    name: str, seed: int, biases: Iterable[float] = BIASES, features: Iterable[str] = FEATURES
) -> Iterator[Row]:
    """Rows of one method and seed."""
    taste = taste_of(seed)
    unbiased, own_unbiased = end(name, taste)
    for feature in features:
        for bias in biases:
            logp, own = unbiased, own_unbiased
            if bias:
                utility = taste.reward + bias * feature_of(feature, taste)
                logp, own = end(name, Rated(taste.prompts, seed, taste.scale, utility=utility))
            numbers = {**measured(logp, unbiased, taste, feature, bias), "own": math.nan if own is None else own}
            yield {"method": name, "feature": feature, "bias": bias, "seed": seed, **numbers}


# ---- the tables ------------------------------------------------------------------------------------------------------
def values(rows: list[Row], column: str, name: str, feature: str, bias: float) -> list[float]:
    """A column of one method, feature and bias, over seeds."""
    return [float(r[column]) for r in rows if (r["method"], r["feature"], r["bias"]) == (name, feature, bias)]


def summary(found: list[float]) -> str:
    """Mean and standard error over seeds."""
    text = f"{mean(found):.2f}"
    text = f"{text.replace('-0.00', '0.00')} ± {stdev(found) / math.sqrt(len(found)):.2f}"
    return text.replace("-", "\N{MINUS SIGN}")


def table(rows: list[Row], feature: str) -> str:
    """What came over of one feature, means over seeds."""
    head = ["method", "slope, b = 0.25", "slope, b = 1", "transfer, b = 1", "per taste", "per bias"]
    head += ["taste, b = 0", "taste, b = 1", "regret, b = 0", "regret, b = 1"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name in METHODS:
        asked = [("slope", 0.25), ("slope", 1.0), ("transfer", 1.0), ("per_taste", 1.0), ("per_bias", 1.0)]
        asked += [("taste", 0.0), ("taste", 1.0), ("regret", 0.0), ("regret", 1.0)]
        cells = [summary(values(rows, column, name, feature, bias)) for column, bias in asked]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def draw(rows: list[Row], path: Path) -> None:
    """Shift of each feature over the bias, and what is left of the gain of taste."""
    figure, axes = plt.subplots(1, 3, figsize=(12.4, 4.3), constrained_layout=True)
    nats = [bias / BETA for bias in BIASES]
    others = [name for name in METHODS if name not in TILTED]
    for axis, feature in zip(axes[:2], FEATURES, strict=True):
        for index, name in enumerate(TILTED):
            ys = [mean(values(rows, "shift", name, feature, bias)) for bias in BIASES]
            label = f"the {len(TILTED)} that end at the exact tilt" if index == 0 else None
            axis.plot(nats, ys, "-", color="0.2", linewidth=2.4, label=label)
        for index, name in enumerate(others):
            _line(axis, nats, [values(rows, "shift", name, feature, bias) for bias in BIASES], name, index)
        axis.set(title=feature, xlabel="bias of the raters, b / beta, nats", ylabel="shift of logit P(feature), nats")
    axes[0].legend(fontsize=8, frameon=False)
    for index, name in enumerate([TILTED[0], *others]):
        kept = [values(rows, "taste", name, "contains a", bias) for bias in BIASES]
        _line(axes[2], nats, kept, name, index - 1)
    axes[2].set(
        title="taste, with a bias for: contains a",
        xlabel="bias of the raters, b / beta, nats",
        ylabel="gain of taste, reward units",
    )
    axes[2].set_ylim(bottom=0.0)
    for axis in axes:
        axis.grid(alpha=0.2)
    figure.savefig(path, dpi=110)


def _line(axis: plt.Axes, xs: list[float], found: list[list[float]], name: str, index: int) -> None:
    color = "0.2" if index < 0 else plt.cm.tab10(index)
    errors = [stdev(x) / math.sqrt(len(x)) for x in found]
    axis.errorbar(xs, [mean(x) for x in found], errors, marker="o", markersize=3.5, color=color, label=name, capsize=2)


def load(path: Path) -> list[Row]:
    """The rows of a table."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: v if k in ("method", "feature") else float(v) for k, v in r.items()} for r in csv.DictReader(file)]


def main() -> None:
    """Train, unless the table is to be read; then show it."""
    if "--read" not in sys.argv[1:]:
        with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file, one_thread():
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["method", "feature", "bias", "seed", *COLUMNS])
            for name in METHODS:
                print(name, file=sys.stderr, flush=True)
                for row in (row for seed in SEEDS for row in rows_of(name, seed)):
                    numbers = [f"{row[c]:.6g}" for c in COLUMNS]
                    writer.writerow([name, row["feature"], f"{row['bias']:g}", row["seed"], *numbers])
                    file.flush()
    rows = load(HERE / "results.csv")
    for feature in FEATURES:
        print(f"\n{feature}\n\n{table(rows, feature)}")
    draw(rows, HERE / "figure.png")


if __name__ == "__main__":
    main()
