"""The loss of Kahneman-Tversky optimisation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from alignlab import LabelledBatch, Loss, Mean, Objective, TokenStats
from alignlab.objective import log_ratio
from alignlab.optimum import Declared, NoneKnown


@dataclass(frozen=True)
class KTO(Objective[LabelledBatch]):
    """Make good answers likelier and bad ones less likely than the reference, relative to how far the policy has moved.

    Mean over labelled answers of `w * (1 - sigmoid(beta * (r - z)))` for good ones and of
    `w * (1 - sigmoid(beta * (z - r)))` for bad ones, where r is the log-ratio of the answer to the reference, in nats,
    summed over its response tokens. The baseline z estimates KL(policy || reference): the mean log-ratio of answers to
    *other* prompts, over the whole optimizer step and all processes, cut at 0 after the mean is taken; no gradient
    flows through it.

    Whether an answer becomes likelier depends on the majority of its (weighted) labels alone, not on their odds: at the
    reference the gradient is `beta / 4` times the policy gradient of `w_good P(good) - w_bad P(bad)`.

    Args:
        beta: scale of the log-ratio, per nat; > 0. The loss saturates about `1 / beta` nats from the baseline.
        desirable_weight: w of good answers.
        undesirable_weight: w of bad answers. Choose the weights so that weight times number of answers is about the
            same for both labels.

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
        if self.desirable_weight == self.undesirable_weight == 0:
            raise ValueError("KTO: desirable_weight and undesirable_weight are both 0; nothing could be learnt")

    def optimum(self) -> Declared:
        """None in closed form."""
        return NoneKnown("its utility saturates at both ends, and it ends near the best answer to each prompt")

    def step_means(self, stats: TokenStats, batch: LabelledBatch) -> Mapping[str, Mean]:
        return {"baseline": Mean.of(batch.mismatched(log_ratio(stats, batch)), batch.weight)}

    def __call__(self, stats: TokenStats, batch: LabelledBatch) -> Loss:
        ratio = batch.answer(log_ratio(stats, batch))
        good = (batch.desirable > 0).to(ratio.dtype)
        baseline = batch.step["baseline"].clamp_min(0)
        gain = (2 * good - 1) * (ratio - baseline)
        weight = good * self.desirable_weight + (1 - good) * self.undesirable_weight
        metrics = {
            "desirable_log_ratio": Mean.of(ratio, batch.weight * good),
            "undesirable_log_ratio": Mean.of(ratio, batch.weight * (1 - good)),
            "baseline": Mean.of(baseline.expand_as(ratio), batch.weight),
        }
        return self.loss(batch, loss=weight * (1 - torch.sigmoid(self.beta * gain)), metrics=metrics)
