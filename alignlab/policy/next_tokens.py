"""Statistics of the next token's distribution, straight from hidden states and head, at scored tokens alone.

Axes: T tokens, N scored tokens, d width.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from alignlab.batch import Batch
from alignlab.kernels import Direction, linear_kl, linear_logprobs
from alignlab.policy.lm_head import head_of
from alignlab.policy.logits import LogitForm

if TYPE_CHECKING:
    import transformers

FROM_HEAD = frozenset({"logp", "lse", "entropy"})
FROM_TEACHER: Mapping[str, Direction] = {"kl_to_teacher": "reverse", "kl_from_teacher": "forward"}


def from_head(
    model: "transformers.PreTrainedModel",
    form: LogitForm,
    hidden: Float[Tensor, "T d"],
    batch: Batch,
    needs: frozenset[str],
) -> dict[str, Float[Tensor, "T"]]:
    """Those of `logp`, `lse` and `entropy` that are needed, nats, at the batch's temperature."""
    at = batch.response_mask.nonzero()[:, 0]
    weight, bias = head_of(model)
    logp, lse, entropy = linear_logprobs(
        hidden[at - 1],
        weight,
        batch.tokens[at],
        bias,
        temperature=batch.temperature / form.scale,
        softcap=form.softcap,
        entropy="entropy" in needs,
    )
    found = {"logp": logp, "lse": lse, "entropy": entropy}
    return {k: _spread(v, at, batch) for k, v in found.items() if k in needs and v is not None}


def from_teacher(
    models: tuple["transformers.PreTrainedModel", "transformers.PreTrainedModel"],
    forms: tuple[LogitForm, LogitForm],
    hidden: tuple[Float[Tensor, "T d"], Float[Tensor, "T e"]],
    batch: Batch,
    needs: frozenset[str],
) -> dict[str, Float[Tensor, "T"]]:
    """Exact divergences of next-token distributions over the whole vocabulary, nats.

    Args:
        models: the student's and the teacher's, as everything else.
        forms: of their logits.
        hidden: their states; the widths may differ.
        batch: flat.
        needs: of `kl_to_teacher` and `kl_from_teacher`.
    """
    at = batch.response_mask.nonzero()[:, 0]
    own, other = forms
    # The kernel divides the logits of both heads by one number; the teacher's own factor goes into what it reads.
    ratio = other.scale / own.scale
    (weight, bias), (teacher_weight, teacher_bias) = map(head_of, models)
    found = {}
    for name in needs:
        kl = linear_kl(
            hidden[0][at - 1],
            weight,
            ratio * hidden[1][at - 1],
            teacher_weight,
            bias,
            None if teacher_bias is None else ratio * teacher_bias,
            direction=FROM_TEACHER[name],
            temperature=batch.temperature / own.scale,
            softcap=own.softcap,
            teacher_softcap=None if other.softcap is None else ratio * other.softcap,
        )
        found[name] = _spread(kl, at, batch)
    return found


def _spread(x: Float[Tensor, "N"], at: Tensor, batch: Batch) -> Float[Tensor, "T"]:
    return x.new_zeros(batch.num_tokens).index_put((at,), x)
