"""How a model makes its logits of what its head gives, found out by comparing them.

    logits = scale * cap(head(hidden)),   cap(x) = softcap * tanh(x / softcap), or x

Architectures name their factors in many ways, multiply by some and divide by others, before the soft cap or after it.
So every number of the configuration that goes by one of these names is tried in each of these ways, and the model's own
logits decide; where rounding hides the difference, a number that the configuration has is taken to be used. The numbers
are the configuration's, so nothing is estimated.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    import transformers

_SCALES: Final = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
_SOFTCAPS: Final = ("final_logit_softcapping", "logits_soft_cap", "output_logits_soft_cap")


@dataclass(frozen=True)
class LogitForm:
    """The factor and the soft cap that a model applies to what its head gives.

    Args:
        scale: of the logits.
        softcap: of what the head gives, before the scale; None does not cap.
    """

    scale: float = 1.0
    softcap: float | None = None

    def of(self, head: Float[Tensor, "... V"]) -> Float[Tensor, "... V"]:
        """Logits of what the head gives."""
        capped = head if self.softcap is None else self.softcap * torch.tanh(head / self.softcap)
        return self.scale * capped

    def distance(self, head: Float[Tensor, "... V"], logits: Float[Tensor, "... V"]) -> float:
        """Largest difference from a model's logits, relative to the largest of them."""
        return float((self.of(head) - logits).abs().max() / logits.abs().max().clamp_min(1e-12))

    @property
    def factors(self) -> int:
        """Number of factors that are applied."""
        return (self.scale != 1.0) + (self.softcap is not None)


def find_form(
    config: "transformers.PreTrainedConfig",
    head: Float[Tensor, "... V"],
    logits: Float[Tensor, "... V"],
    rounding: float,
) -> LogitForm:
    """The form that is closest to a model's logits; whether it is close enough is for the caller to judge.

    A soft cap is invisible where all logits are far below it. Of forms that are equal up to rounding, the one that uses
    the most numbers of the configuration is taken.

    Args:
        config: the model's.
        head: what its head gives for some tokens.
        logits: the model's, for the same tokens.
        rounding: of the logits, relative to the largest.
    """
    distances = {form: form.distance(head, logits) for form in _forms(config.get_text_config())}
    bound = 2 * min(distances.values()) + rounding
    close = [form for form, distance in distances.items() if distance <= bound]
    return min(close, key=lambda form: (-form.factors, distances[form]))


def _forms(config: "transformers.PreTrainedConfig") -> Iterator[LogitForm]:
    """Every form that the numbers of a configuration allow, the plainest first."""
    factors = [1.0, *(f for value in _numbers(config, _SCALES) for f in (value, 1.0 / value))]
    for softcap, scale in itertools.product([None, *_numbers(config, _SOFTCAPS)], factors):
        yield LogitForm(scale, softcap)
        if softcap is not None and scale != 1.0:  # cap(scale * x) = scale * (cap of softcap / scale)(x)
            yield LogitForm(scale, softcap / scale)


def _numbers(config: "transformers.PreTrainedConfig", names: tuple[str, ...]) -> list[float]:
    found = [getattr(config, name, None) for name in names]
    return [float(v) for v in found if isinstance(v, int | float) and not isinstance(v, bool) and v > 0]
