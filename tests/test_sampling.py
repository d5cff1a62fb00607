"""Sampling: the right distribution, whatever the batch; and its log-probabilities are the trainer's."""

import re
from typing import Any

import pytest
import torch

from alignlab.batch import RolloutBatch
from alignlab.data.records import Document, Prompt
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.errors import DataError
from alignlab.policy import Llama, Policy, Sampling, complete, fitting, generate, previews
from alignlab.policy.choice import pick

PROMPTS = [Prompt.user(" ".join(["w1"] * n)) for n in (1, 7, 3, 3, 12, 1)]


@pytest.fixture(scope="module")
def policy() -> Policy:
    words: Any = TrainTokenizer("word", 100).train([" ".join(f"w{i}" for i in range(12))])
    model = Llama(layers=2, width=16, heads=2, feedforward=32, context=32).build(words, 0).double()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8)  # far from uniform
    return Policy(model, words)


def test_a_sample_depends_on_neither_its_neighbours_nor_the_batch_size(policy: Policy) -> None:
    sampling = Sampling(max_new_tokens=12)
    together = generate(policy, PROMPTS, sampling, seed=3)
    assert generate(policy, PROMPTS, sampling, seed=3, batch_size=1) == together
    assert generate(policy, PROMPTS, sampling, seed=3, batch_size=4) == together
    assert generate(policy, PROMPTS, sampling, seed=4) != together
    assert together[2].prompt == together[3].prompt
    assert together[2].answer_ids != together[3].answer_ids


def test_equal_prompts_are_run_once(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four samples of each of two prompts: two rows are run over the prompts, then one token of each of eight."""
    shapes: list[tuple[int, ...]] = []
    inner = policy.model.forward

    def counted(*arguments: Any, **named: Any) -> Any:
        shapes.append(tuple(named["input_ids"].shape))
        return inner(*arguments, **named)

    prompts = [Prompt.user("w1 w2 w3")] * 4 + [Prompt.user("w4")] * 4
    apart = [generate(policy, [p], Sampling(max_new_tokens=6), 5, first_index=i)[0] for i, p in enumerate(prompts)]
    monkeypatch.setattr(policy.model, "forward", counted)
    together = generate(policy, prompts, Sampling(max_new_tokens=6), 5)
    assert together == apart and len({s.answer_ids for s in together[:4]}) > 1
    for one, other in zip(together, apart, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=1e-6)
    assert shapes[0][0] == 2 and shapes[1][1] == 1 and shapes[1][0] <= 8


def test_greedy_takes_the_likeliest_token_at_every_step(policy: Policy) -> None:
    (sample,) = generate(policy, PROMPTS[1:2], Sampling(temperature=0, max_new_tokens=6), seed=0)
    row = list(sample.prompt_ids)
    for token in sample.answer_ids:
        best = int(policy.model(input_ids=torch.tensor([row])).logits[0, -1].argmax())
        assert token == best
        row.append(token)


@pytest.mark.parametrize("temperature", [0.6, pytest.param(1.0, marks=pytest.mark.slow)])
def test_frequencies_are_the_tempered_probabilities(policy: Policy, temperature: float) -> None:
    n = 4000
    samples = generate(
        policy, [PROMPTS[0]] * n, Sampling(temperature=temperature, max_new_tokens=1), seed=1, batch_size=n
    )
    counts = torch.bincount(torch.tensor([s.answer_ids[0] for s in samples]), minlength=len(policy.tokenizer)).double()
    logits = policy.model(input_ids=torch.tensor([samples[0].prompt_ids])).logits[0, -1].detach()
    expected = (logits / temperature).softmax(-1)
    assert float((counts / n - expected).abs().max()) < 5 * 0.5 / n**0.5


def test_the_log_probability_of_what_was_sampled_is_the_trainers(policy: Policy) -> None:
    """On policy, at T = 0.6, the importance ratio is 1: temperature is in the trainer's log-probability too."""
    from dataclasses import replace

    samples = generate(policy, PROMPTS, Sampling(temperature=0.6, max_new_tokens=8), seed=0)
    rows = [[*s.prompt_ids, *s.answer_ids] for s in samples]
    masks = [[False] * len(s.prompt_ids) + [True] * len(s.answer_ids) for s in samples]
    batch = replace(RolloutBatch.of(rows, masks), temperature=0.6)
    now = policy.token_stats(batch, frozenset({"logp"})).logp
    for number, sample in enumerate(samples):
        full = policy.model(input_ids=torch.tensor([rows[number]])).logits[0, :-1]
        eager = (full / 0.6).log_softmax(-1)[-len(sample.answer_ids) :]
        eager = eager.gather(1, torch.tensor(sample.answer_ids)[:, None])[:, 0]
        ours = now[(batch.sequence_id == number) & batch.response_mask]
        assert torch.allclose((ours - eager).exp(), torch.ones_like(ours), atol=1e-9)
        assert torch.allclose(torch.tensor(sample.logp, dtype=ours.dtype), ours, atol=1e-9)


def test_an_answer_ends_at_the_stop_token_and_says_so(policy: Policy) -> None:
    samples = generate(policy, PROMPTS * 20, Sampling(max_new_tokens=16), seed=0)
    stop = policy.tokenizer.eos_token_id
    assert any(s.finished for s in samples) and not all(s.finished for s in samples)
    for sample in samples:
        assert sample.finished == (sample.answer_ids[-1] == stop)
        assert stop not in sample.answer_ids[:-1]
        assert sample.finished or len(sample.prompt_ids) + len(sample.answer_ids) == 32 or len(sample.answer_ids) == 16


def test_a_cut_distribution_is_the_samplers_own_and_not_the_trainers(policy: Policy) -> None:
    """With top_p below 1 a token is likelier by what was cut off: its log-probability is over the kept ones."""
    cut = Sampling(temperature=0.8, top_p=0.7, max_new_tokens=1)
    for sample in generate(policy, PROMPTS, cut, seed=0):
        logits = policy.model(input_ids=torch.tensor([sample.prompt_ids])).logits[0, -1].detach()
        ranked, order = (logits / 0.8).softmax(-1).sort(descending=True)
        kept = int((ranked.cumsum(0) - ranked < 0.7).sum())
        place = int((order == sample.answer_ids[0]).nonzero())
        assert place < kept and float(ranked[:kept].sum()) < 1
        assert sample.logp[0] == pytest.approx(float((ranked[place] / ranked[:kept].sum()).log()), abs=1e-9)
    greedy = generate(policy, PROMPTS, Sampling(temperature=0, max_new_tokens=3), seed=0)
    assert all(set(s.logp) == {0.0} and len(s.logp) == len(s.answer_ids) for s in greedy)


def test_top_k_and_top_p_keep_what_they_say() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).double().log().expand(1000, 4)
    uniform = torch.linspace(0, 0.999, 1000).double()
    assert pick(logits, uniform, Sampling(top_k=2))[0].unique().tolist() == [0, 1]
    assert pick(logits, uniform, Sampling(top_p=0.6))[0].unique().tolist() == [0, 1]
    assert pick(logits, uniform, Sampling(top_p=0.4))[0].unique().tolist() == [0]
    share = (pick(logits, uniform, Sampling(top_k=2))[0] == 0).double().mean()
    assert float(share) == pytest.approx(0.5 / 0.8, abs=2e-3)


def test_a_plain_continuation_starts_with_one_bos(policy: Policy) -> None:
    (sample,) = complete(policy, ["w1 w2"], Sampling(max_new_tokens=2), seed=0)
    bos = policy.tokenizer.bos_token_id
    assert sample.prompt_ids[0] == bos and sample.prompt_ids.count(bos) == 1
    assert policy.tokenizer.eos_token_id not in sample.prompt_ids


def test_a_prompt_that_leaves_no_room_is_an_error(policy: Policy) -> None:
    with pytest.raises(DataError, match=r"context is 32, so there is no room for an answer"):
        generate(policy, [Prompt.user(" ".join(["w1"] * 40))], Sampling(), seed=0)


@pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"max_new_tokens": 0}])
def test_impossible_sampling_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)


def test_samples_of_a_language_without_blanks_fit_the_context(policy: Policy) -> None:
    """Six of its words may be the whole document."""
    found = previews.continued(policy, [Document("w1" * 400), Document("w1 w2 w3 w4 w5 w6 w7")], seed=0)
    assert [row["prompt"] for row in found][1] == "w1 w2 w3 w4 w5 w6"


def test_a_prompt_that_fills_the_context_stops_or_is_left_out_and_counted(policy: Policy) -> None:
    long = Prompt.user(" ".join(["w1"] * 40))
    said: list[str] = []
    assert fitting(policy, PROMPTS, False, said.append) == PROMPTS and not said
    why = r"1 of 7 prompts cannot be asked \(the first, 'w1 .*': 43 tokens fill the model's context of 32\)"
    with pytest.raises(DataError, match=f"{why}; .*on_bad_record=skip"):
        fitting(policy, [*PROMPTS, long], False, said.append)
    assert fitting(policy, [*PROMPTS, long], True, said.append) == PROMPTS
    assert len(said) == 1 and re.fullmatch(f"{why}; they are left out", said[0])
    with pytest.raises(DataError, match="1 of 1 prompts"):
        fitting(policy, [long], True, said.append)


def test_a_prompt_that_the_template_refuses_is_named_with_its_reason(policy: Policy) -> None:
    own = policy.tokenizer.chat_template
    policy.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role here') }}{% endif %}" + own
    )
    try:
        with pytest.raises(DataError, match=r"1 of 7 prompts cannot be asked .*no system role here"):
            fitting(policy, [*PROMPTS, Prompt.user("w1", system="w2")], False, lambda _: None)
    finally:
        policy.tokenizer.chat_template = own


def test_small_products_are_computed_by_one_thread_and_the_others_are_there_again(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = torch.get_num_threads(), []
    inner = policy.model.forward

    def counted(*arguments: Any, **named: Any) -> Any:
        seen.append(torch.get_num_threads())
        return inner(*arguments, **named)

    monkeypatch.setattr(policy.model, "forward", counted)
    torch.set_num_threads(2)
    try:
        generate(policy, PROMPTS, Sampling(max_new_tokens=2), 0)
        assert set(seen) == {1} and torch.get_num_threads() == 2
        seen.clear()
        monkeypatch.setattr("alignlab.policy.drawing._SHARED_PRODUCT", 6 * 16**2)
        generate(policy, PROMPTS, Sampling(max_new_tokens=2), 0)
        assert set(seen) == {2}
    finally:
        torch.set_num_threads(before)
