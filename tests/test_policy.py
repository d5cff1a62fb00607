"""The policy: its token statistics are those of the plain model on each sequence alone; its folder loads anywhere."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen3Config,
)

from alignlab.batch import RolloutBatch, TokenBatch
from alignlab.data.chat import encode_answer
from alignlab.data.records import Prompt
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import ConfigError, StoreError
from alignlab.policy import LearnedReward, Llama, Policy
from alignlab.testing import tiny_policy_artifact

WORDS = [f"w{i}" for i in range(30)]
ALL = frozenset({"logp", "lse", "entropy", "value", "score"})


def tokenizer() -> Any:
    return TrainTokenizer("word", 100).train([" ".join(WORDS)])


def tiny(seed: int = 0) -> Policy:
    words = tokenizer()
    policy = Policy(Llama(layers=2, width=16, heads=2, feedforward=32, context=32).build(words, seed), words)
    policy.add_score_head(1)
    return policy.double()


CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, tie_word_embeddings=True,
    ),
    "qwen3": Qwen3Config(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, head_dim=8,
        num_key_value_heads=1, max_position_embeddings=64,
    ),
    "gpt2": GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2),
    "gpt_neox": GPTNeoXConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    ),
    "opt": OPTConfig(
        vocab_size=32, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=16,
        max_position_embeddings=64,
    ),
    "gemma2": Gemma2Config(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, head_dim=8,
        num_key_value_heads=1, max_position_embeddings=64, final_logit_softcapping=3.0, bos_token_id=1, eos_token_id=2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CONFIGS))
def test_token_statistics_are_those_of_each_sequence_alone(name: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).double().eval()
    policy = Policy(model, tokenizer())
    rows = [torch.randint(0, 32, (n,)).tolist() for n in (2, 17, 5, 9, 30, 3)]
    batch = TokenBatch.of(rows, [[True] * len(r) for r in rows])
    with torch.no_grad():
        now = policy.token_stats(replace(batch, temperature=0.7), frozenset({"logp", "lse", "entropy"}))
        logits = [model(input_ids=torch.tensor([r])).logits[0, :-1] / 0.7 for r in rows]
    logp, lse, entropy = (torch.cat([torch.cat([x.new_zeros(1), x]) for x in k]) for k in _eager(logits, rows))
    assert torch.allclose(now.logp, logp, atol=1e-9)
    assert torch.allclose(now.lse, lse, atol=1e-9)
    assert torch.allclose(now.entropy, entropy, atol=1e-9)


def _eager(logits: list[Tensor], rows: list[list[int]]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    full = [z.log_softmax(-1) for z in logits]
    logp = [p.gather(1, torch.tensor(r[1:])[:, None])[:, 0] for p, r in zip(full, rows, strict=True)]
    return logp, [z.logsumexp(-1) for z in logits], [-(p.exp() * p).sum(-1) for p in full]


def test_neighbours_order_and_micro_batches_change_nothing() -> None:
    policy = tiny()
    rows = [list(range(7, 7 + n)) for n in (3, 12, 6, 20)]
    batch = TokenBatch.of(rows, [[True] * len(r) for r in rows])
    whole = policy.token_stats(batch, ALL)
    parts = [policy.token_stats(p, ALL) for p in batch.micro_batches(1)]
    back = policy.token_stats(batch.select_units([3, 2, 1, 0]), ALL)
    for name in ALL:
        alone = torch.cat([p.values[name] for p in parts])
        assert torch.allclose(whole.values[name], alone, atol=1e-12)
    assert torch.allclose(back.score, whole.score.flip(0), atol=1e-12)


def test_nothing_is_scored_outside_the_mask() -> None:
    policy = tiny()
    batch = TokenBatch.of([[1, 7, 8, 9]], [[False, False, True, True]])
    now = policy.token_stats(batch, ALL)
    assert now.logp[:2].tolist() == [0.0, 0.0]
    assert (now.logp[2:] < 0).all()


def test_a_rollout_is_scored_at_its_own_temperature() -> None:
    policy = tiny()
    rows, mask = [[1, 7, 8, 9]], [[False, False, True, True]]
    needs = frozenset({"logp"})
    hot = policy.token_stats(RolloutBatch.of(rows, mask, temperature=0.5), needs)
    own = policy.token_stats(replace(RolloutBatch.of(rows, mask), temperature=0.5), needs)
    assert torch.equal(hot.logp, own.logp)
    assert not torch.allclose(own.logp, policy.token_stats(TokenBatch.of(rows, mask), needs).logp)


def test_the_value_forecasts_before_the_token_and_the_score_is_read_at_the_last() -> None:
    policy = tiny()
    batch = TokenBatch.of([[1, 7, 8], [1, 9]], [[True] * 3, [True] * 2])
    now = policy.token_stats(batch, ALL)
    assert policy.score_head is not None
    scalar = policy.score_head(policy.hidden_states(batch))[:, 0]
    assert torch.allclose(now.value, torch.stack([0 * scalar[0], scalar[0], scalar[1], 0 * scalar[0], scalar[3]]))
    assert torch.allclose(now.score, scalar[torch.tensor([2, 4])])


def test_a_saved_policy_loads_with_transformers_and_with_us(tmp_path: Path) -> None:
    policy = tiny().float()
    policy.score_head = None
    policy.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    words = AutoTokenizer.from_pretrained(tmp_path)
    row = torch.tensor([[1, 7, 8, 9]])
    assert torch.equal(model(input_ids=row).logits, policy.model(input_ids=row).logits)
    chat = words.apply_chat_template([{"role": "user", "content": "w1 w2"}], tokenize=False, add_generation_prompt=True)
    assert chat == "<bos><user>w1 w2<assistant>"
    again = Policy.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), policy.parameters(), strict=True))


def test_a_reward_model_is_a_sequence_classifier_and_a_causal_lm(tmp_path: Path) -> None:
    policy = tiny().float()
    policy.save(tmp_path)
    row = torch.tensor([[1, 7, 8, 2]])
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    score = policy.token_stats(TokenBatch.of(row.tolist(), [[True] * 4]), frozenset({"score"})).score
    assert torch.allclose(classifier(input_ids=row).logits[0], score, atol=1e-6)
    causal = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(causal(input_ids=row).logits, policy.model(input_ids=row).logits)
    again = Policy.load(tmp_path)
    assert again.score_head is not None and policy.score_head is not None
    assert torch.equal(again.score_head.weight, policy.score_head.weight)


def test_a_learned_reward_reads_the_stop_token() -> None:
    policy = tiny()
    reward = LearnedReward(policy)
    prompts, answers = [Prompt.user("w1 w2"), Prompt.user("w3")], ["w4", "w5 w6 w7"]
    tokens, mask = encode_answer(policy.tokenizer, prompts[1], answers[1])
    alone = policy.token_stats(TokenBatch.of([tokens], [mask]), frozenset({"score"})).score
    assert tokens[-1] == policy.tokenizer.eos_token_id
    assert torch.allclose(reward.score(prompts, answers)[1], alone[0].float(), atol=1e-6)
    assert reward.score([], []).shape == (0,)


def test_threads_that_load_at_once_leave_later_models_tied(tmp_path: Path) -> None:
    """transformers replaces a function of its own while it loads; two of them once left it replaced for good."""
    artifact = tiny_policy_artifact(tmp_path / "policy")
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: Policy.load(artifact), range(30)))
    model = tiny().model
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_what_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no model.*config\.json"):
        Policy.load(tmp_path)
    plain = tiny()
    plain.score_head = None
    with pytest.raises(ConfigError, match="no scalar head"):
        LearnedReward(plain)


def test_an_architecture_that_does_more_after_its_body_is_refused() -> None:
    policy = tiny().float()

    class Scaled(type(policy.model)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * 2
            return out

    policy.model.__class__ = Scaled
    with pytest.raises(ConfigError, match="logits are not its head applied to its last hidden state"):
        Policy(policy.model, policy.tokenizer)
