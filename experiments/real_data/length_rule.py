"""Does a reward model say more than "the shorter answer is the better one"? Held-out pairs, told apart by length.

python experiments/real_data/length_rule.py RUN
"""

import json
import math
import sys
from pathlib import Path

from alignlab.artifact import Artifact
from alignlab.data import preferences
from alignlab.policy import LearnedReward, Policy


def main(run: Path) -> None:
    """Print accuracy with its binomial standard error: of all pairs, and of those that the rule has right or wrong."""
    stages = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["stages"]
    pairs = preferences.read(Artifact.open(stages["preferences"]["artifact"]), "validation")
    reward = LearnedReward(Policy.load(Artifact.open(stages["reward_model"]["artifact"])))
    prompts = [p.prompt for p in pairs]
    margin = (
        reward.score(prompts, [p.chosen for p in pairs]) - reward.score(prompts, [p.rejected for p in pairs])
    ).tolist()
    groups = {
        "all": [m > 0 for m in margin],
        "chosen is shorter": [m > 0 for m, p in zip(margin, pairs, strict=True) if len(p.chosen) < len(p.rejected)],
        "chosen is longer": [m > 0 for m, p in zip(margin, pairs, strict=True) if len(p.chosen) > len(p.rejected)],
    }
    for name, right in groups.items():
        share = sum(right) / len(right)
        error = math.sqrt(share * (1 - share) / len(right))
        print(f"{name:18}  {share:.3f} +- {error:.3f}  n = {len(right)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
