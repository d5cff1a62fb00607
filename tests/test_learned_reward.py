"""A reward model as a reward: read at the end, whatever the length, whatever the memory budget."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from alignlab.batch import TokenBatch
from alignlab.data.chat import encode_answer
from alignlab.data.records import Prompt
from alignlab.errors import ConfigError
from alignlab.policy import LearnedReward, LearnedScores, Policy
from alignlab.policy.score_head import ScoreHead
from alignlab.testing import tiny_policy
from alignlab.testing.artifacts import WORDS

PROMPTS = [Prompt.user(f"what does {name} like ?") for name in ("ana", "bo", "cy", "ana", "bo")]
ANSWERS = ["tea", "i think bread and rain", "", "not sure", "yes or not or yes or not or yes"]


def alone(policy: Policy, tokens: list[int]) -> Tensor:
    """The score of one row by itself."""
    batch = TokenBatch.of([tokens], [[True] * len(tokens)])
    return policy.token_stats(batch, frozenset({"score"})).score[0].detach()


@pytest.mark.parametrize("max_tokens", [1, 30, 10_000])
def test_scores_are_those_of_each_answer_alone_in_order_whatever_the_budget(max_tokens: int) -> None:
    policy = tiny_policy(scalar_head=True)
    rows = [encode_answer(policy.tokenizer, p, a)[0] for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    expected = torch.stack([alone(policy, tokens) for tokens in rows])
    found = LearnedReward(policy, max_tokens).score(PROMPTS, ANSWERS)
    assert torch.allclose(found, expected, atol=1e-6)
    assert float(expected.std()) > 0.01, "or a mix-up would not be seen"


def test_no_forward_pass_is_larger_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy(scalar_head=True)
    seen: list[int] = []
    inner = policy.token_stats
    monkeypatch.setattr(policy, "token_stats", lambda batch, *a: (seen.append(batch.num_tokens), inner(batch, *a))[1])
    LearnedReward(policy, 30).score(PROMPTS, ANSWERS)
    assert len(seen) > 1 and max(seen) <= 30


def test_an_answer_longer_than_the_context_scores_as_its_tail_does() -> None:
    policy = tiny_policy(scalar_head=True)
    answer = " ".join(WORDS * 3)
    tokens, _ = encode_answer(policy.tokenizer, PROMPTS[0], answer)
    assert len(tokens) > policy.context == 32
    found = LearnedReward(policy).score([PROMPTS[0], PROMPTS[1]], [answer, "tea"])
    assert torch.allclose(found[0], alone(policy, tokens[-32:]), atol=1e-6)
    assert not torch.allclose(found[0], alone(policy, tokens[:32]), atol=1e-3)
    assert torch.allclose(found[1], alone(policy, encode_answer(policy.tokenizer, PROMPTS[1], "tea")[0]), atol=1e-6)


# ---- several attributes ----------------------------------------------------------------------------------------------
def several(*attributes: str) -> Policy:
    policy = tiny_policy(scalar_head=True)
    policy.add_score_head(5, attributes)
    return policy


@pytest.mark.parametrize("max_tokens", [1, 10_000])
def test_each_attribute_scores_as_a_model_of_its_own_would(max_tokens: int) -> None:
    policy = several("good", "brief")
    found = LearnedScores(policy, max_tokens).scores(PROMPTS, ANSWERS)
    assert policy.score_head is not None and found.shape == (5, 2)
    for column, row in enumerate(policy.score_head.weight.detach().split(1)):
        single = tiny_policy()
        single.score_head = ScoreHead(row)
        torch.testing.assert_close(found[:, column], LearnedReward(single).score(PROMPTS, ANSWERS))


def test_several_attributes_come_back_from_a_folder_by_name(tmp_path: Path) -> None:
    policy = several("good", "brief")
    policy.save(tmp_path)
    again = LearnedScores(Policy.load(tmp_path))
    assert again.attributes == ("good", "brief")
    torch.testing.assert_close(again.scores(PROMPTS, ANSWERS), LearnedScores(policy).scores(PROMPTS, ANSWERS))


def test_several_attributes_load_as_a_classifier_of_several_labels(tmp_path: Path) -> None:
    policy = several("good", "brief")
    policy.save(tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.config.id2label == {0: "good", 1: "brief"} and theirs.config.problem_type == "regression"
    batch = TokenBatch.of([[1, 5, 6]], [[False, True, True]])
    found = policy.token_stats(batch, frozenset({"scores"})).scores
    torch.testing.assert_close(found, theirs(torch.tensor([[1, 5, 6]])).logits, rtol=1e-5, atol=1e-6)


def test_several_attributes_are_no_reward_until_they_are_weighed() -> None:
    with pytest.raises(ConfigError, match="the model scores good, brief, and a reward is one number; weigh them with"):
        LearnedReward(several("good", "brief"))
    batch = TokenBatch.of([[1, 2]], [[False, True]])
    with pytest.raises(ConfigError, match="a head for each of good, brief, and score is of one"):
        several("good", "brief").token_stats(batch, frozenset({"score"}))


def test_rows_of_a_head_have_different_names() -> None:
    with pytest.raises(ValueError, match=r"ScoreHead: 2 rows need as many different names, got \['a', 'a'\]"):
        ScoreHead(torch.zeros(2, 3), ("a", "a"))
