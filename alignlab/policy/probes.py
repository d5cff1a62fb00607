"""Run a few tokens through a model before anything is trained, to check that training and sampling are right for it."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from alignlab.errors import ConfigError
from alignlab.policy.lm_head import body_of, head_of
from alignlab.policy.logits import LogitForm, find_form

if TYPE_CHECKING:
    import transformers

_LONG, _SHORT, _NEXT = [0, 1, 2, 3, 4], [2, 3, 1], 3


@torch.no_grad()
def check_architecture(model: "transformers.PreTrainedModel") -> LogitForm:
    """Refuse an architecture whose token statistics would be wrong here; returns how it makes its logits.

    Args:
        model: in evaluation mode.

    Raises:
        ConfigError: its logits are not finite, not its head applied to its body, or not causal; or it writes to its
            own weights.
    """
    written = sum(parameter._version for parameter in model.parameters())
    tokens = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]], device=model.device) % model.config.get_text_config().vocab_size
    logits = model(input_ids=tokens, use_cache=False).logits.float()
    if not bool(logits.isfinite().all()):
        raise ConfigError(
            f"{type(model).__name__}: its logits are not finite numbers; its weights are damaged, or too large for "
            f"{str(model.dtype).removeprefix('torch.')}"
        )
    weight, bias = head_of(model)  # what the fused loss will read, whatever else the head's own forward does
    output = body_of(model)(input_ids=tokens, use_cache=False)
    hidden = getattr(output, "last_hidden_state", logits.new_zeros(*tokens.shape, weight.shape[1])).to(weight.dtype)
    ours = nn.functional.linear(hidden, weight, None if bias is None else bias.to(weight.dtype)).float()
    form = find_form(model.config, ours, logits, _rounding(model)) if ours.shape == logits.shape else LogitForm()
    scale, bound = logits.abs().max().clamp_min(1.0), _tolerance(model)
    if ours.shape != logits.shape or not torch.allclose(form.of(ours) / scale, logits / scale, atol=bound):
        raise ConfigError(
            f"{type(model).__name__}: its logits are not its head applied to its last hidden state, so its "
            f"log-probabilities would be wrong here; use another architecture"
        )
    if not torch.allclose(logits[0, :-1] / scale, logits[1, :-1] / scale, atol=bound):
        raise ConfigError(
            f"{type(model).__name__}: its logits depend on later tokens, so it would see the answers that it is to "
            f"predict; use a causal language model (BERT's family: is_decoder in config.json)"
        )
    if sum(parameter._version for parameter in model.parameters()) != written:
        raise ConfigError(
            f"{type(model).__name__}: it changes its weights while it computes, so that others would be published than "
            f"were trained; use another architecture"
        )
    return form


def _rounding(model: "transformers.PreTrainedModel") -> float:
    """Difference of logits that is nothing but rounding, relative to the largest."""
    return 4 * torch.finfo(model.dtype).eps


def _tolerance(model: "transformers.PreTrainedModel") -> float:
    """Difference of logits that rounding may make, relative to the largest: a model may scale and cap them in bf16."""
    return 1e-3 if torch.finfo(model.dtype).bits >= 32 else 3e-2


@torch.no_grad()
def cache_obstacle(model: "transformers.PreTrainedModel") -> str:
    """Why sampling with a cache would fail or be wrong with a model; empty where it works.

    It pads prompts on the left, keeps a cache of keys and values, and takes finished rows out of it.
    Architectures with another kind of state (Mamba) fail at one of these, or give numbers that depend on the padding.
    """
    training = model.training
    model.eval()
    name = type(model).__name__
    try:
        difference = _difference(model)
    except Exception as error:  # another architecture's own: it may fail anywhere
        why = (str(error).splitlines() or [""])[0] or type(error).__name__
        return f"{name} cannot be sampled from with a cache of keys and values ({why})"
    finally:
        model.train(training)
    bound = 1e-3 if torch.finfo(model.dtype).bits >= 32 else 1e-1
    if difference > bound:
        return f"{name} gives other probabilities with a cache and padding than without ({difference:.2g} relative)"
    return ""


def _difference(model: "transformers.PreTrainedModel") -> float:
    """Largest relative difference of next-token logits, sampled as `generate` does, from those of each row alone."""
    pad = len(_LONG) - len(_SHORT)
    vocabulary = model.config.get_text_config().vocab_size
    rows = torch.tensor([_LONG, [0] * pad + _SHORT], device=model.device) % vocabulary
    mask = torch.tensor([[1] * len(_LONG), [0] * pad + [1] * len(_SHORT)], device=model.device)
    first = _call(model, rows, mask, None)
    cache = first.past_key_values
    cache.batch_select_indices(torch.tensor([1], device=model.device))
    token = torch.tensor([[_NEXT]], device=model.device) % vocabulary
    second = _call(model, token, torch.cat([mask[1:], mask.new_ones(1, 1)], 1), cache)
    alone = [model(input_ids=r[None], use_cache=False).logits[0, -1] for r in (rows[0], rows[1, pad:])]
    alone.append(model(input_ids=torch.cat([rows[1:, pad:], token], 1), use_cache=False).logits[0, -1])
    expected, found = torch.stack(alone).float(), torch.cat([first.logits[:, -1], second.logits[:, -1]]).float()
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1.0))


def _call(model: "transformers.PreTrainedModel", tokens: torch.Tensor, mask: torch.Tensor, cache: Any) -> Any:
    position = (mask.cumsum(1) - 1).clamp_min(0)[:, -tokens.shape[1] :]
    return model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
