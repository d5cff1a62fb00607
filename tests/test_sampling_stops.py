"""Stop tokens: the tokenizer's and those that the model's generation config adds end an answer alike."""

from typing import Any

import pytest
import torch

from alignlab.data.chat import decode
from alignlab.data.records import Prompt
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.policy import Llama, Policy, Sample, Sampling, generate

WORDS = [f"w{i}" for i in range(5)]
STOP = "w3"
"""A word like any other, which the generation config makes a stop token."""


def policy_of(eos_token_id: Any = None) -> Policy:
    """A nearly uniform policy over twelve tokens."""
    words: Any = TrainTokenizer("word", 50).train([" ".join(WORDS)])
    model: Any = Llama(layers=1, width=8, heads=1, feedforward=8, context=32).build(words, 0)
    model.generation_config.eos_token_id = eos_token_id
    return Policy(model, words)


def ids(policy: Policy) -> tuple[int, int]:
    """EOS, and the word that stops too."""
    return int(policy.tokenizer.eos_token_id), int(policy.tokenizer.convert_tokens_to_ids(STOP))


def sampled(policy: Policy, count: int = 100) -> list[Sample]:
    return generate(policy, [Prompt.user("w1")] * count, Sampling(max_new_tokens=6), seed=0)


def test_stop_ids_are_the_tokenizers_and_what_the_model_adds() -> None:
    eos, word = ids(policy_of())
    assert eos != word
    for given, expected in ((None, {eos}), (eos, {eos}), (word, {eos, word}), ([word], {eos, word})):
        assert policy_of(given).stop_ids == expected
    assert policy_of([eos, word, 1]).stop_ids == {eos, word, 1}


@pytest.mark.parametrize("as_list", [True, False])
def test_an_answer_ends_at_any_stop_token_is_finished_and_does_not_say_it(as_list: bool) -> None:
    eos, word = ids(policy_of())
    policy = policy_of([eos, word] if as_list else word)
    samples = sampled(policy)
    ends = {s.answer_ids[-1] for s in samples if s.finished}
    assert ends == {eos, word}, "both ends are seen"
    for sample in samples:
        assert not {eos, word} & set(sample.answer_ids[:-1])
        assert sample.finished == (sample.answer_ids[-1] in (eos, word))
        assert sample.finished or len(sample.answer_ids) == 6
        said = sample.answer_ids[:-1] if sample.finished else sample.answer_ids
        wanted = [policy.tokenizer.convert_ids_to_tokens(t) for t in said]
        assert sample.text.split() == wanted, "control tokens are seen"
        assert STOP not in sample.text.split()


def test_a_word_that_is_no_stop_token_is_said() -> None:
    samples = sampled(policy_of())
    assert any(STOP in s.text.split() for s in samples)
    assert any(s.answer_ids[-1] == ids(policy_of())[1] and not s.finished for s in samples)


def test_an_answer_of_nothing_but_its_stop_token_is_empty_and_finished() -> None:
    policy = policy_of([2, 10])
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.zero_()
    empty = [s for s in sampled(policy) if len(s.answer_ids) == 1 and s.finished]
    assert empty and all(s.text == "" for s in empty)


def test_control_tokens_in_an_answer_are_visible_and_the_stop_token_is_not() -> None:
    policy = policy_of()
    said = [s for s in sampled(policy) if s.finished and "<user>" in s.text.split()[:-1]]
    assert said, "some answer has a control token in its midst"
    for sample in said:
        assert sample.text == policy.tokenizer.decode(sample.answer_ids[:-1])
        assert not sample.text.endswith("<eos>")


def test_what_is_decoded_without_being_sampled_leaves_control_tokens_out() -> None:
    policy = policy_of()
    user, word = policy.tokenizer.convert_tokens_to_ids(["<user>", "w1"])
    assert decode(policy.tokenizer, [word, user, word]) == "w1 w1"
    assert decode(policy.tokenizer, [word, user, word], visible=True) == "w1 <user> w1"
