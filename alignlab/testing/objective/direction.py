"""The check that a step of gradient descent moves a policy the right way.

It looks at the start of training, where the policy is its own reference and nothing is preferred yet: there, whatever
the method, more log-probability on what is to be imitated, chosen, called good or found better than expected must not
raise the loss, and on the opposite it must not lower it.

Axes: S sequences.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alignlab.batch import LabelledBatch, PreferenceBatch, TokenBatch
from alignlab.objective import Objective
from alignlab.testing.apply import DoesNotApply
from alignlab.testing.objective.cases import PER_SEQUENCE, Case
from alignlab.testing.objective.start import START_LOGP, at_start
from alignlab.testing.objective.step import run
from alignlab.testing.objective.subject import ObjectiveSubject

ROUNDING = 1e-12
"""Slopes below this are 0."""
MOVED = 1.0
"""Nats by which the policy has moved the wrong way: a ratio of 0.37 or 2.7, beyond PPO's clip."""


def learns_the_right_way(subject: ObjectiveSubject) -> None:
    """At the start of training no statistic is pushed the wrong way; and from the wrong way it is pulled back.

    Where old log-probabilities and advantages are read, the policy is also moved one nat against the advantage: the
    gradient must still pull it back, or the clip is on the wrong side. A loss that pushes otherwise on purpose
    (unlearning) skips this check, stating the reason.
    """
    objective, case = subject.make(), at_start(subject.case())
    wanted = _wanted(objective, case)
    if not any(bool(want.any()) for want in wanted.values()):
        raise DoesNotApply("its batch holds nothing to tell better from worse by")
    for name, slope in _slopes(subject, case).items():
        _check(subject, slope * wanted[name], name, wanted[name], "at the start of training")
    if {"old_logp", "advantage"} <= objective.reads and "logp" in objective.needs:
        _is_pulled_back(subject, case, wanted["logp"])


def _wanted(objective: Objective[Any], case: Case) -> dict[str, Tensor]:
    """`(S,)` of each statistic: 1 where more of it must not raise the loss, -1 where it must not lower it, else 0."""
    claims = {name: torch.zeros(case.batch.num_sequences, dtype=torch.float64) for name in case.stats}
    better = _better(objective, case)
    # A score of a text alone may have to fall: texts are imitated by their log-probability.
    judged = ("logp",) if isinstance(case.batch, TokenBatch) else ("logp", "score")
    claims |= {name: better for name in judged if name in claims}
    claims |= {name: -torch.ones_like(better) for name in claims if name.startswith("kl_")}
    if "value" in claims and "returns" in objective.reads:
        claims["value"] = _of_sequence(case, case.batch.token("returns")).sign()
    return claims


def _better(objective: Objective[Any], case: Case) -> Tensor:
    """`(S,)` 1 for answers that are to become likelier, -1 for those that are not, 0 where nothing is said."""
    batch, rank = case.batch, case.batch.rank()
    found = torch.zeros(batch.num_sequences, dtype=torch.float64)
    if "advantage" in objective.reads:
        found += _of_sequence(case, batch.token("advantage")).sign()
    elif isinstance(batch, PreferenceBatch):
        last = torch.bincount(batch.unit, minlength=batch.num_units)[batch.unit] - 1
        found += (rank == 0).double() - (rank == last).double()
    elif isinstance(batch, LabelledBatch) and "desirable" in objective.reads:
        found += (2 * batch.desirable.double()[batch.unit] - 1) * (rank == 0)
    elif isinstance(batch, TokenBatch):
        found += 1  # texts are there to be imitated; of samples nothing is known without their advantages
    return found


def _of_sequence(case: Case, x: Tensor) -> Tensor:
    found: Tensor = case.batch.mean_by_sequence(x)
    return found


def _slopes(subject: ObjectiveSubject, case: Case) -> dict[str, Tensor]:
    """`(S,)` of each statistic: change of the loss for one more nat (reward unit) at every response token."""
    gradient: Mapping[str, Tensor] = run(subject.make(), case).gradient
    return {k: g if k in PER_SEQUENCE else case.batch.sum_by_sequence(g) for k, g in gradient.items()}


def _check(subject: ObjectiveSubject, against: Tensor, name: str, want: Tensor, when: str) -> None:
    wrong = (against > ROUNDING).nonzero()[:, 0]
    if wrong.numel():
        first = int(wrong[0])
        slope, should = float(against[first] * want[first]), "rise" if want[first] > 0 else "fall"
        raise AssertionError(
            f"{subject.name}: {when}, the gradient moves {name} the wrong way in {wrong.numel()} sequences. In "
            f"sequence {first} it should {should}, and the loss changes by {slope:+.3g} per unit of it; is a sign, a "
            f"side or a label swapped, or a ratio not detached?"
        )


def _is_pulled_back(subject: ObjectiveSubject, case: Case, want: Tensor) -> None:
    moved = case.with_values(logp=START_LOGP - MOVED * case.along(want))
    against = _slopes(subject, moved)["logp"] * want
    _check(subject, against, "logp", want, f"where the policy has moved {MOVED:g} nat the wrong way")
    stuck = int((against > -ROUNDING).sum())
    assert not stuck, (
        f"{subject.name}: where the policy has moved {MOVED:g} nat the wrong way, {stuck} sequences have no gradient "
        f"that pulls it back; is the clip on the wrong side (take the larger of the two losses)?"
    )
