"""`linear_logprobs`: log-probability, log-sum-exp and entropy of each token, straight from hidden states and head.

Axes: N tokens, V vocabulary, d width of the hidden states.
"""

import importlib.util
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from alignlab.kernels import chunked, reference
from alignlab.kernels.prepare import Packed, pack
from alignlab.kernels.types import Head, LogProbs

Implementation: TypeAlias = Literal["reference", "chunked", "triton"]


def linear_logprobs(
    hidden: Float[Tensor, "N d"],
    weight: Float[Tensor, "V d"],
    targets: Integer[Tensor, "N"],
    bias: Float[Tensor, "V"] | None = None,
    *,
    temperature: float | int = 1.0,
    softcap: float | int | None = None,
    ignore_index: int = -100,
    entropy: bool = False,
    workspace_mb: float | int = 256,
    implementation: Implementation | None = None,
) -> LogProbs:
    """Return each token's log-probability, log-sum-exp and entropy without the [N, V] logits ever existing.

    With logits `z = softcap·tanh((W h + b) / softcap) / temperature`: `lse = log Σ_v exp z_v`, `logp = z_y − lse`,
    `entropy = −Σ_v p_v log p_v`, all in nats. Each is differentiable (once) with respect to hidden, weight and
    bias: given upstream gradients g, gl, ge, `dz = g·(onehot − p) + gl·p − ge·p·(log p + entropy)`.
    Ignored tokens are dropped before the product. A vocabulary row of −inf (its bias, or its weight) is masked:
    probability 0 and no gradient, also under a soft-cap, unless a target is that word. Same inputs give the same bits.

    Args:
        hidden: last hidden states; half, float32 or float64. Under autocast, cast as `F.linear` would.
        weight: the head, one row per token of the vocabulary; a frozen one costs no weight gradient.
        targets: index of the token to score, or `ignore_index`.
        bias: one value per row of the head, added before soft-cap and temperature.
        temperature: what the sampler divided the logits by; > 0.
        softcap: bound on the logits' magnitude (Gemma 2: 30), or None.
        ignore_index: target of a token that is not scored; all its outputs are 0.
        entropy: whether to compute the entropy too.
        workspace_mb: MiB that may be used beyond inputs, outputs and gradients.
        implementation: "reference", "chunked" or "triton"; by default chosen by device and type.

    Returns:
        `LogProbs(logp, lse, entropy)`, float32 `(N,)` (float64 for float64 inputs); entropy None unless asked for.

    Raises:
        ValueError: shapes that do not fit, temperature or softcap not positive, an unknown implementation.
        IndexError: a target outside the vocabulary; names it and its position.

    Source: the online softmax is Milakov & Gimelshein 2018, arXiv:1805.02867; recomputing logits in the backward
    is Wijmans et al. 2024 (Cut Your Losses), arXiv:2411.09009.
    """
    head = Head(temperature, softcap)
    packed = pack(hidden, weight, targets, bias, ignore_index)
    with torch.autocast(hidden.device.type, enabled=False):  # the types are settled; statistics stay in float32
        out = dispatch(implementation, packed, head, entropy, workspace_mb)
    ent = None if out.entropy is None else packed.restore(out.entropy)
    return LogProbs(packed.restore(out.logp), packed.restore(out.lse), ent)


def choose(implementation: Implementation | None, hidden: Float[Tensor, "N d"]) -> Implementation:
    """Return the implementation asked for, or the best one for device and type.

    Triton where tensor cores take the type (half, from sm_80 on); else PyTorch, which is exact in every type.
    """
    if implementation is not None and implementation not in get_args(Implementation):
        raise ValueError(
            f"linear_logprobs: implementation must be reference, chunked, triton or None, got {implementation!r}"
        )
    if implementation is not None:
        return implementation
    half = hidden.dtype in (torch.bfloat16, torch.float16)
    if half and hidden.is_cuda and _triton_runs(hidden.device):
        return "triton"
    return "chunked"


def _triton_runs(device: torch.device) -> bool:
    """Return whether Triton is installed and the GPU is one it was compiled and tested for here."""
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return importlib.util.find_spec("triton") is not None


def dispatch(
    implementation: Implementation | None, packed: Packed, head: Head, entropy: bool, workspace_mb: float | int
) -> LogProbs:
    """Run one implementation on tokens that are all valid."""
    chosen = choose(implementation, packed.hidden)
    problem = packed.hidden, packed.weight, packed.bias, packed.targets, head
    if chosen == "reference":
        return reference.logprobs(*problem, entropy=entropy)
    if chosen == "triton":
        from alignlab.kernels import triton_path  # late: most machines have no Triton, and its import is slow

        return triton_path.logprobs(*problem, entropy=entropy, workspace_mb=workspace_mb)
    return chunked.logprobs(*problem, entropy=entropy, workspace_mb=workspace_mb)
