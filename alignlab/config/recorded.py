"""Run the `config.yaml` of an earlier run again.

It is resolved: each stage holds its own seed and its own copy of the data, so that the top-level keys from which they
came no longer reach them.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from alignlab.config import options
from alignlab.config.files import check_text, not_yaml
from alignlab.config.grammar import parse
from alignlab.config.plugins import CORE
from alignlab.errors import ConfigError

SOURCES: Final = ("seed", "data", "model", "tokenizer", "adapter", "rollout", "experiment", "stage")
"""Top-level keys that a recorded configuration no longer uses: they were resolved into the stages."""


@contextmanager
def recorded_root(file: Path | None, overrides: Sequence[str]) -> Iterator[Path | None]:
    """A root configuration made of a recorded one; None where none is given.

    Args:
        file: `RUN/config.yaml`.
        overrides: as typed.

    Raises:
        ConfigError: the file is not a run's configuration, or an override would have no effect on it.
    """
    if file is None:
        yield None
        return
    content = _read(file)
    for override in parse(overrides):
        head = str(override.key_or_group).partition(".")[0]
        if head in SOURCES:
            raise ConfigError(
                f"{override.input_line}: has no effect on a recorded configuration, because {head!r} was resolved into "
                f"the stages of {file}; set the key of a stage, as in pipeline.NAME.{override.key_or_group}=..."
            )
    with tempfile.TemporaryDirectory(prefix="alignlab-") as folder:
        root = Path(folder) / "recorded.yaml"
        root.write_text(yaml.safe_dump(_root(content), sort_keys=False, allow_unicode=True), encoding="utf-8")
        yield root


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(check_text(file, "--config"))
    except OSError as error:
        raise ConfigError(
            f"--config: {file} cannot be read ({error.strerror}); name the config.yaml of a run"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(not_yaml(file, "--config", error)) from error
    if not isinstance(content, dict) or "pipeline" not in content or {"hydra", "defaults"} & content.keys():
        raise ConfigError(
            f"--config: {file} is not the config.yaml of a run; a folder of options is given by --config-dir"
        )
    return content


def _root(content: dict[str, Any]) -> dict[str, Any]:
    """The recorded content below alignlab's own defaults, of which only Hydra's settings are left."""
    own = options.Option("", "config", options.core_conf() / "config.yaml", CORE).read()
    groups = [{key: None} for entry in own["defaults"] if isinstance(entry, dict) for key in entry if " " not in key]
    hydra = [entry for entry in own["defaults"] if isinstance(entry, dict) and any(" " in key for key in entry)]
    rest = {key: value for key, value in own.items() if key != "defaults"}
    tracking = {"tracking": _tracking(content["tracking"])} if isinstance(content.get("tracking"), dict) else {}
    return {"defaults": [*groups, "_self_", *hydra], **rest, **content, **tracking}


def _tracking(node: dict[str, Any]) -> dict[str, Any]:
    """The place where an older run reported to, as it is written today: settings of W&B are those of a recorder."""
    moved = {key: node[key] for key in ("mode", "project", "entity", "folder") if key in node}
    if not moved:
        return node
    kept = {key: value for key, value in node.items() if key not in moved}
    recorders: dict[str, Any] = (
        {} if moved.get("mode") == "off" else {"wandb": {"_target_": "alignlab.tracking.Wandb", **moved}}
    )
    return {**kept, "recorders": recorders}
