"""Write docs/verified.md: python docs/verified.py [VERDICTS ...]

The page is made of docs/verified.json. Where files are named that `alignlab verify --json` wrote, their verdicts
replace those in it first. Nothing of alignlab is imported. A test fails where the page is out of date, or where it
states another end than the installed methods do; `make verified` does the whole.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
VERDICTS = DOCS / "verified.json"
KEPT = ("method", "declared", "reason", "distance", "start", "tolerance", "regret", "seconds", "reached")
"""What is kept of a verdict."""
HEAD = """# Verified methods

Every installed method, trained to its end in the world of [Where methods end](where-methods-end.md) and held against
the optimum that it declares. `make verified` measures it (`alignlab verify --all --json FILE`) and writes this page.

- **distance**: KL from where training ended to the declared optimum, nats, of the worst prompt; for scores
  (`RewardItself`) their largest difference from the raters' utility, reward units. Before training it was **start**.
- **regret**: reward less beta KL that is lost against the optimum, reward units, where that is what is maximised.
- **seconds**: of training, on one core.
"""
ALONE = """
## Each by its own option
"""
TOGETHER = """
## With another advantage

Methods without a price on the KL end at the best answer alone. With the KL in the reward they end at the tilted
reference:
"""
COLUMNS = ("method", "plugin", "declared optimum", "distance", "start", "tolerance", "regret", "seconds")


def page() -> str:
    """The page of all verdicts."""
    verdicts = json.loads(VERDICTS.read_text(encoding="utf-8"))
    alone = [v for v in verdicts if " " not in v["method"]]
    together = [v for v in verdicts if " " in v["method"]]
    return "".join([HEAD, ALONE, _table(alone), *([TOGETHER, _table(together)] if together else [])])


def anchor(method: str) -> str:
    """Name by which links find a method's row."""
    return method.replace("=", "-").replace(" ", "-")


def _table(verdicts: Sequence[dict[str, Any]]) -> str:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(_row, verdicts)]
    return "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(verdict: dict[str, Any]) -> list[str]:
    method = verdict["method"]
    known = verdict["reached"] is not None
    mark = "" if verdict["reached"] or not known else " **missed**"
    ending = f"`{verdict['declared']}`{mark}" if known else f"{verdict['declared']}: {verdict['reason']}"
    forms = {"distance": ".1e", "start": ".2g", "tolerance": ".0e", "regret": ".1e"}
    numbers = [_number(verdict[name], form) for name, form in forms.items()]
    seconds = _number(verdict["seconds"] if known else None, ".1f")
    return [f'<a id="{anchor(method)}"></a>`{method}`', _plugin(method), ending, *numbers, seconds]


def _plugin(method: str) -> str:
    group, _, name = method.partition(" ")[0].partition("=")
    (file,) = ROOT.glob(f"plugins/*/conf/{group}/{name}.yaml")
    package = file.relative_to(ROOT / "plugins").parts[0]
    return f"[{package}](../plugins/{package})"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def collect(files: Sequence[str]) -> None:
    """Keep the verdicts of some files, in their order."""
    found = [verdict for file in files for verdict in json.loads(Path(file).read_text(encoding="utf-8"))]
    lines = ",\n".join(json.dumps({name: verdict[name] for name in KEPT}) for verdict in found)
    VERDICTS.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:]:
        collect(sys.argv[1:])
    (DOCS / "verified.md").write_text(page(), encoding="utf-8")
