"""A reward model's folder is the classifier that it says it is, however its weights lie on the disk."""

import functools
import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from alignlab.batch import TokenBatch
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.policy import Policy

CONFIGS: dict[str, PretrainedConfig] = {
    "GPT2ForSequenceClassification": GPT2Config(
        vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2
    ),
    "LlamaForSequenceClassification": LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    ),
}  # fmt: skip
TOKENS = [5, 9, 4, 11, 3]


def reward_model(config: PretrainedConfig) -> Policy:
    torch.manual_seed(0)
    policy = Policy(AutoModelForCausalLM.from_config(config), TrainTokenizer("word", 30).train(["a b c d e f"]))
    policy.add_score_head(1)
    return policy


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_a_reward_model_loads_as_the_classifier_that_it_says_it_is(
    architecture: str, shards: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shards:
        save = functools.partialmethod(PreTrainedModel.save_pretrained, max_shard_size="4KB")
        monkeypatch.setattr(PreTrainedModel, "save_pretrained", save)
    policy = reward_model(CONFIGS[architecture])
    policy.save(tmp_path)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 2) is shards

    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [architecture] and config["problem_type"] == "regression"
    assert config["id2label"] == {"0": "reward"} and config["label2id"] == {"reward": 0}
    assert not (tmp_path / "generation_config.json").exists()

    theirs, found = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs).__name__ == architecture and not found["missing_keys"]
    batch = TokenBatch.of([TOKENS], [[False, False, True, True, True]])
    expected = theirs(torch.tensor([TOKENS])).logits[0, 0]
    for ours in (policy, Policy.load(tmp_path)):
        score = ours.token_stats(batch, frozenset({"score"})).score
        assert score is not None
        torch.testing.assert_close(score[0], expected, rtol=1e-5, atol=1e-6)
