"""Imitation of chosen answers, alone and next to DPO as `objective=dpo_sft` has it."""

import math
from pathlib import Path

import pytest
import yaml
from alignlab_dpo import ChosenNLL
from worked_pairs import cost, pair, slopes

from alignlab.config.check import parse
from alignlab.objective import WeightedSum
from alignlab.optimum import Chosen, NoneKnown
from alignlab.testing import Check, conforms_objective

OPTION = Path(__file__).parents[1] / "conf" / "objective" / "dpo_sft.yaml"


def dpo_sft() -> WeightedSum:
    """The option, as it is shipped."""
    found: WeightedSum = parse(yaml.safe_load(OPTION.read_text(encoding="utf-8")), "objective").build()
    return found


def test_only_chosen_tokens_are_imitated() -> None:
    assert float(cost(ChosenNLL(), pair())[0]) == 1.5 and ChosenNLL().optimum() == Chosen()
    assert slopes(ChosenNLL(), pair()) == [0, -0.5, -0.5, 0, 0]


def test_dpo_and_imitation_are_each_a_mean_of_their_own() -> None:
    """A margin of 2 nats; 1.5 nats per chosen token."""
    found, metrics = cost(dpo_sft(), pair())
    assert float(found) == pytest.approx(math.log(1 + math.exp(-0.2)) + 0.2 * 1.5, abs=1e-14)
    assert metrics["dpo/margin"] == 2.0
    assert dpo_sft().reads == {"reference_logp"} and isinstance(dpo_sft().optimum(), NoneKnown)


@conforms_objective(ChosenNLL)
def test_chosen_nll_conforms(check: Check) -> None:
    check()


@conforms_objective(dpo_sft)
def test_dpo_sft_conforms(check: Check) -> None:
    check()
