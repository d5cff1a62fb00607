"""Two processes sample the same answers and learn the same policy as one, from rollouts to critic."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from together import run_together

from alignlab.artifact import Artifact

SCRIPT = Path(__file__).with_name("two_processes.py")


def script() -> Any:
    found = importlib.util.spec_from_file_location("ppo_two_processes", SCRIPT)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def by_two_processes(policy: Path, folder: Path) -> list[dict[str, torch.Tensor]]:
    folder.mkdir()
    run_together(SCRIPT, policy, folder)
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(2)]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(policy: Artifact, tmp_path: Path) -> None:
    alone = script().train(policy.path, tmp_path / "one", processes=1)
    start = torch.cat([v.flatten() for v in alone.values()])
    for found in by_two_processes(policy.path, tmp_path / "two"):
        assert found.keys() == alone.keys()
        together = torch.cat([v.flatten() for v in found.values()])
        assert float((together - start).abs().max()) < 1e-5
