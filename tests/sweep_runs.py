"""Made-up folders of runs, with the files that a run leaves without its stages."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

STAGES: Mapping[str, Mapping[str, object]] = {
    "dpo": {"order": 1, "kind": "policy", "inputs": {"policy": "sft"}},
    "sft": {"order": 0, "kind": "policy", "inputs": {}},
}


def make(
    folder: Path, overrides: Sequence[str], metrics: Mapping[str, float], seed: int = 0, status: str = "completed"
) -> Path:
    """A run's folder; `status` as its process left it."""
    folder.mkdir(parents=True)
    about = {"name": "made_up", "seed": seed, "created": f"2026-01-01T00:00:0{seed}", "overrides": list(overrides)}
    files = {
        "manifest.json": {**about, "stages": STAGES},
        "metrics.json": metrics,
        "status.json": {"status": status, "pid": 1},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def beta(root: Path, value: str, seed: int, recall: float, **more: float) -> Path:
    """A run of a sweep over beta, with an interval of 0.1 to each side."""
    metrics = {"dpo/recall": recall, "dpo/recall_low": recall - 0.1, "dpo/recall_high": recall + 0.1}
    overrides = ["experiment=smoke", f"seed={seed}", f"dpo.beta={value}", f"store_dir={root}/{value}"]
    started = {"sft/recall": 0.25, "sft/recall_low": 0.2, "sft/recall_high": 0.3}
    return make(root / value / str(seed), overrides, {**metrics, **started, **more}, seed)
