"""Sampling in a batch: what stands left of a short prompt, beside it or after its end changes nothing."""

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from alignlab.data.chat import encode_prompt
from alignlab.data.records import Prompt
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.policy import Llama, Policy, Sample, Sampling, generate

CONTEXT = 32
WORDS = [f"w{i}" for i in range(12)]
PROMPTS = [Prompt.user(" ".join(WORDS[:n])) for n in (1, 11, 3, 7)]


def tokenizer() -> Any:
    return TrainTokenizer("word", 100).train([" ".join(WORDS)])


def llama() -> Policy:
    """Attends so strongly that whatever is seen changes what is said; never stops by itself."""
    words = tokenizer()
    shape = Llama(layers=2, width=16, heads=2, feedforward=32, context=CONTEXT, tie_embeddings=False)
    model: Any = shape.build(words, 2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("v_proj.weight", "o_proj.weight", "q_proj.weight", "k_proj.weight")):
                weight.mul_(15)
        model.get_input_embeddings().weight.mul_(20)
        model.get_input_embeddings().weight[0] = torch.linspace(-30, 30, 16)  # what the padding is filled with
        model.get_output_embeddings().weight.mul_(30)
    return Policy(never_stopping(model.double(), words), words)


def gpt2() -> Policy:
    """Reads absolute positions, loudly."""
    words = tokenizer()
    config = GPT2Config(
        vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, n_positions=CONTEXT, tie_word_embeddings=False,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(60)
        model.transformer.wte.weight.mul_(20)
        model.lm_head.weight.mul_(30)
    return Policy(never_stopping(model.double(), words), words)


def never_stopping(model: Any, words: Any) -> Any:
    """The model, whose stop token has no chance beside the others."""
    head = model.get_output_embeddings()
    bias = torch.zeros(len(words), dtype=head.weight.dtype)
    bias[words.eos_token_id] = -1e4
    head.bias = torch.nn.Parameter(bias)
    return model


@torch.no_grad()
def one_by_one(policy: Policy, prompt: Prompt, count: int) -> tuple[int, ...]:
    """The likeliest continuation, by whole forward passes of this one row: no cache, no padding, no mask."""
    row = encode_prompt(policy.tokenizer, prompt)
    start = len(row)
    for _ in range(count):
        row.append(int(policy.model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
    return tuple(row[start:])


def greedy(policy: Policy, prompts: list[Prompt], count: int) -> list[Sample]:
    return generate(policy, prompts, Sampling(temperature=0, max_new_tokens=count), seed=0)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_padded_prompt_is_continued_as_it_is_alone(make: Any) -> None:
    policy = make()
    found = [s.answer_ids for s in greedy(policy, PROMPTS, 12)]
    assert found == [one_by_one(policy, p, 12) for p in PROMPTS]
    assert all(len(set(answer)) > 3 for answer in found), "or a mistake would not be seen"


@pytest.mark.parametrize("make", [llama, gpt2])
def test_those_who_go_on_keep_their_own_padding_when_a_shorter_one_stops(make: Any) -> None:
    """The stop token is the second thing that the shortest prompt's answer says and the longest one's does not."""
    policy = make()
    alone = [one_by_one(policy, p, 12) for p in PROMPTS]
    stop = [t for t in alone[0] if t not in alone[1]][1]
    policy.model.generation_config.eos_token_id = [stop]
    expected = [a[: a.index(stop) + 1] if stop in a else a for a in alone]
    assert len(expected[0]) < 12 and len(expected[1]) == 12
    assert [s.answer_ids for s in greedy(policy, PROMPTS, 12)] == expected


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_prompt_near_the_context_takes_no_room_from_a_short_one(make: Any) -> None:
    policy = make()
    long, short = Prompt.user(" ".join(["w1"] * (CONTEXT - 6))), Prompt.user("w2")
    first, second = greedy(policy, [long, short], 20)
    assert (len(first.prompt_ids), len(first.answer_ids)) == (CONTEXT - 3, 3)
    assert (len(second.prompt_ids), len(second.answer_ids)) == (4, 20)
    assert not first.finished and not second.finished
    assert first.answer_ids == one_by_one(policy, long, 3)
    assert second.answer_ids == one_by_one(policy, short, 20)


@pytest.mark.parametrize("training", [True, False])
def test_sampling_drops_nothing_and_leaves_the_mode_as_it_was(training: bool) -> None:
    policy = llama()
    expected = greedy(policy.eval(), PROMPTS, 8)
    for module in policy.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    policy.train(training)
    torch.manual_seed(0)
    assert greedy(policy, PROMPTS, 8) == expected
    assert policy.training == policy.model.training == training
