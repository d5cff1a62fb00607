"""The rollout buffer: what is in it, how it is visited, and that it is the same on any number of processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_ppo.stage import explained_variance

from alignlab import distributed
from alignlab.artifact import Artifact
from alignlab.batch import RolloutBatch
from alignlab.policy import Policy, generate
from alignlab.training.rollouts import as_state, from_state, summary


def test_old_logp_is_the_trainers_own_at_the_sampling_temperature(prepared: Any, policy: Artifact) -> None:
    stage = prepared(sampling_temperature=0.6)
    batch = stage.batch_at(0)
    model = Policy.load(policy).eval().model
    for s in range(batch.num_sequences):
        of = batch.sequence_id == s
        logits = model(batch.tokens[of][None]).logits[0, :-1].detach() / 0.6
        expected = logits.log_softmax(-1).gather(1, batch.tokens[of][1:, None])[:, 0]
        kept = batch.response_mask[of][1:]
        assert torch.allclose(batch.old_logp[of][1:][kept], expected[kept], atol=1e-4)
        assert torch.allclose(batch.reference_logp[of], batch.old_logp[of], atol=1e-5)


def test_every_epoch_visits_every_answer_of_the_buffer_once(prepared: Any) -> None:
    stage = prepared()
    assert (stage.units_per_rollout, stage.steps_per_rollout) == (12, 4)
    epochs = [[stage.batch_at(step) for step in steps] for steps in ((0, 1), (2, 3))]
    buffer = stage._buffer
    assert buffer is not None and buffer.num_units == 12
    whole = sorted(buffer.sum_by_sequence(buffer.advantage).tolist())
    for parts in epochs:
        seen = [x for p in parts for x in p.sum_by_sequence(p.advantage).tolist()]
        assert sorted(seen) == pytest.approx(whole)
    assert not torch.equal(epochs[0][0].tokens, epochs[1][0].tokens)
    stage.batch_at(4)
    assert stage._buffer is not buffer


def test_reward_is_normalised_once_and_the_critic_with_it(
    make_stage: Any, policy: Artifact, reward_model: Artifact, context: Any
) -> None:
    stage = make_stage()
    stage.context = context
    stage.prepare({"policy": policy, "reward": reward_model}, context)
    raw = stage.critic(stage.collector.collect(stage.policy, stage._prompts, 1, 0)).detach()
    stage.batch_at(0)
    mean, scale = stage._scale
    normalised = stage._buffer.sequence("reward")
    assert float(normalised.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(normalised.std(correction=0)) == pytest.approx(1.0, abs=1e-5)
    batch = stage.collector.collect(stage.policy, stage._prompts, 1, 0)
    forecast = torch.where(batch.position > 0, (raw - mean) / scale, 0.0)
    assert torch.allclose(stage.critic(batch), forecast, atol=1e-4)
    stage.batch_at(4)
    assert stage._scale == (mean, scale)


def test_a_critic_without_reward_model_forecasts_nothing_at_first(prepared: Any) -> None:
    stage = prepared()
    assert not stage.batch_at(0).old_value.any()


def test_rollouts_do_not_depend_on_the_number_of_processes(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = prepared()
    prompts = stage._prompts[:5]
    alone = stage.collector.collect(stage.policy, prompts, 3, 7)
    shares: list[RolloutBatch] = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        # The last process receives what the others had, in order.
        monkeypatch.setattr(distributed, "gather_objects", lambda mine: shares.extend(mine) or list(shares))
        together = stage.collector.collect(stage.policy, prompts, 3, 7)
    assert [s.num_units for s in shares] == [6, 9]
    assert torch.equal(together.tokens, alone.tokens)
    assert torch.equal(together.sequence("group"), alone.sequence("group"))
    assert torch.equal(together.sequence("reward"), alone.sequence("reward"))
    assert torch.allclose(together.old_logp, alone.old_logp, atol=1e-5)


def test_a_buffer_survives_a_checkpoint_that_holds_only_plain_things(prepared: Any, tmp_path: Path) -> None:
    stage = prepared()
    stage.batch_at(0)
    torch.save(as_state(stage._buffer), tmp_path / "buffer.pt")
    back = from_state(torch.load(tmp_path / "buffer.pt", weights_only=True))
    assert back.temperature == 0.6
    assert back.names == stage._buffer.names
    assert back.per_token.keys() >= {"old_logp", "reference_logp", "old_value", "advantage", "returns"}
    assert all(torch.equal(back.token(k), stage._buffer.token(k)) for k in back.per_token)
    assert torch.equal(back.group, stage._buffer.group)


def test_summary_and_explained_variance_by_hand() -> None:
    batch = RolloutBatch.of([[1, 2, 3], [1, 2]], [[False, True, True], [False, True]])
    tokens = {"old_logp": [9.0, -1.0, -2.0, 9.0, -0.5], "reference_logp": [0.0, -2.0, -2.5, 0.0, -1.0]}
    tokens |= {"returns": [9.0, 1.0, 2.0, 9.0, 6.0], "old_value": [0.0, 1.0, 2.0, 0.0, 4.5]}
    batch = batch.with_tokens(**{k: torch.tensor(v) for k, v in tokens.items()})
    batch = batch.with_sequences(reward=torch.tensor([1.0, 3.0]), finished=torch.tensor([1.0, 0.0]))
    # KL: (1 + 0.5, 0.5). Variance of the returns (1, 2, 6): 14/3; of what was not foreseen (0, 0, 1.5): 0.5.
    assert summary(batch) == pytest.approx({"reward": 2.0, "kl": 1.0, "answer_length": 1.5, "finished": 0.5})
    assert explained_variance(batch) == pytest.approx(1 - 0.5 / (14 / 3))
    assert explained_variance(batch.with_tokens(returns=torch.ones(5))) == 0.0


def test_answers_stop_tokens_and_finished_are_the_samplers(prepared: Any) -> None:
    """The stop token of a finished answer is a scored token; an answer that ran out of room has none."""
    stage = prepared(samples_per_prompt=12)
    prompts = stage._prompts[:3]
    batch = stage.collector.collect(stage.policy, prompts, 12, 7)
    sampled = generate(stage.policy, [p for p in prompts for _ in range(12)], stage.sampling, 7)
    assert {s.finished for s in sampled} == {True, False}
    assert batch.sequence("finished").tolist() == [float(s.finished) for s in sampled]
    stops = stage.policy.stop_ids
    for number, sample in enumerate(sampled):
        of = batch.sequence_id == number
        scored = batch.tokens[of & batch.response_mask].tolist()
        assert scored == list(sample.answer_ids)
        assert batch.tokens[of & ~batch.response_mask].tolist() == list(sample.prompt_ids)
        assert (scored[-1] in stops) == sample.finished == bool(batch.sequence("finished")[number])
        assert not stops & set(scored[:-1])
