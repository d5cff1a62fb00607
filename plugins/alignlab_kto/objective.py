"""The loss of Kahneman-Tversky optimisation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from alignlab import LabelledBatch, Loss, Mean, Objective, TokenStats
from alignlab.objective import log_ratio


@dataclass(frozen=True)
class KTO(Objective[LabelledBatch]):
    """Make good answers likelier and bad ones less likely than the reference, relative to how far the policy has moved.

    Mean over labelled answers of `w * (1 - sigmoid(beta * (r - z)))` for good ones and of
    `w * (1 - sigmoid(beta * (z - r)))` for bad ones, where r is the log-ratio of the answer to the reference, in nats,
    summed over its response tokens. The baseline z estimates KL(policy || reference): the mean log-ratio of answers to
    *other* prompts, over the whole optimizer step and all processes, cut at 0 after the mean is taken; no gradient
    flows through it.

    Args:
        beta: price of leaving the reference, per nat; > 0.
        desirable_weight: w of good answers.
        undesirable_weight: w of bad answers. Its share times count should be close to that of the good ones.

    Source: Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7 and 8.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp", "desirable", "mismatched"})
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"KTO: beta must be > 0, got {self.beta}; it scales the log-ratio")
        for name in ("desirable_weight", "undesirable_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"KTO: {name} must be >= 0, got {getattr(self, name)}")

    def step_means(self, stats: TokenStats, batch: LabelledBatch) -> Mapping[str, Mean]:
        return {"baseline": Mean.of(batch.mismatched(log_ratio(stats, batch)), batch.weight)}

    def __call__(self, stats: TokenStats, batch: LabelledBatch) -> Loss:
        ratio, good = batch.answer(log_ratio(stats, batch)), batch.desirable > 0
        baseline = batch.step["baseline"].clamp_min(0)
        gain = torch.where(good, ratio - baseline, baseline - ratio)
        weight = torch.where(good, self.desirable_weight, self.undesirable_weight)
        metrics = {
            "desirable_log_ratio": Mean.of(ratio, batch.weight * good),
            "undesirable_log_ratio": Mean.of(ratio, batch.weight * ~good),
            "baseline": Mean.of(baseline.expand_as(ratio), batch.weight),
        }
        return self.loss(batch, loss=weight * (1 - torch.sigmoid(self.beta * gain)), metrics=metrics)
