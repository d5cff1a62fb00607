"""Length and portions of training, the numbers of its steps, and the report of one step."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from alignlab.stats import Mean
from alignlab.training.cadence import Every


@dataclass(frozen=True)
class Loop:
    """Length and portions of training.

    Args:
        steps: optimizer steps.
        batch_size: units (sequences, pairs) of one optimizer step, over all micro-batches and processes.
        micro_batch_tokens: tokens of one forward pass: the memory knob; it does not change what is learnt.
        clip_norm: largest gradient norm of a group of parameters; null does not clip.
        validate_every: optimizer steps between validations; the last step is always validated.
        patience: stop after this many validations in a row without a better one; null trains to the end.
        checkpoint_every: also publish the model every so many steps, as `checkpoints/step-000100`; null does not.
        keep: publish the model that validated "best", or the "last".
        log_every: optimizer steps between two logged points; each is the mean of what came between.
        save_every: when resumable checkpoints are written: "2%" as often as that takes at most this share of the time,
            "10min" (s, min, h) so much time after the last one, 48 every so many optimizer steps. It changes no bits.
        ema: decay of an exponential moving average of the weights, which is then what is validated and published; 0.99
            to 0.9999. Gradients, references and sampled rollouts are those of the trained weights. null: none.
    """

    steps: int
    batch_size: int
    micro_batch_tokens: int = 8192
    clip_norm: float | None = 1.0
    validate_every: int = 50
    patience: int | None = None
    checkpoint_every: int | None = None
    keep: Literal["best", "last"] = "best"
    log_every: int = 5
    save_every: int | str = "2%"
    ema: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batch_tokens", "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"Loop: {name} must be >= 1, got {getattr(self, name)}")
        for name in ("patience", "checkpoint_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"Loop: {name} must be >= 1 or null, got {getattr(self, name)}")
        Every.parse(self.save_every)
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"Loop: clip_norm must be > 0 or null, got {self.clip_norm}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"Loop: ema must be between 0 and 1, or null, got {self.ema}")
        if self.keep not in ("best", "last"):
            raise ValueError(f"Loop: keep must be best or last, got {self.keep!r}")


@dataclass(frozen=True)
class StepReport:
    """One optimizer step: means over all processes, gradient norms, learning rate, tokens, seconds."""

    means: Mapping[str, Mean]
    norms: Mapping[str, Tensor]
    lr: float
    tokens: int
    seconds: float


class StepNumbers:
    """An endless, resumable data loader: it yields the numbers of the optimizer steps still to come.

    Args:
        next_step: gives the number of the next step, asked when the loader starts.
    """

    def __init__(self, next_step: Callable[[], int]) -> None:
        self._next_step = next_step

    def __iter__(self) -> Iterator[int]:
        step = self._next_step()
        while True:
            yield step
            step += 1
