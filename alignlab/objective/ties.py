"""Ties between two answers, by Davidson's model.

Axes: W units.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def davidson_loss(margin: Float[Tensor, "W"], tie: Float[Tensor, "W"], nu: float) -> Float[Tensor, "W"]:
    """Negative log-likelihood of a judgement that may be a tie, nats.

        P(chosen) = exp(m / 2) / Z,  P(rejected) = exp(-m / 2) / Z,  P(tie) = 2 nu / Z,  Z their sum

    Without ties and at nu = 0 it would be Bradley-Terry; equally good answers tie with probability nu / (1 + nu).

    Args:
        margin: how much better the chosen answer is, in nats or reward units; the order of a tie does not matter.
        tie: 1 where neither was preferred, 0 where the chosen one was; a share of the judges in between.
        nu: > 0; how readily raters call a tie.

    Source: Davidson 1970, J. Am. Stat. Assoc. 65(329), as parametrised by Chen et al. 2024, arXiv:2409.17431.
    """
    log_tie = math.log(2 * nu)
    normaliser = torch.stack([margin / 2, -margin / 2, torch.full_like(margin, log_tie)]).logsumexp(0)
    return normaliser - (1 - tie) * margin / 2 - tie * log_tie


def davidson_probabilities(margin: Tensor, nu: float) -> tuple[Tensor, Tensor]:
    """Probability that the better side of a margin is chosen, and that neither is; see `davidson_loss`."""
    total = (margin / 2).exp() + (-margin / 2).exp() + 2 * nu
    return (margin / 2).exp() / total, 2 * nu / total
