"""docs/where-methods-end.md: its objectives conform and end where they say, as do those of objectives-by-regime.md."""

import sys
from collections.abc import Mapping
from typing import Any

import docs_pages
import pytest

from alignlab import RolloutBatch
from alignlab.testing import Check, conforms_objective
from alignlab.testing.oracle import MISTAKES, verify

PAGE = "where-methods-end.md"


def load(page: str, file: str) -> Mapping[str, Any]:
    """The names of a page's file; it is a module, since dataclasses look theirs up."""
    name = file.removesuffix(".py")
    module = sys.modules[name] = type(sys)(name)
    exec(compile(docs_pages.files(page)[file], file, "exec"), vars(module))
    return vars(module)


BY_LENGTH, MORE = load(PAGE, "by_length.py"), load(PAGE, "more_ends.py")
BY_REGIME = load("objectives-by-regime.md", "by_regime.py")


def test_the_pages_own_test_passes() -> None:
    names, verdicts = dict(load(PAGE, "test_by_length.py")), []
    module = sys.modules["test_by_length"]
    module.verify = lambda objective: verdicts.append(names["verify"](objective)) or verdicts[-1]  # type: ignore
    module.test_it_ends_where_it_says()
    assert [verdict.reached for verdict in verdicts] == [True]


@pytest.mark.parametrize("name", ["DistilledDPO", "ImitateGood", "DistilledReward"])
def test_each_ends_where_it_says(name: str) -> None:
    verdict = verify(MORE[name]())
    assert verdict.reached and verdict.start is not None and verdict.start > 0.1, verdict


@pytest.mark.slow
def test_so_do_those_with_a_teacher_and_online() -> None:
    from alignlab_grpo import LeaveOneOut

    assert verify(BY_REGIME["Jeffreys"]()).reached
    assert BY_REGIME["GSPO"]().takes is RolloutBatch
    assert verify(BY_REGIME["GSPO"](), LeaveOneOut(beta=0.5)).reached
    for name in ("ORPO", "BCO"):
        assert not verify(BY_REGIME[name]()).is_known


@conforms_objective(BY_LENGTH["EveryAnswerAlike"])
def test_every_answer_alike(check: Check) -> None:
    check()


@conforms_objective(MORE["DistilledDPO"])
def test_distilled_dpo(check: Check) -> None:
    check()


@conforms_objective(MORE["ImitateGood"])
def test_imitate_good(check: Check) -> None:
    check()


@conforms_objective(MORE["DistilledReward"])
def test_distilled_reward(check: Check) -> None:
    check()


def test_every_mistake_is_described() -> None:
    text = docs_pages.text(PAGE).split("## The usual mistakes")[1]
    assert text.split("A mistake can also")[0].count(";") == len(MISTAKES) - 1
