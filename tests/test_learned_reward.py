"""A reward model as a reward: read at the end, whatever the length, whatever the memory budget."""

import pytest
import torch
from torch import Tensor

from alignlab.batch import TokenBatch
from alignlab.data.chat import encode_answer
from alignlab.data.records import Prompt
from alignlab.policy import LearnedReward, Policy
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
