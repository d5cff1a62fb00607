"""Killed at any moment, a training stage ends with the bits of the run that was left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from resume_cases import CASES

HERE = Path(__file__).parent


def wrong(case: str, folder: Path, *few: str) -> list[str]:
    """What did not end with the same bits; see `resume_cases`."""
    words = [sys.executable, str(HERE / "resume_cases.py"), case, str(folder), *few]
    path = os.pathsep.join([*sys.path, str(HERE)])
    found = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr, found.stderr
    return list(json.loads(found.stdout.splitlines()[-1]))


def test_killed_at_a_few_moments_a_stage_ends_with_the_same_bits(tmp_path: Path) -> None:
    assert wrong("dpo", tmp_path, "2") == []


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_step_and_within_saves_a_stage_ends_with_the_same_bits(case: str, tmp_path: Path) -> None:
    """Every moment before and after a step, and ten each within saves and around other files."""
    assert wrong(case, tmp_path) == []
