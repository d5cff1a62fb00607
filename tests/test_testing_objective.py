"""The kit's checks of objectives: honest ones of many families pass, and every check catches a fault."""

from typing import Any

import pytest
import torch
from alignlab_ppo import PPO
from honest_objectives import EXTRAS, HONEST, KTO, Paired, PlackettLuce, Trusted
from honest_policy_gradients import POLICY_GRADIENTS
from masking_faults import BatchMeanValue, ListOffByOne, TwoPOverP
from objective_faults import (
    FAULTS,
    ORACLE,
    BaselineWithGradient,
    Fault,
    MismatchedRead,
    MismatchedTrained,
)
from objective_mutants import MORE

from alignlab.batch import Batch, LabelledBatch, PreferenceBatch, RolloutBatch, TokenBatch
from alignlab.objective import Loss, Objective, WeightedSum, Wrapped
from alignlab.stats import TokenStats
from alignlab.testing import Check, ObjectiveSubject, conforms_objective, ranked_lists
from alignlab.testing.apply import DoesNotApply, Result, outcome_of
from alignlab.testing.objective import CHECKS
from alignlab.testing.objective.contract import named_elements
from alignlab.testing.objective.step import run
from alignlab.testing.objective.subject import batch_type

NOT_JUDGED = {"StepLabels", "StepEnds", "OutcomeRegression"}
"""Honest objectives that the kit cannot tell better from worse for."""


def subject_of(objective: type[Objective[Any]]) -> ObjectiveSubject:
    lists = issubclass(objective, PlackettLuce)
    return ObjectiveSubject(objective, ranked_lists if lists else None, EXTRAS)


# ---- no false alarm --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("objective", [*HONEST, *POLICY_GRADIENTS, PlackettLuce], ids=lambda cls: cls.__name__)
def test_an_honest_objective_passes_every_check(objective: type[Objective[Any]]) -> None:
    results = [outcome_of(check, subject_of(objective), {}) for check in CHECKS]
    skipped = {r.check for r in results if r.outcome == "skipped"}
    assert [r for r in results if r.outcome == "FAILED"] == []
    assert skipped == ({"learns_the_right_way"} if objective.__name__ in NOT_JUDGED else set())


@conforms_objective(lambda: WeightedSum({"kto": KTO(), "same": Wrapped(KTO())}, {"kto": 0.5}))
def test_combined_objectives_pass(check: Check) -> None:
    check()


@conforms_objective(lambda: PPO(value_clip=None))
def test_what_only_other_arguments_use_is_no_fault(check: Check) -> None:
    check()


# ---- the 27 faults, and others ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("fault", [f for f in (*FAULTS, *MORE) if f.check], ids=lambda f: f"{f.name} -> {f.check}")
def test_fault_is_caught(fault: Fault) -> None:
    check = next(c for c in CHECKS if c.__name__ == fault.check)
    with pytest.raises(AssertionError, match=f"^{fault.mutant.__name__}: "):
        check(subject_of(fault.mutant))


def test_every_check_catches_a_fault() -> None:
    assert {c.__name__ for c in CHECKS} == {f.check for f in (*FAULTS, *MORE) if f.check}


def test_24_of_27_faults_are_caught_or_cannot_be_written() -> None:
    refused = {BaselineWithGradient, MismatchedTrained, TwoPOverP}
    assert len(FAULTS) == 27
    assert {f.mutant for f in FAULTS if not f.check} == refused | set(ORACLE)


@pytest.mark.parametrize("mutant", [TwoPOverP, BatchMeanValue])
def test_values_of_another_shape_than_their_elements_are_refused(mutant: type[Objective[Any]]) -> None:
    with pytest.raises(ValueError, match=f"{mutant.__name__}: term 'loss' must be one value per element"):
        run(mutant(), subject_of(mutant).case())


def test_a_step_mean_has_no_gradient_whatever_it_is_made_of() -> None:
    case = subject_of(KTO).case()
    honest, mutant = run(KTO(), case), run(BaselineWithGradient(), case)
    assert torch.allclose(mutant.gradient["logp"], honest.gradient["logp"], rtol=1e-12, atol=1e-14)


def test_mismatched_answers_never_reach_the_loss() -> None:
    case = subject_of(KTO).case()
    mutant = run(MismatchedTrained(), case)
    mismatched = (case.batch.rank() == 1)[case.batch.sequence_id]
    assert not mutant.gradient["logp"][mismatched].any()
    assert torch.equal(mutant.gradient["logp"], run(KTO(), case).gradient["logp"])
    with pytest.raises(ValueError, match="MismatchedRead: term 'loss' must be one value per element"):
        run(MismatchedRead(), case)


@pytest.mark.parametrize("mutant", ORACLE)
def test_what_only_an_oracle_can_tell_passes(mutant: type[Objective[Any]]) -> None:
    """Each is a legitimate loss under another name: the day that the kit has closed-form optima, this test fails."""
    assert [r for r in (outcome_of(c, subject_of(mutant), {}) for c in CHECKS) if r.outcome == "FAILED"] == []


def test_a_list_that_ends_too_early_names_its_sequences() -> None:
    lost = r"\[2, 3, 4, 8, 11, 12, 13, 17, 20, 21, 22\]"
    with pytest.raises(AssertionError, match=f"sequences {lost} of 23 have no gradient"):
        next(c for c in CHECKS if c.__name__ == "every_sequence_counts")(subject_of(ListOffByOne))


# ---- what the kit makes ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [TokenBatch, PreferenceBatch, LabelledBatch, RolloutBatch])
def test_batches_are_of_the_declared_type_and_unequal(kind: type[Batch]) -> None:
    class Takes(Objective[kind]):  # type: ignore[valid-type]
        """Mean over nothing."""

        def __call__(self, stats: TokenStats, batch: Any) -> Loss:
            raise NotImplementedError

    assert batch_type(Takes()) is kind
    batch = ObjectiveSubject(Takes).case(5).batch
    assert type(batch) is kind and batch.num_units == 5 and batch.temperature == 0.7
    assert len(set(batch.lengths().tolist())) > 2 and len(set(batch.weight.tolist())) > 2
    holes = batch.response_lengths() < batch.lengths() - (batch.position[batch.response_mask].min())
    assert bool(holes.any())


def test_mismatched_answers_are_made_where_they_are_read() -> None:
    batch = ObjectiveSubject(KTO).case(5).batch
    assert batch.num_sequences == 10 and batch.desirable.shape == (5,)


def test_known_extras_come_along_their_axes() -> None:
    class Reads(Objective[PreferenceBatch]):
        """Mean over nothing."""

        needs = frozenset({"kl_to_teacher", "kl_from_teacher", "score"})
        reads = frozenset({"margin", "agreement", "probability", "reference_logp"})

        def __call__(self, stats: TokenStats, batch: Any) -> Loss:
            raise NotImplementedError

    case = ObjectiveSubject(Reads).case(3)
    assert {k: len(v) for k, v in case.batch.per_unit.items()} == {"margin": 3, "agreement": 3, "probability": 3}
    assert 0 < float(case.batch.of_unit("probability").min()) <= float(case.batch.of_unit("probability").max()) <= 1
    assert bool((case.stats["kl_to_teacher"] > 0).all()) and bool((case.stats["kl_from_teacher"] > 0).all())
    assert case.stats["score"].shape == (6,)


def test_gradients_reach_the_statistics_through_every_cut() -> None:
    case = ObjectiveSubject(Paired).case(4)
    part = case.select([2, 0])
    gradient = torch.autograd.grad(part.stats["logp"].sum(), case.stats["logp"])[0]
    kept = torch.isin(case.batch.unit[case.batch.sequence_id], torch.tensor([0, 2]))
    assert torch.equal(gradient, kept.double())


def test_an_extra_that_the_kit_does_not_know_is_named() -> None:
    with pytest.raises(ValueError, match=r"Trusted reads 'trust'.*extras="):
        ObjectiveSubject(Trusted).case()
    with pytest.raises(ValueError, match=r"extras\['trust'\] gave shape \(3,\)"):
        ObjectiveSubject(Trusted, extras={"trust": lambda batch, generator: torch.ones(3)}).case()


def test_an_objective_without_a_batch_is_told_to_state_one() -> None:
    class Untyped(Objective):  # type: ignore[type-arg]
        """Mean over nothing."""

        def __call__(self, stats: TokenStats, batch: Any) -> Loss:
            raise NotImplementedError

    with pytest.raises(TypeError, match=r"Untyped: does not state its batch; write class Untyped\(Objective\["):
        ObjectiveSubject(Untyped).case()


@pytest.mark.parametrize(
    ("doc", "named"),
    [
        ("Mean over pairs of `-log sigmoid(x)`.", {"pair"}),
        ("The mean over response tokens of `-log p`.", {"token"}),
        ("Averaged per answer, summed over tokens.", {"answer"}),
        ("Two terms, each a mean over response tokens:", {"token"}),
        ("Mean over the chosen tokens of the NLL. Plus the mean over pairs of answers.", {"token", "pair"}),
        ("A reward for spread, per nat and token.", set()),
    ],
)
def test_the_elements_of_a_mean_are_read_from_the_docstring(doc: str, named: set[str]) -> None:
    assert named_elements(doc) == named


# ---- outcomes and tables ---------------------------------------------------------------------------------------------
def test_skipping_a_check_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="there is no check \\['tipo'\\]"):
        conforms_objective(Paired, skip={"tipo": "because"})


def test_outcomes_name_the_reason() -> None:
    def holds(subject: str) -> None:
        assert subject

    def fails(subject: str) -> None:
        raise AssertionError(f"{subject}: broken")

    def crashes(subject: str) -> None:
        raise KeyError(subject)

    def silent(subject: str) -> None:
        raise DoesNotApply("nothing to compare")

    assert outcome_of(holds, "x", {}) == Result("holds", "ok")
    assert outcome_of(holds, "x", {"holds": "because"}) == Result("holds", "skipped", "because")
    assert outcome_of(fails, "x", {}) == Result("fails", "FAILED", "x: broken")
    assert outcome_of(crashes, "x", {}) == Result("crashes", "FAILED", "KeyError: 'x'")
    assert outcome_of(silent, "x", {}) == Result("silent", "skipped", "nothing to compare")
