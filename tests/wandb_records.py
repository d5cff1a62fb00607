"""Offline W&B runs, read back."""

import json
import subprocess
from pathlib import Path
from typing import Any

from wandb.util import get_core_path


def offline_records(folder: Path) -> list[list[dict[str, Any]]]:
    """The records of every offline run below a W&B folder, in the order in which they began."""
    runs = sorted((folder / "wandb").glob("offline-run-*"), key=lambda run: run.stat().st_mtime_ns)
    # What `wandb leet inspect --json RUN` calls, without a Python for each run.
    command = [get_core_path(), "leet", "inspect", "--json", "--run-file"]
    files = [next(run.glob("*.wandb")) for run in runs]
    outputs = [subprocess.run([*command, str(f)], capture_output=True, text=True, check=True).stdout for f in files]
    return [[json.loads(line) for line in output.splitlines()] for output in outputs]


def of_type(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The records of one kind."""
    return [record[kind] for record in records if record["type"] == kind]


def head_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Description of a run."""
    return of_type(records, "run")[0]


def summary_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers that a run ended with."""
    return {k: v for record in of_type(records, "summary") for k, v in record["update"].items()}


def curve_of(records: list[dict[str, Any]], name: str) -> list[float]:
    """The values of a metric in the order in which they were logged."""
    return [record["item"][name] for record in of_type(records, "history") if name in record["item"]]
