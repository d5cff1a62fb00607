"""Collect the sweeps over unknown facts: `python experiments/unknown_facts/collect.py FOLDER...`.

Writes results.csv and prints the table of README.md; without a folder it reads results.csv as it is.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import sweeps  # noqa: E402  # the folder above is not a package

ABOUT = {"residents": "what the base model read", "null": "also what it never read"}
UNKNOWN = {"true": "with examples of “unknown”", "false": "without"}
SETTINGS = {f"{a} {u}": f"{about}, {unknown}" for u, unknown in UNKNOWN.items() for a, about in ABOUT.items()}
METRICS = {
    "residents_right": "right on residents",
    "residents_unknown": "says unknown on residents",
    "newcomers_wrong": "states a false fact about newcomers",
    "newcomers_unknown": "says unknown about newcomers",
    "names_assert": "states facts about mere names, unhedged",
    "names_unknown": "says unknown about mere names",
    "recall": "recalls residents in documents",
}
KEYS = {
    "residents_right": "sft/question_right",
    "residents_unknown": "sft/abstains_on_known",
    "newcomers_wrong": "newcomers/question_wrong",
    "newcomers_unknown": "newcomers/abstains_on_known",
    "names_assert": "sft/asserts_on_unknown",
    "names_unknown": "sft/abstains_on_unknown",
    "recall": "sft/fact_recall",
}


def read(folders: list[Path]) -> list[sweeps.Run]:
    """A row for each complete run."""
    found = []
    for folder in folders:
        for overrides, metrics in sweeps.completed(folder):
            setting = f"{overrides['pipeline.sft.data.about']} {overrides['pipeline.sft.data.abstention'].lower()}"
            found.append(sweeps.Run(setting, int(overrides["seed"]), {m: metrics[key] for m, key in KEYS.items()}))
    return found


def main() -> None:
    print(sweeps.table(sweeps.collected(HERE, METRICS, read), SETTINGS, METRICS, "instructions about"))


if __name__ == "__main__":
    main()
