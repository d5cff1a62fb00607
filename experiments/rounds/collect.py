"""Collect three rounds against one: `python experiments/rounds/collect.py FOLDER...`.

Writes results.csv and prints the table of README.md; without a folder it reads results.csv as it is.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import sweeps  # noqa: E402  # the folder above is not a package

SETTINGS = {
    "sft": "the instruct model",
    "dpo_1": "after one round of three",
    "dpo_2": "after two",
    "dpo_3": "after three",
    "method": "one round of the same pairs and steps",
}
METRICS = {"true_taste": "true taste", "kl": "KL, nats per answer", "answer_length": "words per answer"}


def read(folders: list[Path]) -> list[sweeps.Run]:
    """Each model that was measured by `stage=drift`, once per seed."""
    found = []
    for folder in folders:
        for overrides, metrics in sweeps.completed(folder):
            for model in SETTINGS:
                numbers = {m: metrics[k] for m in METRICS if (k := f"{model}/{m}") in metrics}
                if "kl" in numbers:
                    found.append(sweeps.Run(model, int(overrides["seed"]), numbers))
    return found


def main() -> None:
    print(sweeps.table(sweeps.collected(HERE, METRICS, read), SETTINGS, METRICS, "model"))


if __name__ == "__main__":
    main()
