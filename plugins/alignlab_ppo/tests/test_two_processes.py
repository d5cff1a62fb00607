"""Two processes sample the same answers and learn the same policy as one, from rollouts to critic."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from free_port import free_port

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
    port = free_port()
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join(p for p in sys.path if p)
    workers = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(policy), str(folder)],
            env={**os.environ, **common, "LOCAL_RANK": str(r), "RANK": str(r), "NODE_RANK": "0", "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for r in range(2)
    ]
    try:
        said = [w.communicate(timeout=150)[0] for w in reversed(workers)]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert all(w.returncode == 0 for w in workers), "\n".join(said)
    return [torch.load(folder / f"{r}.pt", weights_only=True) for r in range(2)]


def test_two_processes_learn_what_one_learns(policy: Artifact, tmp_path: Path) -> None:
    alone = script().train(policy.path, tmp_path / "one", processes=1)
    start = torch.cat([v.flatten() for v in alone.values()])
    for found in by_two_processes(policy.path, tmp_path / "two"):
        assert found.keys() == alone.keys()
        together = torch.cat([v.flatten() for v in found.values()])
        assert float((together - start).abs().max()) < 1e-5
