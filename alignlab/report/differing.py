"""Keys in which runs differ: of their whole configuration, typed or written in a file; and code and data of stages."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from alignlab.report.trial import Trial

NOT_COMPARED: Final = ("store_dir", "tracking", "name")
"""Top-level keys that decide nothing of what is learnt."""
ABSENT: Final = "–"
"""Value of a key that a run does not have."""


def keys_that_differ(trials: Sequence[Trial]) -> dict[str, tuple[str, ...]]:
    """Value of each run, by key, of the keys in which runs differ apart from their seed.

    Among them are the code and data of stages, `code of dpo`, where all runs have recorded them.
    """
    is_known = all(trial.reads for trial in trials)  # by runs of older versions it is not
    flat = [dict(_flat(trial.config)) | (dict(trial.reads) if is_known else {}) for trial in trials]
    vectors = {key: tuple(f.get(key, ABSENT) for f in flat) for key in dict.fromkeys(k for f in flat for k in f)}
    of_seed, names = vectors.get("seed"), tuple(str(trial.config.get("name")) for trial in trials)
    apart = {k: v for k, v in vectors.items() if len(set(v)) > 1 and not _is_seed(k, v, of_seed)}
    return {k: v for k, v in apart.items() if not (k.endswith(".experiment") and v == names)}


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and values of a configuration."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if not prefix and key in NOT_COMPARED:
            continue
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None or prefix:
            yield f"{prefix}{key}", "null" if value is None else str(value)


def _is_seed(key: str, values: Sequence[str], of_seed: Sequence[str] | None) -> bool:
    """Whether a key is the seed, or a stage's copy of it."""
    return key == "seed" or (key.rpartition(".")[2] == "seed" and values == of_seed)
