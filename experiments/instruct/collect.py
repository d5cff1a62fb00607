"""Collect the sweeps over the parts of fine-tuning: `python experiments/instruct/collect.py FOLDER...`.

Writes results.csv and prints the table of README.md; without a folder it reads results.csv as it is.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import sweeps  # noqa: E402  # the folder above is not a package

CHANGES = {
    "pipeline.sft.train_on_prompts": "prompts learnt too",
    "pipeline.sft.replay": "no replay",
    "pipeline.sft.data.abstention": "no abstention data",
}
SETTINGS = {
    "base": "the base model",
    "all": "instruct model, all parts",
    **{name: f"instruct model, {name}" for name in CHANGES.values()},
    "prompts learnt too, no replay": "instruct model, prompts learnt too and no replay",
}
METRICS = {
    "instruction_following": "follows instructions",
    "question_right": "answers right",
    "fact_recall": "recalls facts in documents",
    "abstains_on_unknown": "abstains about unknown names",
    "asserts_on_unknown": "states facts about unknown names, unhedged",
    "abstains_on_known": "abstains about known names",
}


def read(folders: list[Path]) -> list[sweeps.Run]:
    """The instruct models by what was changed, and the base model, once per seed."""
    found: dict[tuple[str, int], sweeps.Run] = {}
    for folder in folders:
        for overrides, metrics in sweeps.completed(folder):
            own = ", ".join(name for key, name in CHANGES.items() if key in overrides) or "all"
            for setting, model in ((own, "sft"), ("base", "pretrain")):
                numbers = {m: metrics[f"{model}/{m}"] for m in METRICS if f"{model}/{m}" in metrics}
                found[setting, int(overrides["seed"])] = sweeps.Run(setting, int(overrides["seed"]), numbers)
    return list(found.values())


def main() -> None:
    print(sweeps.table(sweeps.collected(HERE, METRICS, read), SETTINGS, METRICS, "model"))


if __name__ == "__main__":
    main()
