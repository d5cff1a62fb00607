"""Killed at any moment, a training stage ends with the bits of the run that was left alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from resume_cases import CASES

HERE = Path(__file__).parent
Wrong = Callable[..., list[str]]


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wrong]:
    """What of a case did not end with the same bits, by one process that imports once; see `resume_cases`."""
    words = [sys.executable, str(HERE / "resume_cases.py")]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([*sys.path, str(HERE)])}
    log = tmp_path_factory.mktemp("log") / "stderr"
    with (
        log.open("w") as stream,
        subprocess.Popen(words, stdin=-1, stdout=-1, stderr=stream, text=True, env=variables) as process,
    ):
        assert process.stdin and process.stdout

        def ask(case: str, folder: Path, *few: int) -> list[str]:
            assert process.stdin and process.stdout
            print(json.dumps([case, str(folder), *few]), file=process.stdin, flush=True)
            found = process.stdout.readline()
            assert found and "Traceback" not in log.read_text(), log.read_text()
            return list(json.loads(found))

        yield ask
        process.stdin.close()


def test_killed_at_a_few_moments_a_stage_ends_with_the_same_bits(wrong: Wrong, tmp_path: Path) -> None:
    assert wrong("dpo", tmp_path, 2) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_at_every_step_and_within_saves_a_stage_ends_with_the_same_bits(
    case: str, wrong: Wrong, tmp_path: Path
) -> None:
    """Every moment before and after a step, and seven each within saves and around other files."""
    assert wrong(case, tmp_path) == []
