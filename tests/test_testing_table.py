"""The kit without pytest: the checks run in a plain process and print their outcomes as a table."""

import subprocess
import sys
from pathlib import Path

import pytest

from alignlab.testing.apply import Result, table

TESTS = Path(__file__).parent
PROGRAM = """
import sys
sys.modules["pytest"] = None  # importing it fails, as where it is not installed
import objective_faults, advantage_mutants, preference_mutants, reward_mutants, stage_cases
from alignlab.testing import *
slow = {"process_changes_nothing": "takes seconds"}
good = [
    check_objective(objective_faults.Paired()),
    check_advantage(advantage_mutants.GroupRelative()),
    check_preference(preference_mutants.Honest(), skip=slow),
    check_reward_source(reward_mutants.Honest(), skip=slow),
    check_stage(stage_cases.Honest(), inputs=stage_cases.given("preferences")),
]
assert all(good), good
assert not check_objective(objective_faults.Sign())
try:
    conforms_objective(objective_faults.Paired)
except ImportError as error:
    print(error)
"""


def test_the_checks_run_and_print_a_table_without_pytest() -> None:
    path = [str(TESTS), *sys.path]
    program = f"import sys\nsys.path[:] = {path!r}\n{PROGRAM}"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    assert "Paired: no check failed\n" in child.stdout and "Sign: 2 of 21 checks failed\n" in child.stdout
    row = f"  {'learns_the_right_way':47}  FAILED   Sign: at the start of training, the gradient moves"
    assert row in child.stdout
    assert f"  {'prompt_length_changes_nothing':47}  ok\n" in child.stdout
    assert child.stdout.rstrip().endswith("need pytest: pip install alignlab[testing]; check_... do without")


@pytest.mark.parametrize("width", [80, 120])
def test_long_reasons_are_wrapped_below_their_column(width: int) -> None:
    lines = table([Result("short", "ok"), Result("longer", "FAILED", "word " * 40)], width).splitlines()
    assert lines[0] == "  short   ok" and lines[1].startswith("  longer  FAILED   word word")
    assert max(map(len, lines)) <= width and len(lines) > 2
    assert {len(line) - len(line.lstrip()) for line in lines[2:]} == {19}
