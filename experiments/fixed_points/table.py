"""The one world in which everything is compared, and the table that comes out.

Axes: P prompts, Y answers to each prompt.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from torch import Tensor

from alignlab.optimum import Optimum, Tilted
from alignlab.optimum.tables import kl
from alignlab.testing.oracle import World
from alignlab.testing.oracle.method import PROMPTS
from alignlab.testing.oracle.solve import Field, fixed_point

BETA = 0.3
"""Price of leaving the reference, reward units per nat: that of every method that has one."""
WORLD = World(PROMPTS + 1, scale=2 * BETA)
"""Of every method. Its last prompt is not measured: online it is not trained either, so that rewards keep a spread."""
PI_STAR = Tilted(BETA)
"""The maximum of reward less `BETA` KL."""


@dataclass(frozen=True)
class Row:
    """Where one method ends.

    Args:
        library: whose loss it is, with its version.
        method: its name there.
        own: the optimum that is declared for it; "" where none is known.
        distance: KL from that optimum, nats (a reward model: the largest difference of a score, reward units), of the
            worst prompt.
        away: KL(end || pi*), nats, of the worst prompt; None without a price of leaving the reference.
        regret: reward less `BETA` KL that the end loses against pi*, reward units, mean over prompts.
        bias: distance of the mean of sampled gradients from the exact one, over the length of that.
        noise: root mean square distance of a sampled gradient from the exact one, over the length of that.
        note: what else is known.
    """

    library: str
    method: str
    own: str = ""
    distance: float | None = None
    away: float | None = None
    regret: float | None = None
    bias: float | None = None
    noise: float | None = None
    note: str = ""


def followed(field: Field, start: Tensor, rest: float = 1e-8) -> Tensor | None:
    """`(P, K, V)` logits at which a field is shorter than `rest`, and stays so; None where none were found."""
    logits = fixed_point(field, start, rounds=200, stop=rest / 100)
    return logits if bool(logits.isfinite().all()) and float(field(logits).norm()) < rest else None


def worst(policy: Tensor, optimum: Optimum) -> float:
    """KL(policy || optimum), nats, of the worst measured prompt; `policy` is `(P, Y)` nats."""
    return max(0.0, float(kl(policy, optimum.policy(WORLD.tables))[:PROMPTS].max()))


def regret(policy: Tensor) -> float:
    """Reward less `BETA` KL that a policy loses against pi*, reward units, mean over measured prompts."""
    return max(0.0, float(PI_STAR.regret(policy, WORLD.tables)[:PROMPTS].mean()))


def markdown(rows: Iterable[Row]) -> str:
    """The table of README.md."""
    names = [f.name for f in fields(Row) if f.name != "library"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(getattr(row, name)) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: str | float | None) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, str):
        return value
    return "0" if value == 0 else f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.3f}"


def write(rows: Sequence[Row], path: Path) -> None:
    """Replace the rows of the same libraries in a CSV file; those of others stay."""
    names, libraries = [f.name for f in fields(Row)], {row.library.split()[0] for row in rows}
    kept: list[dict[str, object]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            kept = [dict(row) for row in csv.DictReader(file) if row["library"].split()[0] not in libraries]
    new = [{k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()} for row in rows]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*kept, *new], key=lambda row: str(row["library"])))
