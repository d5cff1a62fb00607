"""The fused head in place: whatever is done to the model, its statistics and gradients are those of the plain one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from together import run_together
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training_cases import OBJECTIVES, batch_of, stage_of

from alignlab.batch import Batch, TokenBatch
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import ConfigError
from alignlab.policy import Llama, Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.training.step import backward, whole_step

LOGP = frozenset({"logp"})


def small(seed: int = 0, tied: bool = True, **more: Any) -> Policy:
    words: Any = TrainTokenizer("word", 100).train([" ".join(f"w{i}" for i in range(30))])
    spec = Llama(layers=2, width=16, heads=2, feedforward=32, context=32, tie_embeddings=tied, **more)
    return Policy(spec.build(words, seed).double(), words)


def gradients(policy: Policy, batch: TokenBatch) -> dict[str, Tensor]:
    policy.zero_grad()
    policy.token_stats(batch, LOGP).logp.sum().backward()
    return {k: p.grad.clone() for k, p in policy.named_parameters() if p.grad is not None}


def eager(policy: Policy, batch: Batch) -> Tensor:
    """Log-probabilities by the model's own forward, one sequence at a time."""
    found = []
    for s in range(batch.num_sequences):
        row = batch.tokens[batch.sequence_id == s]
        logp = policy.model(input_ids=row[None]).logits[0, :-1].log_softmax(-1).gather(1, row[1:, None])[:, 0]
        found += [logp.new_zeros(1), logp]
    return torch.cat(found) * batch.response_mask


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_are_those_of_the_plain_model(tied: bool) -> None:
    policy, batch = small(tied=tied), batch_of(TokenBatch, 1)
    ours = gradients(policy, batch)
    policy.zero_grad()
    eager(policy, batch).sum().backward()
    assert ours.keys() == {k for k, p in policy.named_parameters() if p.grad is not None}
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(ours[name], parameter.grad, atol=1e-9), name


def test_a_frozen_head_gets_no_gradient_and_changes_no_other() -> None:
    policy, batch = small(tied=False), batch_of(TokenBatch, 1)
    free = gradients(policy, batch)
    policy.model.lm_head.weight.requires_grad_(False)
    frozen = gradients(policy, batch)
    assert free.keys() - frozen.keys() == {"model.lm_head.weight"}
    assert all(torch.allclose(frozen[k], free[k], atol=1e-12) for k in frozen)


class LowRank(nn.Module):
    """W + B A, as a parametrisation of the head's weight."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(2, columns, dtype=torch.float64) * 0.3)
        self.b = nn.Parameter(torch.randn(rows, 2, dtype=torch.float64) * 0.3)

    def forward(self, weight: Tensor) -> Tensor:
        return weight.detach() + self.b @ self.a


def test_low_rank_adapters_on_the_head_are_seen_and_trained() -> None:
    policy, batch = small(tied=False), batch_of(TokenBatch, 1)
    before = policy.token_stats(batch, LOGP).logp
    head = policy.model.lm_head
    nn.utils.parametrize.register_parametrization(head, "weight", LowRank(*head.weight.shape))
    assert not torch.allclose(policy.token_stats(batch, LOGP).logp, before)
    assert torch.allclose(policy.token_stats(batch, LOGP).logp, eager(policy, batch), atol=1e-10)
    grads = gradients(policy, batch)
    assert all(float(grads[f"model.lm_head.parametrizations.weight.0.{k}"].abs().sum()) > 0 for k in "ab")


def test_peft_adapters_on_the_head_are_seen_and_trained() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed; the dev extra brings it")
    policy, batch = small(tied=False), batch_of(TokenBatch, 1)
    wrapped = peft.inject_adapter_in_model(
        peft.LoraConfig(r=2, target_modules=["lm_head", "q_proj"], init_lora_weights=False), policy.model
    ).double()
    assert torch.allclose(policy.token_stats(batch, LOGP).logp, eager(policy, batch), atol=1e-10)
    grads = gradients(policy, batch)
    assert float(grads["model.lm_head.lora_B.default.weight"].abs().sum()) > 0
    assert wrapped is policy.model
    assert Policy(policy.model, policy.tokenizer).logits.softcap is None  # the probe knows the adapters too


class Scaled(nn.Linear):
    """A head that does something of its own with its weight."""

    def forward(self, hidden: Tensor) -> Tensor:
        return 2 * super().forward(hidden)


def test_a_head_that_is_not_its_weight_is_refused() -> None:
    policy = small(tied=False)
    policy.model.lm_head.__class__ = Scaled
    with pytest.raises(ConfigError, match="its logits are not its head applied to its last hidden state"):
        Policy(policy.model, policy.tokenizer)


def test_gradient_checkpointing_changes_nothing() -> None:
    policy, batch = small(), batch_of(TokenBatch, 1)
    plain = gradients(policy, batch)
    # transformers 5.23 renames it, 5.17 knows the old name only.
    name = "activation" if hasattr(policy.model, "activation_checkpointing_enable") else "gradient"
    getattr(policy.model, f"{name}_checkpointing_enable")()
    policy.train()
    saved = gradients(policy, batch)
    assert all(torch.allclose(saved[k], plain[k], atol=1e-12) for k in plain)


def test_under_autocast_the_statistics_stay_in_float32() -> None:
    policy, batch = small().float(), batch_of(TokenBatch, 1)
    exact = policy.token_stats(batch, LOGP).logp.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logp = policy.token_stats(batch, LOGP).logp
        logp.sum().backward()
    logp = logp.detach()
    assert logp.dtype == torch.float32
    assert float((logp - exact).abs().max()) < 0.02
    assert not torch.equal(logp, exact)


@pytest.mark.slow
def test_a_compiled_body_changes_nothing() -> None:
    """Traced by dynamo and aot_autograd; what inductor makes of the arithmetic is not ours to test."""
    policy, batch = small(), batch_of(TokenBatch, 1)
    plain = gradients(policy, batch)
    policy.model.base_model.compile(backend="aot_eager", dynamic=True)
    compiled = gradients(policy, batch)
    assert all(torch.allclose(compiled[k], plain[k], atol=1e-9) for k in plain)


# ---- memory ---------------------------------------------------------------------------------------------------------
class Largest(TorchDispatchMode):
    """Watches for the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [x.untyped_storage().nbytes() // x.element_size() for x in tree_leaves(out) if isinstance(x, Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_the_logits_of_a_training_batch_never_exist(name: str, tmp_path: Path) -> None:
    """A thousand tokens at a vocabulary of 50,000 would be 50 million logits; nothing made is a tenth of that."""
    stage = stage_of(name, 100_000)
    stage.prepare({}, StageContext("fixed", tmp_path, tmp_path, Runtime(accelerator="cpu")))
    policy, vocabulary = stage.policy, 50_000
    policy.model.resize_token_embeddings(vocabulary, mean_resizing=False)
    small_batches = [batch_of(OBJECTIVES[name][1], seed) for seed in range(20)]
    from alignlab.batch import concatenate

    batch = concatenate(small_batches)
    tokens = int(batch.response_mask.sum())
    with Largest() as largest:
        backward(stage.objective, whole_step(stage.objective, batch, stage.token_stats, 10**6), stage.token_stats)
    weights = vocabulary * 16
    assert tokens > 800
    assert largest.elements <= 4 * weights < tokens * vocabulary / 10


# ---- sharded --------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_sharded_head_is_gathered_once_a_step(tmp_path: Path) -> None:
    """FSDP2 on two processes: gradients over several micro-batches as on one, before and after a change of weights."""
    policy = small(tied=False)
    for name in ("before", "after"):
        parts = [gradients(policy, batch_of(TokenBatch, part)) for part in range(3)]
        torch.save({k: sum(part[k] for part in parts) for k in parts[0]}, tmp_path / f"{name}.pt")
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(0.5)
    said = run_together(Path(__file__).with_name("sharded_head.py"), tmp_path)
    assert all(text.count("gathered 1 time a step") == 2 for text in said)


def even() -> TokenBatch:
    """Rows of one length, which are run in one call."""
    return TokenBatch.of([[3 + n, *range(3, 33)] for n in range(4)], [[False] * 5 + [True] * 26] * 4)


def uneven() -> TokenBatch:
    """Short rows and a long one, which are run in two."""
    rows = [[3 + n % 9, 4, 5] for n in range(8)] + [[3, *([7, 9, 4] * 130)]]
    return TokenBatch.of(rows, [[False] + [True] * (len(row) - 1) for row in rows])


def nothing() -> TokenBatch:
    """What a process of fewer micro-batches runs."""
    return even().select_units([])


UNEVEN = {"even": (even, uneven), "nothing": (uneven, nothing)}


@pytest.mark.slow
@pytest.mark.parametrize("which", list(UNEVEN))
def test_processes_of_other_lengths_gather_the_same_layers(which: str, tmp_path: Path) -> None:
    """FSDP2 with layers of their own: a process with fewer calls took another layer's weights, and both then hung."""
    policy = small(tied=False)
    parts = [gradients(policy, of()) for of in UNEVEN[which]]
    wanted: dict[str, Any] = {k: sum(part[k] for part in parts if k in part) for k in parts[0]}
    with torch.no_grad():
        wanted["logp"] = [policy.token_stats(of(), LOGP).logp for of in UNEVEN[which]]
    torch.save(wanted, tmp_path / "wanted.pt")
    said = run_together(Path(__file__).with_name("sharded_layers.py"), tmp_path, which)
    parameters = len(list(policy.named_parameters()))
    assert said == [f"log-probabilities and {parameters} gradients agree\n"] * 2
