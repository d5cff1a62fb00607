"""alignlab: a laboratory for the whole life of a language model.

The names that a plugin needs are exported here, and loaded when they are first used: `import alignlab` itself imports
neither torch nor numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from alignlab.advantage import Advantage
    from alignlab.artifact import Artifact, Kind
    from alignlab.batch import Batch, LabelledBatch, PreferenceBatch, RolloutBatch, TokenBatch
    from alignlab.objective import Loss, Objective, WeightedSum, Wrapped
    from alignlab.reward import Choice, Pair, Preference, RewardSource, ScoreModel, Scores
    from alignlab.runtime import Runtime
    from alignlab.stage import Stage, StageContext, Tracker
    from alignlab.stats import Mean, TokenStats

__version__: Final = "0.1.0"

CONTRACT: Final = 2
"""Version of the contracts that plugins are written against; a plugin states the one it was written for."""

_HOMES: Final = {
    "advantage": ("Advantage",),
    "artifact": ("Artifact", "Kind"),
    "batch": ("Batch", "LabelledBatch", "PreferenceBatch", "RolloutBatch", "TokenBatch"),
    "objective": ("Loss", "Objective", "WeightedSum", "Wrapped"),
    "reward": ("Choice", "Pair", "Preference", "RewardSource", "ScoreModel", "Scores"),
    "runtime": ("Runtime",),
    "stage": ("Stage", "StageContext", "Tracker"),
    "stats": ("Mean", "TokenStats"),
}
"""Module of each exported name."""

__all__ = [
    "CONTRACT",
    "Advantage",
    "Artifact",
    "Batch",
    "Choice",
    "Kind",
    "LabelledBatch",
    "Loss",
    "Mean",
    "Objective",
    "Pair",
    "Preference",
    "PreferenceBatch",
    "RewardSource",
    "RolloutBatch",
    "Runtime",
    "ScoreModel",
    "Scores",
    "Stage",
    "StageContext",
    "TokenBatch",
    "TokenStats",
    "Tracker",
    "WeightedSum",
    "Wrapped",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Load an exported name (PEP 562)."""
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"alignlab.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'alignlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Every exported name, loaded or not."""
    return sorted({*globals(), *__all__})
