"""What is compared: ours and every peer that is installed, each as a function from (hidden, weight, targets) to a loss.

All but the two GRPO losses compute the sum of the cross-entropy over tokens, so that their gradients can be held
against one float64 oracle. A peer that is missing, or that cannot run on this device, is reported and left out.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from alignlab.kernels import linear_logprobs, linear_loss_streamed

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Candidate:
    """One way to the loss; `grpo` marks those whose loss is not the cross-entropy, which have no error column."""

    name: str
    loss: Loss
    ours: bool = False
    grpo: bool = False


def eager(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")


def general(implementation: str | None) -> Loss:
    return lambda h, w, y: -linear_logprobs(h, w, y, implementation=implementation).logp.sum()


def streamed(hidden: Tensor, weight: Tensor, targets: Tensor, workspace_mb: int = 256) -> Tensor:
    return linear_loss_streamed(hidden, weight, targets, lambda stats, _: -stats.logp, workspace_mb=workspace_mb).loss


def streamed_grpo(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The clipped surrogate, on policy: old log-probabilities are those of now."""
    advantage = torch.cos(torch.arange(len(targets), device=hidden.device))

    def loss(stats, tokens: Tensor) -> Tensor:
        ratio, a = torch.exp(stats.logp - stats.logp.detach()), advantage[tokens]
        return -torch.minimum(ratio * a, ratio.clamp(0.8, 1.2) * a)

    return linear_loss_streamed(hidden, weight, targets, loss).loss


def torch_fused(reduction: str) -> Loss:
    """PyTorch's own, from 2.13 on, with its memory-saving options on."""
    options = torch.nn.LinearCrossEntropyOptions()
    return lambda h, w, y: F.linear_cross_entropy(h, w, y, reduction=reduction, options=options).sum()


def liger_chunked() -> Loss:
    """Liger's per-token log-probability in plain PyTorch: general upstream gradients, as ours has."""
    from liger_kernel.chunked_loss.fused_linear_ppo import _ChunkedSelectiveLogProbFunction as Chunked

    return lambda h, w, y: -Chunked.apply(h, w, y, None, 1.0, 4096).sum()


def liger_grpo(compiled: bool) -> Loss:
    """Liger's chunked GRPO loss, eight sequences of an eighth of the tokens, on policy."""
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    module = LigerFusedLinearGRPOLoss(beta=0.0, use_ref_model=False, compiled=compiled)

    def loss(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
        advantages = torch.cos(torch.arange(8, device=h.device))
        return module(h.view(8, -1, h.shape[1]), w, y.view(8, -1), torch.ones_like(y.view(8, -1)), advantages)[0]

    return loss


def liger_triton() -> Loss:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    module = LigerFusedLinearCrossEntropyLoss(reduction="sum")
    return lambda h, w, y: module(w, h, y)


def cut_cross_entropy() -> Loss:
    """Without gradient filtering, which would not be exact."""
    from cut_cross_entropy import linear_cross_entropy

    return lambda h, w, y: linear_cross_entropy(h, w, y, reduction="sum", filter_eps=None)


@functools.cache
def candidates(device: str) -> list[Candidate]:
    """Return what can be built here, and say what cannot."""
    makers: dict[str, Callable[[], Loss]] = {
        "eager": lambda: eager,
        "torch.compile": lambda: torch.compile(eager),
        "F.linear_cross_entropy, sum": functools.partial(torch_fused, "sum"),
        "F.linear_cross_entropy, none": functools.partial(torch_fused, "none"),
        "Liger chunked log-probs": liger_chunked,
        "Liger chunked GRPO": functools.partial(liger_grpo, False),
        "Liger chunked GRPO, compiled": functools.partial(liger_grpo, True),
    }
    if device == "cuda":
        makers |= {"Liger Triton": liger_triton, "cut-cross-entropy, exact": cut_cross_entropy}
    own = [Candidate("alignlab chunked", general("chunked"), ours=True)]
    if device == "cuda":
        own.append(Candidate("alignlab triton", general("triton"), ours=True))
    own.append(Candidate("alignlab streamed", streamed, ours=True))
    if device == "cuda":
        own.append(Candidate("alignlab streamed, 1 GiB", functools.partial(streamed, workspace_mb=1024), ours=True))
    own.append(Candidate("alignlab streamed GRPO", streamed_grpo, ours=True, grpo=True))
    return [*_built(makers), *own]


def _built(makers: dict[str, Callable[[], Loss]]) -> list[Candidate]:
    found = []
    for name, make in makers.items():
        try:
            found.append(Candidate(name, make(), grpo="GRPO" in name))
        except (ImportError, AttributeError) as error:
            print(f"left out: {name} ({type(error).__name__}: {error})", flush=True)
    return found
