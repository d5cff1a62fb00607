"""The kit's checks of stages: honest ones pass, every check catches a fault, and a training stage resumes."""

import pytest
import torch
from stage_cases import Honest, given, labels, online, pairs
from stage_mutants import FAULTS, MORE, Fault, ShiftedNotes

from alignlab.testing import Check, KillingTracker, StageSubject, check_stage, conforms_stage
from alignlab.testing.apply import DoesNotApply
from alignlab.testing.stage import CHECKS

OF_TRAINING = {
    "memory_budget_changes_nothing",
    "the_stop_token_is_scored",
    "the_reference_stays",
    "batches_hold_what_was_given",
}


# ---- no false alarm --------------------------------------------------------------------------------------------------
@conforms_stage(Honest, inputs=given("preferences"), skip=dict.fromkeys(OF_TRAINING, "trains nothing"))
def test_honest(check: Check) -> None:
    check()


@conforms_stage(labels, inputs=given("policy", "preferences"))
def test_labelled_stage(check: Check) -> None:
    check()


@conforms_stage(
    online,
    inputs=given("policy"),
    skip={"the_reference_stays": "no reference is read", "batches_hold_what_was_given": "takes no preferences"},
)
def test_online_stage(check: Check) -> None:
    check()


@pytest.mark.parametrize("name", sorted(OF_TRAINING))
def test_a_stage_that_trains_nothing_is_not_judged_by_training(name: str) -> None:
    check = next(c for c in CHECKS if c.__name__ == name)
    with pytest.raises(DoesNotApply, match="trains no policy"):
        check(StageSubject(Honest, given("preferences")))


def test_notes_of_the_own_record_are_accepted() -> None:
    class Noted(ShiftedNotes):
        """Pairs carry their own margins."""

        def shifted(self, margins: torch.Tensor) -> torch.Tensor:
            return margins

    check = next(c for c in CHECKS if c.__name__ == "batches_hold_what_was_given")
    check(StageSubject(lambda: pairs(Noted), given("policy", "preferences")))


# ---- the 7 faults, and others ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", [*FAULTS, *MORE], ids=lambda f: f"{f.name} -> {f.check}")
def test_fault_is_caught(fault: Fault) -> None:
    check = next(c for c in CHECKS if c.__name__ == fault.check)
    with pytest.raises(AssertionError, match=f"^{fault.mutant.__name__}: "):
        check(StageSubject(fault.make, fault.inputs))


def test_every_check_catches_a_fault() -> None:
    assert len(FAULTS) == 7
    assert {c.__name__ for c in CHECKS} == {f.check for f in (*FAULTS, *MORE)}


def test_the_table_names_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    fault = next(f for f in MORE if f.name == "NaN as a metric")
    assert check_stage(Honest(), inputs=given("preferences"))
    assert not check_stage(fault.make(), inputs=given("preferences"))
    printed = capsys.readouterr().out
    assert "Honest: no check failed" in printed and "NotANumber: 2 of 12 checks failed" in printed
    assert "NotANumber: {'counted': nan} are not finite numbers" in printed
    assert "the_reference_stays                 skipped  it trains no policy by an objective" in printed


# ---- a stage that trains ---------------------------------------------------------------------------------------------
def test_a_training_stage_continues_where_it_was() -> None:
    """Killed when step 3 is logged, it has saved step 2 and does 2 more steps, not 4."""
    with StageSubject(pairs, given("policy", "preferences")).sandbox() as sandbox:
        whole = KillingTracker()
        sandbox.run(whole, key="1" * 64)
        logged = [f"log of step {k}" for k in (1, 2, 3, 4)]
        assert sorted(set(whole.reports) & set(logged)) == logged
        sandbox.kill(whole.reports.index("log of step 3"))
        again = KillingTracker()
        sandbox.run(again)
        assert sorted(set(again.reports) & set(logged)) == logged[2:]
