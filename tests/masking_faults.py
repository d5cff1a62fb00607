"""Objectives that read a statistic at the wrong place, or take the wrong mean."""

from dataclasses import replace
from typing import Any

import torch
from honest_objectives import KTO, Paired, PlackettLuce, StepLabels
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab import LabelledBatch, Loss, Mean, Objective, PreferenceBatch, TokenBatch, TokenStats
from alignlab.objective import log_ratio, sequences


def sum_all(x: Tensor, batch: Any) -> Tensor:
    """Sum over all tokens of each sequence, masked or not."""
    return x.new_zeros(batch.num_sequences).index_add(0, batch.sequence_id, x)


def late(x: Tensor) -> Tensor:
    """Entries one place later."""
    return torch.cat([x.new_zeros(min(1, len(x))), x[:-1]])


def last_response(batch: Any) -> Tensor:
    """True at the last response token of each sequence."""
    following = torch.cat([batch.response_mask[1:], batch.response_mask.new_zeros(1)])
    new = torch.cat([batch.sequence_id[1:] != batch.sequence_id[:-1], torch.ones(1, dtype=torch.bool)])
    found: Tensor = batch.response_mask & (~following | new[: batch.num_tokens])
    return found


# ---- statistics read at the wrong place ------------------------------------------------------------------------------
class PolicyOneTokenLate(Paired):
    """Mean over pairs; the policy's log-probabilities are read one token late."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return super().__call__(TokenStats({"logp": late(stats.logp)}), batch)


class ReferenceOneTokenLate(Paired):
    """Mean over pairs; the reference's log-probabilities are read one token late, after masking."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return super().__call__(stats, batch.with_tokens(reference_logp=late(batch.scored(batch.reference_logp))))


class PromptScored(Paired):
    """Mean over pairs; the prompt's tokens are summed with the answer's."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        ratio = sum_all(stats.logp - batch.reference_logp, batch)
        return batch.chosen(ratio) - batch.rejected(ratio)


class MissingEOS(Paired):
    """Mean over pairs; the last response token is masked as padding."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return super().__call__(stats, replace(batch, response_mask=batch.response_mask & ~last_response(batch)))


class NumeratorOnly(Paired):
    """Mean over pairs of a length-normalised margin, whose lengths count the prompt too."""

    def margin(self, stats: TokenStats, batch: PreferenceBatch) -> Tensor:
        ratio = log_ratio(stats, batch) / batch.lengths()
        return batch.chosen(ratio) - batch.rejected(ratio)


class StepLabelLate(StepLabels):
    """Mean over tokens; the label of a step is read one token late."""

    def label(self, batch: TokenBatch) -> Tensor:
        return late(batch.scored(batch.token("step_label")))


class NeighboursLabel(KTO):
    """Mean over answers; each answer is judged by its neighbour's label."""

    def sign(self, batch: LabelledBatch) -> Tensor:
        return super().sign(batch).roll(1)


class ListOffByOne(PlackettLuce):
    """Mean over lists; the last answer of each list is left out."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        ratio, rank = log_ratio(stats, batch), batch.rank()
        size = torch.bincount(batch.unit, minlength=batch.num_units)[batch.unit]
        kept = rank < size - 1
        worse = (batch.unit[None] == batch.unit[:, None]) & (rank[:, None] <= rank[None]) & kept[None]
        nll = ratio[None].expand_as(worse).masked_fill(~worse, -torch.inf).logsumexp(1)
        nll = torch.where(kept, nll - ratio, 0.0)
        return self.loss(batch, loss=batch.sum_by_unit(nll))


# ---- the wrong mean --------------------------------------------------------------------------------------------------
class BatchMean(Paired):
    """Mean over the pairs of a micro-batch (trl#6024), built around `self.loss`."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        loss = super().__call__(stats, batch)
        return Loss({"loss": loss.terms["loss"] / max(batch.num_units, 1)}, loss.metrics)


class BatchMeanValue(Paired):
    """Mean over pairs, taken at once."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        return self.loss(batch, loss=-logsigmoid(self.beta * self.margin(stats, batch)).mean())


class LocalUnits(Paired):
    """Mean over pairs; each micro-batch has weight 1 in all."""

    per = {"loss": lambda batch: batch.weight / batch.weight.sum().clamp_min(1e-9)}


class WeightsForgotten(Paired):
    """Mean over pairs, all counted once."""

    per = {"loss": lambda batch: torch.ones_like(batch.weight)}


class AllTokens(Objective[TokenBatch]):
    """Mean over tokens, prompt tokens included, of the NLL of the response tokens."""

    per = {"loss": lambda batch: batch.weight_by_sequence()[batch.sequence_id]}

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        return self.loss(batch, loss=-batch.scored(stats.logp))


class TwoPOverP(Paired):
    """Mean over pairs, with one value for each of the 2P answers."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        sign = torch.where(batch.rank() == 0, 1.0, -1.0)
        return self.loss(batch, loss=-logsigmoid(self.beta * sign * log_ratio(stats, batch)))


class TokensOverAnswers(Objective[TokenBatch]):
    """Mean over response tokens of the NLL."""

    per = {"loss": sequences}

    def __call__(self, stats: TokenStats, batch: TokenBatch) -> Loss:
        return self.loss(batch, loss=-batch.sum_by_sequence(stats.logp))


class MetricPerBatch(Paired):
    """Mean over pairs; the metric is a mean over batches."""

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        margin = self.margin(stats, batch)
        mean = Mean(margin.detach().mean() if len(margin) else margin.detach().sum(), torch.ones(()))
        return self.loss(batch, loss=-logsigmoid(self.beta * margin), metrics={"margin": mean})
