"""Checks of a stage that trains a policy: micro-batches add up, stop tokens are scored, the reference stays."""

from typing import Any

import torch

from alignlab.batch import Batch
from alignlab.policy import Policy
from alignlab.testing.apply import DoesNotApply
from alignlab.testing.stage.driving import batches, distance, prepared, trained, weights
from alignlab.testing.stage.sandbox import StageSubject
from alignlab.training import OnlineStage, measure
from alignlab.training.stage import TrainingStage

SMALL, LARGE = 1, 10**6
"""Budgets of tokens: every unit a micro-batch of its own, and the whole step in one."""
BUDGET_TOLERANCE = 1e-3
"""Largest difference of the weights, as a share of how far training moved them."""
REFERENCE_TOLERANCE = 1e-4
"""Largest difference of a log-probability, nats."""


def memory_budget_changes_nothing(subject: StageSubject) -> None:
    """Trained in float64 with one unit per micro-batch, and with all in one, the weights end the same.

    Their difference is at most 0.001 of how far training moved them, in the Euclidean norm. The model has no dropout:
    it would be drawn in another order.
    """
    with subject.sandbox() as sandbox:
        start = weights(prepared(subject, sandbox))
        small, large = (weights(trained(subject, sandbox, budget, "64-true")) for budget in (SMALL, LARGE))
    moved, apart = distance(large, start), distance(small, large)
    assert moved > 0, f"{subject.name}: training moved no weight"
    assert apart <= BUDGET_TOLERANCE * moved, (
        f"{subject.name}: the weights with loop.micro_batch_tokens={SMALL} and {LARGE} differ by {apart / moved:.2g} "
        f"of how far training moved them; gradients must add up over micro-batches, each term over the units of the "
        f"whole step"
    )


def the_stop_token_is_scored(subject: StageSubject) -> None:
    """Where a trained sequence ends with a stop token, that token is in the response mask; some sequences do end so."""
    with subject.sandbox() as sandbox:
        stage = prepared(subject, sandbox)
        ended = 0
        for batch in batches(stage):
            own = batch.trained()
            last = own.last_tokens()
            stops = torch.tensor([int(t) in stage.policy.stop_ids for t in own.tokens[last]], dtype=torch.bool)
            lost = (stops & ~own.response_mask[last]).nonzero()[:, 0].tolist()
            assert not lost, (
                f"{subject.name}: the stop token of {_name(own, lost[0])} is not scored, so the policy would not "
                f"learn to stop; the response mask must include it"
            )
            ended += int(stops.sum())
    if isinstance(stage, OnlineStage) and not ended:
        raise DoesNotApply("no sampled answer was finished")
    assert ended, f"{subject.name}: no trained sequence ends with a stop token, so the policy would not learn to stop"


def the_reference_stays(subject: StageSubject) -> None:
    """Before and after training, `reference_logp` is what the saved reference gives for the same tokens."""
    with subject.sandbox() as sandbox:
        before = prepared(subject, sandbox)
        if not any("reference_logp" in b.per_token for b in batches(before)):
            raise DoesNotApply("its batches carry no reference_logp")
        source = sandbox.inputs.get("reference", sandbox.inputs.get("policy"))
        if source is None:
            raise DoesNotApply("it has no input that is a reference")
        saved = Policy.load(source, before.context.runtime.dtype).eval()
        after = trained(subject, sandbox)
        for when, stage in (("before training", before), ("after training", after)):
            far = max(_reference_error(saved, batch, stage) for batch in batches(stage))
            assert far <= REFERENCE_TOLERANCE, (
                f"{subject.name}: {when}, reference_logp is up to {far:.2g} nats from what its saved reference gives; "
                f"it must be computed by a frozen copy, on the tokens and at the temperature of the batch"
            )


def _reference_error(saved: Policy, batch: Batch, stage: TrainingStage[Any]) -> float:
    runtime = stage.context.runtime
    expected = measure(saved.to(runtime.device), batch, runtime, stage.loop.micro_batch_tokens)
    off = (batch.reference_logp.cpu() - expected)[batch.response_mask.cpu()]
    return float(off.abs().max()) if off.numel() else 0.0


def _name(batch: Batch, sequence: int) -> str:
    return batch.names[sequence] if batch.names else f"sequence {sequence}"
