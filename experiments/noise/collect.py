"""Collect the sweep over flipped labels: `python experiments/noise/collect.py FOLDER...`.

Writes results.csv and prints the table of README.md; without a folder it reads results.csv as it is.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import sweeps  # noqa: E402  # the folder above is not a package

LOSSES = {"dpo": "DPO", "rdpo": "rDPO"}
FLIP = "pipeline.label.preference.flip"
OBJECTIVE = "pipeline.dpo.objective"
RATER = "reward@pipeline.label.preference.raters.rater"
SETTINGS = {
    "sft": "the instruct model",
    "dpo 0.0": "DPO, no label flipped",
    **{f"{key} {flip}": f"{name}, {flip} flipped" for flip in ("0.1", "0.25", "0.4") for key, name in LOSSES.items()},
}
METRICS = {
    "style_ask": "asks back, as the rater likes",
    "margin": "held-out margin, nats",
    "instruction_following": "follows instructions",
    "question_right": "answers right",
}


def read(folders: list[Path]) -> list[sweeps.Run]:
    """The assistants of the explorer by loss and share of flips, and the instruct model, once per seed."""
    found: dict[tuple[str, int], sweeps.Run] = {}
    for folder in folders:
        for overrides, metrics in sweeps.completed(folder):
            if overrides.get(RATER) != "explorer":
                continue
            own = f"{overrides.get(OBJECTIVE, 'dpo')} {overrides.get(FLIP, '0.0')}"
            for setting, model in ((own, "dpo"), ("sft", "sft")):
                numbers = {m: metrics[f"{model}/{m}"] for m in METRICS if f"{model}/{m}" in metrics}
                if model == "dpo":
                    numbers["margin"] = metrics["dpo/validation_margin"]
                found[setting, int(overrides["seed"])] = sweeps.Run(setting, int(overrides["seed"]), numbers)
    return [run for (setting, _), run in found.items() if setting in SETTINGS]


def main() -> None:
    print(sweeps.table(sweeps.collected(HERE, METRICS, read), SETTINGS, METRICS, "loss and labels"))


if __name__ == "__main__":
    main()
