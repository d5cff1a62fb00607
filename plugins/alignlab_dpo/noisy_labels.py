"""DPO on labels that are not certain: smoothed, flipped at a known rate, or given as probabilities.

All three are the cross-entropy of `sigmoid(beta * margin)` to a label; they differ in what the label is.
"""

from dataclasses import dataclass
from typing import ClassVar

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.objective import check_positive, log_ratio, pair_metrics, soft_label_loss
from alignlab.optimum import Declared, NoneKnown, Tilted


@dataclass(frozen=True)
class ConservativeDPO(Objective[PreferenceBatch]):
    """DPO that never becomes certain (cDPO): cross-entropy to the label `1 - label_smoothing` in place of 1.

    Mean over pairs of `-(1 - s) log sigmoid(beta * margin) - s log sigmoid(-beta * margin)`. A pair's loss has its
    minimum at the finite margin `log((1 - s) / s) / beta`, from which on it pushes back.

    Args:
        beta: price of leaving the reference, per nat; > 0.
        label_smoothing: s, chance that a label is wrong; 0 to below one half. At 0 it is DPO.

    Source: Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO".
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    beta: float = 0.1
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the margin")
        _check_share(self, "label_smoothing", self.label_smoothing)

    def optimum(self) -> Declared:
        """DPO's without smoothing."""
        if self.label_smoothing:
            return NoneKnown("smoothed margins do not add up: those of a > b and b > c give another than that of a > c")
        return Tilted(self.beta)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(log_ratio(stats, batch), batch)
        loss = soft_label_loss(self.beta * metrics["margin"], 1 - self.label_smoothing)
        return self.loss(batch, loss=loss, metrics=metrics)


@dataclass(frozen=True)
class RobustDPO(Objective[PreferenceBatch]):
    """DPO whose mean over flipped labels is that over true ones (rDPO).

    Mean over pairs of `((1 - e) l(margin) - e l(-margin)) / (1 - 2e)` with DPO's loss `l`. It has no lower bound on a
    pair that is always labelled alike, so that a few steps or contradicting labels must keep it finite.

    Args:
        beta: price of leaving the reference, per nat; > 0.
        flip_rate: e, share of the labels that were turned round at random; 0 to below one half. At 0 it is DPO.

    Source: Chowdhury et al. 2024, arXiv:2403.00409, section 3.
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp"})
    beta: float = 0.1
    flip_rate: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the margin")
        _check_share(self, "flip_rate", self.flip_rate)

    def optimum(self) -> Declared:
        """DPO's on true labels."""
        return Tilted(self.beta, flips=self.flip_rate)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(log_ratio(stats, batch), batch)
        label = (1 - self.flip_rate) / (1 - 2 * self.flip_rate)
        return self.loss(batch, loss=soft_label_loss(self.beta * metrics["margin"], label), metrics=metrics)


@dataclass(frozen=True)
class SoftLabelDPO(Objective[PreferenceBatch]):
    """DPO on the raters' probability: cross-entropy to `p`, the probability that the chosen answer is chosen.

    Mean over pairs of `-p log sigmoid(beta * margin) - (1 - p) log sigmoid(-beta * margin)`: a pair on which raters are
    divided is not pushed as far as one on which they agree, and one draw of the choice is not taken for certain.

    Args:
        beta: price of leaving the reference, per nat; > 0.

    Source: Furuta et al. 2024, arXiv:2409.06691 (there cDPO's loss with soft labels, as a baseline).
    """

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"reference_logp", "probability"})
    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive(self, beta="it scales the margin")

    def optimum(self) -> Declared:
        """DPO's: one draw of the choice has the same mean as its probability."""
        return Tilted(self.beta)

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        metrics = pair_metrics(log_ratio(stats, batch), batch)
        loss = soft_label_loss(self.beta * metrics["margin"], batch.of_unit("probability").to(stats.logp.dtype))
        return self.loss(batch, loss=loss, metrics=metrics)


def _check_share(owner: object, name: str, share: float) -> None:
    if not 0 <= share < 0.5:
        raise ValueError(
            f"{type(owner).__name__}: {name} must be 0 to below 0.5, got {share}; at 0.5 labels say nothing"
        )
