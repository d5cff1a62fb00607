"""docs/objectives-by-regime.md: each of its losses passes the conformance kit, and is trained by the stage it names."""

import re
import sys
from collections.abc import Mapping
from typing import Any

import docs_pages
import pytest
import torch

from alignlab import Batch, LabelledBatch, Loss, Objective, PreferenceBatch, TokenStats
from alignlab.testing import Check, conforms_objective
from alignlab.training.step import step_constants

PAGE = "objectives-by-regime.md"


def load() -> Mapping[str, Any]:
    """The names of the page's file; it is a module, since dataclasses look theirs up."""
    module = type(sys)("by_regime")
    sys.modules["by_regime"] = module
    exec(compile(docs_pages.files(PAGE)["by_regime.py"], "by_regime.py", "exec"), vars(module))
    return vars(module)


SHOWN = load()


@conforms_objective(SHOWN["EveryAnswerAlike"])
def test_every_answer_alike(check: Check) -> None:
    check()


@conforms_objective(SHOWN["ORPO"])
def test_orpo(check: Check) -> None:
    check()


@conforms_objective(SHOWN["BCO"])
def test_bco(check: Check) -> None:
    check()


@conforms_objective(lambda: SHOWN["GSPO"](clip=0.2))
def test_gspo(check: Check) -> None:
    check()


@conforms_objective(SHOWN["Jeffreys"])
def test_jeffreys(check: Check) -> None:
    check()


def mean(objective: Objective[Any], logp: list[float], batch: Batch) -> float:
    """The loss of a batch of two-token sequences whose second token has these log-probabilities."""
    values = torch.tensor([x for value in logp for x in (0.0, value)])

    def stats(part: Batch) -> TokenStats:
        return TokenStats({"logp": values})

    batch = batch.with_constants(step_constants(objective, [batch], stats))
    loss: Loss = objective(stats(batch), batch)
    return float(loss.mean(objective.units(batch)))


def test_orpo_by_hand() -> None:
    # Probabilities 1/2 and 1/5 have odds 1 and 1/4; the chosen answer's nll is log 2.
    batch = PreferenceBatch.of([[1, 2]] * 2, [[False, True]] * 2)
    logs = torch.tensor([0.5, 0.2]).log().tolist()
    assert mean(SHOWN["ORPO"](weight=1.0), logs, batch) == pytest.approx(float(torch.tensor([2.0, 1.25]).log().sum()))


def test_bco_by_hand() -> None:
    # The rewards are 2 and 0, so the shift is 1: each answer costs log(1 + 1/e).
    batch = LabelledBatch.of([[1, 2]] * 2, [[False, True]] * 2).with_units(desirable=torch.tensor([1.0, 0.0]))
    batch = batch.with_tokens(reference_logp=torch.tensor([0.0, -3.0, 0.0, -1.0]))
    expected = float(torch.tensor(-1.0).exp().log1p())
    assert mean(SHOWN["BCO"](beta=1.0), [-1.0, -1.0], batch) == pytest.approx(expected)


def test_the_stages_named_take_the_batches() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `stage=(\w+)`", docs_pages.text(PAGE), re.MULTILINE)
    classes = [name for name, value in SHOWN.items() if isinstance(value, type) and value.__module__ == "by_regime"]
    assert [name for name, _ in rows] == classes
    stages = {f.stem for f in docs_pages.DOCS.parent.glob("plugins/*/conf/stage/*.yaml")}
    assert {stage for _, stage in rows} <= stages
