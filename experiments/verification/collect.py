"""Collect the sweep over checking: `python experiments/verification/collect.py FOLDER...`.

Writes results.csv and prints the table of README.md; without a folder it reads results.csv as it is.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import sweeps  # noqa: E402  # the folder above is not a package

RATER = "reward@pipeline.label.preference.raters.rater"
VERIFY = "pipeline.label.preference.raters.rater.verify"
SETTINGS = {
    "sft": "no rater: the instruct model",
    "honest": "the honest rater, who checks all",
    "0.0": "dazzled, checks none",
    "0.2": "dazzled, one in five (as shipped)",
    "0.5": "dazzled, every other one",
    "1.0": "dazzled, all",
}
METRICS = {
    "style_confident": "sounds sure",
    "confident_when_wrong": "sure when wrong",
    "question_right": "answers right",
    "abstains_on_unknown": "says “unknown” about strangers",
    "fact_recall": "recalls facts",
}


def read(folders: list[Path]) -> list[sweeps.Run]:
    """The assistants by setting, and the instruct model, once per seed."""
    found: dict[tuple[str, int], sweeps.Run] = {}
    for folder in folders:
        for overrides, metrics in sweeps.completed(folder):
            rater = overrides.get(RATER, "honest")
            own = overrides.get(VERIFY, "0.2") if rater == "dazzled" else rater
            for setting, model in ((own, "dpo"), ("sft", "sft")):
                numbers = {m: metrics[f"{model}/{m}"] for m in METRICS if f"{model}/{m}" in metrics}
                found[setting, int(overrides.get("seed", "0"))] = sweeps.Run(setting, int(overrides["seed"]), numbers)
    return [run for (setting, _), run in found.items() if setting in SETTINGS]


def main() -> None:
    print(sweeps.table(sweeps.collected(HERE, METRICS, read), SETTINGS, METRICS, "rater"))


if __name__ == "__main__":
    main()
