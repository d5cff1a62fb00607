"""Rows of a flat batch: equal prompts are computed once, and every token has the state that it has alone."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_policy import tokenizer
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BlenderbotSmallConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    JambaConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedConfig,
    Qwen3Config,
)

from alignlab.batch import Batch, PreferenceBatch, TokenBatch
from alignlab.policy import Policy
from alignlab.policy.body import body_states, sharing_of
from alignlab.policy.layout import FLAT_MULTIPLE, Rows, hidden_states
from alignlab.policy.packing import TOKENS_PER_CALL, Sharing, _cuts

SIZE: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHARING: dict[str, Callable[..., PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "qwen3": lambda **k: Qwen3Config(head_dim=8, **k),
    "gemma2": lambda **k: Gemma2Config(head_dim=8, query_pre_attn_scalar=8, **k),
    "gemma3": lambda **k: Gemma3TextConfig(head_dim=8, query_pre_attn_scalar=8, **k),
    "mistral": lambda **k: MistralConfig(sliding_window=None, **k),
    "mixtral": lambda **k: MixtralConfig(num_local_experts=4, **k),
    "phi3": Phi3Config,
    "olmo2": Olmo2Config,
    "gpt_neox": GPTNeoXConfig,
    "gpt2": lambda **k: GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=512),
}
PAY = Sharing(longest=10**6)


def policy_of(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> Policy:
    torch.manual_seed(0)
    return Policy(AutoModelForCausalLM.from_config(config, dtype=dtype), tokenizer())


def llama(**more: Any) -> Policy:
    return policy_of(LlamaConfig(**{**SIZE, **more}), torch.float64)


def pairs(prompt: int, *answers: int, count: int = 6, kind: type[Batch] = PreferenceBatch, seed: int = 0) -> Any:
    """`count` prompts, and after each one answers of the given lengths."""
    draw = random.Random(seed)
    rows, masks, units = [], [], []
    for number in range(count):
        asked = [draw.randrange(3, 32) for _ in range(prompt)]
        for length in answers:
            rows.append([*asked, *(draw.randrange(3, 32) for _ in range(length))])
            masks.append([False] * prompt + [True] * length)
            units.append(number)
    return kind.of(rows, masks, unit=units if kind is PreferenceBatch else None)


def counted(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[Rows]:
    """The rows that the body is then run on."""
    seen: list[Rows] = []
    inner = policy.body.run

    def run(rows: Rows) -> Tensor:
        seen.append(rows)
        return inner(rows)

    monkeypatch.setattr(policy.body, "run", run)
    return seen


def alone(policy: Policy, batch: Batch) -> Tensor:
    """States of each sequence by itself."""
    parts = batch.tokens.split(batch.lengths().tolist())
    return torch.cat([policy.model.base_model(input_ids=part[None]).last_hidden_state[0] for part in parts])


@pytest.mark.parametrize("attention", [None, "eager"])
@pytest.mark.parametrize("name", list(SHARING))
@torch.no_grad()
def test_a_shared_prompt_changes_no_state(name: str, attention: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(SHARING[name](**SIZE, attn_implementation=attention))
    batch, rows = pairs(100, 20, 30), counted(policy, monkeypatch)
    found, expected = policy.hidden_states(batch), alone(policy, batch)
    assert any(r.mask is not None for r in rows) and sum(r.tokens.numel() for r in rows) == 6 * 150
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_shared_prompt_changes_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = llama(), pairs(100, 20, 30)
    rows = counted(policy, monkeypatch)
    weight = torch.randn(batch.num_tokens, 16, dtype=torch.float64)
    gradients = []
    for states in (policy.hidden_states(batch), alone(policy, batch)):
        policy.zero_grad()
        (states * weight).sum().backward()
        gradients.append([p.grad.clone() for p in policy.model.base_model.parameters() if p.grad is not None])
    assert rows[0].mask is not None
    for found, expected in zip(*gradients, strict=True):
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()  # its norms compute in float32


@torch.no_grad()
def test_neighbours_order_and_lengths_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch = llama(), pairs(80, 3, 70, 1, 12, kind=TokenBatch)
    shuffled = batch.select_units(random.Random(1).sample(range(24), 24))
    rows = counted(policy, monkeypatch)
    for mixed in (shuffled, shuffled.select_units(range(5)), shuffled.select_units([3])):
        torch.testing.assert_close(policy.hidden_states(mixed), alone(policy, mixed), rtol=1e-10, atol=1e-10)
    assert rows[0].mask is not None and rows[-1].mask is None


@torch.no_grad()
def test_the_same_answer_twice_and_an_answer_that_is_missing() -> None:
    policy, draw = llama(), random.Random(0)
    asked = [draw.randrange(3, 32) for _ in range(300)]
    rows = [[*asked, 4, 5], [*asked, 4, 5], asked, [*asked, 6]]
    masks = [[False] * 300 + [True] * (len(row) - 300) for row in rows]
    batch = TokenBatch.of(rows, masks)
    torch.testing.assert_close(policy.hidden_states(batch), alone(policy, batch), rtol=1e-10, atol=1e-10)


def test_what_does_not_pay_is_not_shared() -> None:
    long_answers = pairs(10, 200, 200)
    assert _columns(pairs(100, 20, 30), PAY) == [150] * 6
    assert sum(_columns(pairs(4, 20, 30), PAY)) == 6 * (24 + 34)  # so short a prompt is not looked at
    assert max(_columns(long_answers, Sharing(10**6, attention=1e-2))) == 210  # attention would cost more than it saves
    assert max(_columns(pairs(100, 20, 30), Sharing(longest=100))) == 130  # beyond the attention's window
    assert max(_columns(pairs(100, 20, 30), Sharing())) == 130


def test_a_long_group_is_split_where_attention_grows() -> None:
    group = pairs(400, *[400] * 8, count=1, kind=TokenBatch)
    assert _columns(group, PAY) == [3600]
    # With an attention of .0002 per column: 1 row of 8 costs 3600 * 1.72 = 6192 tokens, 2 rows of 4 cost
    # 2 * 2000 * 1.40 = 5600, 4 rows of 2 cost 4 * 1200 * 1.24 = 5952, and 8 rows of 1 cost 8 * 800 * 1.08 = 6912.
    assert _columns(group, Sharing(10**6, attention=2e-4)) == [2000] * 2
    assert _columns(group, Sharing(10**6, attention=3e-3)) == [800] * 8


def test_uneven_texts_share_rows_where_that_takes_less_arithmetic() -> None:
    uneven = TokenBatch.of([[3] * n for n in (40, 10, 10, 10)], [[True] * n for n in (40, 10, 10, 10)])
    # One row of 70; four padded ones take 160 tokens, two calls 40 + 30 and another 256.
    assert _columns(uneven, PAY) == [70]
    # With an attention of .01: 1 row costs 70 * 1.7 = 119 tokens, 2 rows 2 * 40 * 1.4 = 112, 4 padded ones
    # 4 * 40 * 1.2 = 192.
    assert _columns(uneven, Sharing(10**6, attention=1e-2)) == [40, 40]
    # With one of .1: 350 * 1.6 = 560, 2 * 40 * 5 = 400, 4 * 40 * 3 = 480; two calls 40 * 3 + 30 * 1.5 + 256 = 421.
    assert _columns(uneven, Sharing(10**6, attention=1e-1)) == [40, 40]
    assert _columns(uneven, Sharing(10**6, attention=1.0)) == [10, 10, 10, 40]
    assert _columns(uneven, Sharing(10**6, widest=50)) == [40, 40]
    assert _columns(TokenBatch.of([[3] * 40] * 4, [[True] * 40] * 4), PAY) == [40] * 4


def test_unrelated_texts_share_no_row_whose_mask_would_be_large() -> None:
    lengths = [3000, *[100] * 20]
    uneven = TokenBatch.of([[3] * n for n in lengths], [[True] * n for n in lengths])
    assert max(_columns(uneven, PAY)) == 3000 and len(_columns(uneven, PAY)) == 21


@pytest.mark.parametrize("attention", [None, "eager"])
@pytest.mark.parametrize("name", list(SHARING))
@torch.no_grad()
def test_unrelated_texts_in_one_row_change_no_state(
    name: str, attention: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_of(SHARING[name](**SIZE, attn_implementation=attention))
    policy.body.sharing = replace(policy.body.sharing, attention=0.0)
    rows, draw = counted(policy, monkeypatch), random.Random(0)
    texts = [[draw.randrange(3, 32) for _ in range(length)] for length in (50, 3, 17, 1, 30)]
    batch = TokenBatch.of(texts, [[True] * len(text) for text in texts])
    found, expected = policy.hidden_states(batch), alone(policy, batch)
    assert [r.tokens.shape for r in rows] == [(1, 101)]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def _columns(batch: Batch, sharing: Sharing) -> list[int]:
    seen: list[int] = []

    def forward(rows: Rows) -> Tensor:
        used = rows.tokens.shape[1]
        seen.extend([used] * rows.tokens.shape[0])
        return rows.tokens[..., None].double()

    states = hidden_states(batch, forward, sharing)
    assert states[:, 0].long().tolist() == batch.tokens.tolist()  # every token is found where it was put
    return seen


def test_a_flat_row_holds_every_text_apart() -> None:
    seen: list[Rows] = []

    def forward(rows: Rows) -> Tensor:
        seen.append(rows)
        return rows.tokens[..., None].double()

    batch, flat = pairs(8, 2, 1, 3, count=2, kind=TokenBatch), Sharing(longest=10**6, flat=True)
    assert hidden_states(batch, forward, flat)[:, 0].long().tolist() == batch.tokens.tolist()
    (rows,) = seen
    assert rows.flat and rows.mask is not None and rows.tokens.shape == (1, FLAT_MULTIPLE)
    assert rows.mask.text[0, :29].tolist() == [0] * 14 + [1] * 14 + [-1]
    sees = rows.mask.dense()[0, 0]
    assert sees[13].nonzero()[:, 0].tolist() == [*range(8), 11, 12, 13]  # the end of the first text's third answer
    assert sees[14].nonzero()[:, 0].tolist() == [14]  # the beginning of the second text
    assert sees[24].nonzero()[:, 0].tolist() == [*range(14, 22), 24]


def test_even_rows_that_share_nothing_need_no_flat_row() -> None:
    flat = Sharing(longest=10**6, flat=True)
    assert _columns(pairs(0, 100, count=6, kind=TokenBatch), flat) == [100] * 6
    assert _columns(pairs(0, 100, 60, count=3, kind=TokenBatch), flat) == [FLAT_MULTIPLE]


@torch.no_grad()
def test_a_flat_row_changes_no_state() -> None:
    """By an ordinary mask in place of FlexAttention's, which needs a GPU."""
    policy, batch = llama(), pairs(80, 3, 70, 1, kind=TokenBatch)

    def forward(rows: Rows) -> Tensor:
        return body_states(policy.model, replace(rows, flat=False))

    found = hidden_states(batch, forward, Sharing(longest=10**6, flat=True))
    torch.testing.assert_close(found, alone(policy, batch), rtol=1e-10, atol=1e-10)


def test_an_answer_sees_its_prompt_and_itself_alone() -> None:
    seen: list[Rows] = []

    def forward(rows: Rows) -> Tensor:
        seen.append(rows)
        return rows.tokens[..., None].double()

    hidden_states(pairs(8, 2, 1, count=1), forward, PAY)
    (only,), mask = seen[0].tokens, seen[0].mask
    assert len(only) == 11 and mask is not None
    sees = mask.dense()
    assert seen[0].position is not None and seen[0].position[0].tolist() == [*range(8), 8, 8, 9]
    assert [sees[0, 0, i].nonzero()[:, 0].tolist() for i in range(7, 11)] == [
        [*range(8)],
        [*range(8), 8],  # the shorter answer first
        [*range(8), 9],
        [*range(8), 9, 10],
    ]


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        (MambaConfig(vocab_size=32, hidden_size=16, state_size=4, num_hidden_layers=2), 0),
        (MistralConfig(**SIZE, sliding_window=40), 40),
        (Gemma3TextConfig(**SIZE, head_dim=8, sliding_window=64), 64),
        (LlamaConfig(**SIZE), 2**31),
    ],
    ids=["mamba", "mistral", "gemma3", "llama"],
)
def test_an_architecture_says_how_far_it_shares(config: PreTrainedConfig, longest: int) -> None:
    assert policy_of(config).body.sharing.longest == longest


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_done_by_column_is_found_also_where_rounding_hides_it(dtype: torch.dtype) -> None:
    """At random weights, Jamba's answers see each other by less than bfloat16 rounds; trained ones see more."""
    size = {**SIZE, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
    assert policy_of(JambaConfig(**size), dtype).body.sharing.longest == 0
    by_column = BlenderbotSmallConfig(
        vocab_size=32, d_model=16, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=32, encoder_layers=1
    )
    assert sharing_of(AutoModelForCausalLM.from_config(by_column, dtype=dtype)).longest == 0
    llama_too = policy_of(LlamaConfig(**SIZE), dtype)
    assert llama_too.body.sharing.longest > 0 and {p.dtype for p in llama_too.parameters()} == {dtype}


@torch.no_grad()
def test_beyond_a_window_each_sequence_is_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(MistralConfig(**SIZE, sliding_window=40))
    rows = counted(policy, monkeypatch)
    for batch in (pairs(30, 5, 6), pairs(60, 5, 6)):
        expected = alone(policy, batch)
        assert (policy.hidden_states(batch) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert [r.mask is not None for r in rows] == [True, False]


@pytest.mark.parametrize("positions", [512, 44])
@torch.no_grad()
def test_a_layer_that_masks_columns_by_itself_has_no_wider_rows(positions: int) -> None:
    """GPT-Neo's local layers hide what is a window of columns away: the prompt, from the last answer of a wide row."""
    size = {"vocab_size": 32, "hidden_size": 16, "num_heads": 2, "num_layers": 2, "max_position_embeddings": positions}
    local = {"attention_types": [[["global", "local"], 1]], "window_size": 40}
    policy = policy_of(GPTNeoConfig(**size, **local))
    for batch in (pairs(20, 15, 18, 12, kind=TokenBatch, count=4), pairs(20, 4, 5, 6, kind=TokenBatch, count=4)):
        expected = alone(policy, batch)
        assert (policy.hidden_states(batch) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (policy.body.sharing.longest, policy.body.sharing.widest) == (40, 40)


@torch.no_grad()
def test_a_longer_neighbour_does_not_turn_the_angles_of_a_sequence() -> None:
    """LongRoPE takes other frequencies for a whole call as soon as its longest sequence is longer than the original."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "factor": 8.0}
    policy = policy_of(Phi3Config(**SIZE, original_max_position_embeddings=64, rope_parameters=rope))
    for parameter in policy.model.parameters():
        parameter.mul_(4)  # so that attention matters
    assert policy.body.sharing.turn == 64
    for batch in (pairs(60, 4, 5), pairs(30, 30, 40), pairs(70, 3, 30)):
        expected = alone(policy, batch)
        assert (policy.hidden_states(batch) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_attention_costs_what_arithmetic_says() -> None:
    policy = llama(
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4, hidden_size=32, intermediate_size=64
    )
    # Per layer: four projections, three of the feed-forward, two norms; and a last norm.
    others = 3 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
    # To attend to a column takes two products of 32 numbers per layer; a parameter takes one product per token.
    assert policy.body.sharing.attention == pytest.approx(3 * 2 * 32 / others)


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_cut_into_the_cheapest_calls(seed: int) -> None:
    draw = random.Random(seed)
    each = sorted(draw.choice([5, 40, 700, 3000]) * draw.random() for _ in range(draw.randrange(1, 9)))
    n = len(each)

    def cost(edges: Sequence[int]) -> float:
        return sum((b - a) * each[b - 1] + TOKENS_PER_CALL for a, b in itertools.pairwise(edges))

    found, least = _cuts(np.array(each))
    every = (c for k in range(min(n, 6)) for c in itertools.combinations(range(1, n), k))
    assert found[0] == 0 and found[-1] == n
    assert least == pytest.approx(cost(found)) == pytest.approx(min(cost([0, *c, n]) for c in every))
