"""The online regime as a stranger uses it: what a method is given and may return, what is refused by name."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_dpo import DPO
from alignlab_grpo import GRPO, GroupRelative, LeaveOneOut, Reinforce
from regimes import Counted, Questions, Tea, online, planned, prepared, run
from together import run_together
from torch import Tensor

from alignlab import distributed
from alignlab.advantage import Advantage
from alignlab.artifact import Artifact
from alignlab.batch import Batch, RolloutBatch
from alignlab.data.chat import decode
from alignlab.data.records import Prompt
from alignlab.data.source import Split
from alignlab.errors import DataError, NonFiniteError
from alignlab.objective import Loss, Objective
from alignlab.policy import generate
from alignlab.reward import RewardSource, Scores
from alignlab.stats import TokenStats
from alignlab.testing import tiny_policy_artifact
from alignlab.training import Constant, OnlineStage, OptimizerSpec, ParameterGroup, PolicyGradientStage, Schedule
from alignlab.training.rollouts import as_state, from_state, rollout_batch, summary


# ---- what a stranger writes -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class AnswerNLL(Objective[Batch]):
    """Mean over response tokens of minus their log-probability."""

    VERSION: ClassVar[str] = "1"

    def __call__(self, stats: TokenStats, batch: Batch) -> Loss:
        return self.loss(batch, loss=-stats.logp)


class Winners(OnlineStage[RolloutBatch]):
    """Learn the best answer to each prompt by heart (best of n)."""

    VERSION: ClassVar[str] = "1"

    def train_on(self, rollouts: RolloutBatch, step: int) -> RolloutBatch:
        table = rollouts.sequence("reward").view(-1, self.samples_per_prompt)
        best = torch.zeros_like(table).scatter(1, table.argmax(1, keepdim=True), 1.0)
        return replace(rollouts, weight=best.flatten())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("online")
    return {"policy": tiny_policy_artifact(folder / "policy")}


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_policy_artifact(tmp_path_factory.mktemp("online") / "reward", seed=5, scalar_head=True)


def winners(kind: type[OnlineStage[Any]] = Winners, **changes: Any) -> Any:
    return online(kind, **{"objective": AnswerNLL(), **changes})


def gradient_stage(**changes: Any) -> PolicyGradientStage:
    own: dict[str, Any] = {"objective": Reinforce(), "advantage": LeaveOneOut()}
    found: PolicyGradientStage = online(PolicyGradientStage, **{**own, **changes})
    return found


# ---- the buffer -----------------------------------------------------------------------------------------------------
def test_a_method_is_given_every_sample_of_every_prompt_in_order(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    given: list[tuple[RolloutBatch, int]] = []

    class Looking(Winners):
        """Keeps what it is given."""

        VERSION: ClassVar[str] = "1"

        def train_on(self, rollouts: RolloutBatch, step: int) -> RolloutBatch:
            given.append((rollouts, step))
            return super().train_on(rollouts, step)

    ready = prepared(winners(Looking), inputs, tmp_path)
    for step in range(4):
        ready.batch_at(step)
    assert [step for _, step in given] == [0, 2], "two minibatches of six answers each"
    rollouts = given[0][0]
    assert rollouts.group.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert rollouts.temperature == 0.6 and rollouts.per_token == {}
    answers = [of(rollouts, s).tolist() for s in range(12)]
    stops = [answer[-1] in ready.policy.stop_ids for answer in answers]
    assert rollouts.sequence("finished").tolist() == [float(x) for x in stops]
    said = [answer[:-1] if stopped else answer for answer, stopped in zip(answers, stops, strict=True)]
    texts = [decode(ready.policy.tokenizer, ids, visible=True) for ids in said]
    assert torch.allclose(rollouts.sequence("reward"), Tea().score([], texts))
    assert [n for n in rollouts.names if n == rollouts.names[0]] == [rollouts.names[0]] * 3


def of(rollouts: RolloutBatch, sequence: int) -> Tensor:
    found: Tensor = rollouts.tokens[(rollouts.sequence_id == sequence) & rollouts.response_mask]
    return found


def test_every_epoch_visits_every_unit_once_and_then_a_new_buffer_is_made(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    ready = prepared(winners(epochs=2), inputs, tmp_path)
    parts = [ready.batch_at(step) for step in range(6)]
    tokens = [sorted(map(tuple, (of(p, s).tolist() for p in pair for s in range(6)))) for pair in
              (parts[:2], parts[2:4], parts[4:])]  # fmt: skip
    assert tokens[0] == tokens[1] != tokens[2]
    assert not torch.equal(parts[0].tokens, parts[2].tokens)


@pytest.mark.parametrize(
    ("objective", "advantage", "measured", "carried"),
    [
        (Reinforce(), GroupRelative(), 0, {"advantage"}),
        (GRPO(), GroupRelative(), 2, {"advantage", "old_logp", "reference_logp"}),
        (Reinforce(), LeaveOneOut(), 2, {"advantage", "old_logp", "reference_logp"}),
        (AnswerNLL(), GroupRelative(), 0, {"advantage"}),
    ],
)
def test_log_probabilities_are_computed_where_somebody_reads_them(
    objective: Any, advantage: Any, measured: int, carried: set[str],
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    counted = Counted(monkeypatch)
    ready = prepared(gradient_stage(objective=objective, advantage=advantage), inputs, tmp_path)
    assert ready.batch_at(0).per_token.keys() == carried
    assert counted.measured == [12] * measured and counted.loads == 1


def test_a_buffer_that_is_stepped_on_once_is_run_once(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step's own pass gives `old_logp`: neither the buffer nor the step's constants ask for another one."""
    ready = gradient_stage(objective=GRPO(beta=0.0), advantage=GroupRelative(), loop_batch_size=12, loop_steps=1)
    passes: list[bool] = []
    plain = type(ready).token_stats

    def counted(batch: RolloutBatch) -> TokenStats:
        passes.append(torch.is_grad_enabled())
        return plain(ready, batch)

    monkeypatch.setattr(ready, "token_stats", counted)
    run(ready, inputs, tmp_path)
    assert passes == [True]


class TwoLooks(torch.optim.SGD):
    """Asks for loss and gradient twice in a step, as a line search does: before and after it has moved."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.losses: list[float] = []

    def step(self, closure: Any = None) -> Any:
        first = closure()
        super().step()
        self.losses += [float(first), float(closure())]
        super().step()
        return first


@dataclass(frozen=True)
class Searching(OptimizerSpec):
    """Builds `TwoLooks`."""

    VERSION: ClassVar[str] = "1"
    made: list[TwoLooks]
    schedule: Schedule = field(default_factory=Constant)

    def build(self, groups: Sequence[ParameterGroup]) -> TwoLooks:
        self.made.append(TwoLooks([p for g in groups for p in g.parameters], lr=0.02))
        return self.made[-1]


def test_a_loss_asked_for_again_in_a_step_has_the_ratio_to_the_policy_that_sampled(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    """After a move the policy is no longer the one that sampled, so that the surrogate must show what it has gained."""
    found = []
    for size in (12, 6):  # a buffer in one step; and in two, where `old_logp` is measured beforehand
        optimizer = Searching([])
        stage = gradient_stage(
            objective=GRPO(beta=0.0), advantage=GroupRelative(), optimizer=optimizer, loop_batch_size=size, loop_steps=1
        )
        run(stage, inputs, tmp_path / str(size))
        found.append(optimizer.made[0].losses)
    assert all(after < before - 1e-4 for before, after in found), found


def test_validation_without_a_reference_has_no_kl_and_costs_no_pass(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    metrics, _ = run(winners(loop_steps=2, loop_validate_every=2), inputs, tmp_path / "a")
    assert "validation_kl" not in metrics and counted.measured == []
    assert metrics["validation_reward"] != metrics["validation_reference_reward"]
    still = winners(loop_steps=2, loop_validate_every=2, lr=0.0)
    metrics, _ = run(still, inputs, tmp_path / "b")
    assert metrics["validation_reward"] == metrics["validation_reference_reward"]


def test_a_process_without_prompts_scores_nothing(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One prompt and two processes: the first has none, and the reward source is not asked."""

    class Careful(Tea):
        """Cannot score nothing."""

        VERSION: ClassVar[str] = "1"

        def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
            assert answers
            return super().score(prompts, answers)

    ready = prepared(gradient_stage(reward=Careful(), sampling_temperature=1.0), inputs, tmp_path)
    alone = ready.sample(ready._prompts[:1], 7)
    shares: list[RolloutBatch] = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "gather_objects", lambda mine: shares.extend(mine) or list(shares))
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        together = ready.sample(ready._prompts[:1], 7)
    assert [share.num_sequences for share in shares] == [0, 3]
    assert torch.equal(together.tokens, alone.tokens) and torch.equal(together.group, alone.group)
    assert torch.allclose(together.old_logp, alone.old_logp, atol=1e-5)


class TeaInParts(Tea):
    """The same reward, told in two parts."""

    VERSION: ClassVar[str] = "1"
    parts = ("tea", "letters")

    def score_in_parts(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Scores:
        total = self.score(prompts, answers)
        return Scores(total, {"tea": 2 * total, "letters": torch.tensor([float(len(a)) for a in answers])})


def test_parts_of_a_reward_are_logged_under_their_names(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ready = prepared(gradient_stage(reward=TeaInParts()), inputs, tmp_path)
    rollouts = ready.sample(ready._prompts[:2], 7)
    assert torch.equal(rollouts.sequence("reward_tea"), 2 * rollouts.sequence("reward"))
    means = summary(rollouts)
    assert means["reward_tea"] == pytest.approx(2 * means["reward"]) and means["reward_letters"] > 0
    assert {"reward_tea", "reward_letters"} <= ready.validate_now().keys()
    assert from_state(as_state(rollouts)).per_sequence.keys() == rollouts.per_sequence.keys()


def test_the_variance_of_a_groups_rewards_is_logged_by_hand() -> None:
    """Groups of 3, 2 and 1: (0, 1, 2) has the unbiased variance 1, (0, 4) has 8; one answer alone has none."""
    rollouts = RolloutBatch.of([[1, 2]] * 6, [[False, True]] * 6).with_sequences(
        reward=torch.tensor([0.0, 1.0, 2.0, 0.0, 4.0, 9.0]),
        group=torch.tensor([0, 0, 0, 1, 1, 2]),
        finished=torch.ones(6),
    )
    # By answer: squares (1, 0, 1) times 3 / 2, and (4, 4) times 2.
    assert summary(rollouts)["group_variance"] == pytest.approx((1.5 + 0 + 1.5 + 8 + 8) / 5)
    assert "group_variance" not in summary(rollouts.select_units([0, 3, 5]))


def test_a_process_without_prompts_has_the_parts_too(
    inputs: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its batch could not be joined to the others'."""
    ready = prepared(gradient_stage(reward=TeaInParts()), inputs, tmp_path)
    assert ready.sample([], 7).sequence("reward_tea").shape == (0,)


def test_pairs_and_rollouts_come_back_from_a_checkpoint_as_they_were(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    ready = prepared(gradient_stage(objective=GRPO(), advantage=GroupRelative()), inputs, tmp_path)
    ready.batch_at(0)
    rollouts: Any = ready._buffer
    pairs = rollouts.as_pairs([(0, 1), (5, 3)], torch.tensor([1.0, 0.0]))
    for batch in (rollouts, pairs.with_units(margin=torch.tensor([0.5, 2.0]))):
        torch.save(as_state(batch), tmp_path / "state.pt")
        back: Any = from_state(torch.load(tmp_path / "state.pt", weights_only=True))
        assert type(back) is type(batch) and back.names == batch.names and back.temperature == 0.6
        for extras in ("per_token", "per_sequence", "per_unit"):
            one, other = getattr(back, extras), getattr(batch, extras)
            assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
        assert torch.equal(back.tokens, batch.tokens) and torch.equal(back.weight, batch.weight)


def test_what_a_method_samples_itself_is_trained_on(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    """A second round: each answer is continued once more after the first one's words."""

    class TwoRounds(Winners):
        """Samples again from where the first answer ended."""

        VERSION: ClassVar[str] = "1"

        def sample(self, prompts: Sequence[Prompt], seed: int) -> RolloutBatch:
            asked = [p for p in prompts for _ in range(self.samples_per_prompt)]
            first = generate(self.policy, asked, self.sampling, seed)
            second = generate(self.policy, [[*s.prompt_ids, *s.answer_ids] for s in first], self.sampling, seed + 1)
            rollouts = rollout_batch(second, self.samples_per_prompt, self.sampling.temperature)
            return rollouts.with_sequences(reward=torch.arange(len(second)).float())

    stage = winners(TwoRounds, loop_steps=2, sampling_max_new_tokens=3)
    _, seen = run(stage, inputs, tmp_path)
    assert seen.values("train/reward") == [5.5]
    buffer: Any = stage._buffer
    assert buffer.weight.tolist() == [0.0, 0.0, 1.0] * 4
    assert int((~buffer.response_mask).sum()) > 12 * 8, "the first round's words are the prompt of the second"


def test_a_method_of_a_few_lines_learns_what_it_is_rewarded_for(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    learner = winners(
        loop_steps=14, loop_batch_size=24, loop_validate_every=14, prompts_per_rollout=6, samples_per_prompt=4,
        sampling_temperature=1.0, lr=1e-2,
    )  # fmt: skip
    metrics, seen = run(learner, inputs, tmp_path)
    rewards = seen.values("train/reward")
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.5
    assert metrics["validation_reward"] > metrics["validation_reference_reward"] + 0.5


# ---- what a method may not return -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda r: r.select_units(range(5)), "12 units .its units_per_rollout., got a RolloutBatch of 5; give units"),
        (lambda r: r.as_pairs([(0, 1)] * 6), "12 units .its units_per_rollout., got a PreferenceBatch of 6"),
        (lambda r: None, "12 units .its units_per_rollout., got a NoneType of 0"),
    ],
)
def test_a_batch_of_another_size_is_refused_by_name(
    returned: Any, message: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    class Wrong(Winners):
        """Returns something else."""

        VERSION: ClassVar[str] = "1"

        def train_on(self, rollouts: RolloutBatch, step: int) -> RolloutBatch:
            found: RolloutBatch = returned(rollouts)
            return found

    ready = prepared(winners(Wrong), inputs, tmp_path)
    with pytest.raises(ValueError, match=rf"Wrong: train_on\(\) must return a batch of {message}"):
        ready.batch_at(0)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda r: r.sequence("reward"), "Odd: must return the rollout batch with its advantages, got a Tensor"),
        (lambda r: r, r"Odd: must return the same tokens with the extra `advantage`: rollouts\.with_tokens"),
        (
            lambda r: r.select_units([0]).with_tokens(advantage=torch.zeros(1)),
            "advantage must have one entry per token",
        ),
        (lambda r: with_advantage(r).select_units([0, 1]), "Odd: must return the same tokens with the extra"),
        (lambda r: with_advantage(r, float("nan")), r"Odd: \d+ of its advantages are not finite numbers"),
        (lambda r: with_advantage(r, float("inf")), r"Odd: \d+ of its advantages are not finite numbers"),
    ],
)
def test_an_advantage_that_returns_something_else_is_refused_by_name(
    returned: Any, message: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    class Odd(Advantage):
        """Returns what it is told."""

        VERSION: ClassVar[str] = "1"

        def __call__(self, rollouts: RolloutBatch) -> RolloutBatch:
            found: RolloutBatch = returned(rollouts)
            return found

    ready = prepared(gradient_stage(advantage=Odd()), inputs, tmp_path)
    with pytest.raises(ValueError, match=message):
        ready.batch_at(0)


def with_advantage(rollouts: RolloutBatch, value: float = 1.0) -> RolloutBatch:
    return rollouts.with_tokens(advantage=torch.full((rollouts.num_tokens,), value))


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda n: [1.0] * n, ValueError, r"Odd: score\(\) must return a floating-point tensor, got a list; use torch"),
        (lambda n: torch.ones(n).long(), ValueError, r"Odd: score\(\) must return .*, got a tensor of torch\.int64"),
        (lambda n: torch.ones(n - 1), ValueError, r"Odd: score\(\) got 12 answers and returned shape \(11,\)"),
        (lambda n: torch.ones(n, 1), ValueError, r"Odd: score\(\) got 12 answers and returned shape \(12, 1\)"),
        (lambda n: torch.full((n,), float("nan")), NonFiniteError, "Odd: scored nan for the answer .* must be finite"),
        (lambda n: torch.full((n,), -float("inf")), NonFiniteError, "Odd: scored -inf for the answer"),
    ],
)
def test_a_reward_that_returns_something_else_is_refused_by_name(
    returned: Any, error: Any, message: str, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    class Odd(RewardSource):
        """Scores as it is told."""

        VERSION: ClassVar[str] = "1"

        def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
            found: Tensor = returned(len(answers))
            return found

    ready = prepared(winners(reward=Odd()), inputs, tmp_path)
    with pytest.raises(error, match=message):
        ready.batch_at(0)


# ---- what is refused before anything is loaded ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": DPO()}, "DPO takes a PreferenceBatch, but PolicyGradientStage trains on a RolloutBatch"),
        (
            {"advantage": GroupRelative(), "samples_per_prompt": 1, "loop_batch_size": 4},
            "samples_per_prompt must be >= 2",
        ),
        ({"loop_batch_size": 5}, r"loop\.batch_size must divide the 12 units of a buffer .* got 5"),
        ({"sampling_temperature": 0.0}, r"sampling\.temperature must be > 0, got 0"),
        ({"sampling_top_p": 0.9}, r"sampling\.top_p must be 1 and sampling\.top_k 0, got 0\.9 and 0"),
        ({"epochs": 0}, "epochs must be >= 1, got 0"),
        ({"validation_prompts": 0}, "validation_prompts must be >= 1, got 0"),
    ],
)
def test_arguments_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradient_stage(**changes)


def test_objectives_and_advantages_that_read_what_no_rollout_carries_are_refused() -> None:
    @dataclass(frozen=True)
    class ReadsValues(Reinforce):
        """Reads a critic's forecasts."""

        VERSION: ClassVar[str] = "1"
        reads: ClassVar[frozenset[str]] = frozenset({"advantage", "old_value"})

    class Judged(GroupRelative):
        """Reads what a judge said."""

        VERSION: ClassVar[str] = "1"
        reads: ClassVar[frozenset[str]] = frozenset({"reward", "verdict"})

    with pytest.raises(ValueError, match="ReadsValues reads old_value, but the batches of PolicyGradientStage carry"):
        gradient_stage(objective=ReadsValues())
    with pytest.raises(
        ValueError, match="Judged reads verdict, but the rollouts of PolicyGradientStage carry finished,"
    ):
        gradient_stage(advantage=Judged())
    with pytest.raises(
        ValueError, match="Reinforce reads advantage, but the batches of Winners carry finished, group,"
    ):
        winners(objective=Reinforce())

    class ByAJudge(PolicyGradientStage):
        """Carries it."""

        VERSION: ClassVar[str] = "1"
        PROVIDES: ClassVar[frozenset[str]] = PolicyGradientStage.PROVIDES | {"verdict"}

    assert online(ByAJudge, objective=Reinforce(), advantage=Judged()).reads() == {"advantage", "reward", "verdict"}


def test_nothing_to_score_by_is_refused(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    alone = winners(reward=None)
    with pytest.raises(ValueError, match=r"Winners: nothing scores the answers; set inputs\.reward to a reward model"):
        alone.check_inputs(frozenset({"policy"}))
    with pytest.raises(ValueError, match="Winners: nothing scores the answers"):
        run(alone, inputs, tmp_path)
    alone.check_inputs(frozenset({"policy", "reward"}))
    winners().check_inputs(frozenset({"policy"}))


def test_also_when_the_run_is_planned(inputs: dict[str, Artifact]) -> None:
    node = {
        "_target_": "alignlab.training.PolicyGradientStage",
        "inputs": {"policy": str(inputs["policy"].path)},
        "data": {"_target_": "alignlab.data.world.World"},
        "objective": {"_target_": "alignlab_grpo.GRPO"},
        "advantage": {"_target_": "alignlab_grpo.GroupRelative"},
        "optimizer": {"_target_": "alignlab.training.AdamW"},
        "sampling": {"_target_": "alignlab.policy.Sampling"},
        "loop": {"_target_": "alignlab.training.Loop", "steps": 1, "batch_size": 1},
    }
    with pytest.raises(ValueError, match=r"pipeline\.grpo: PolicyGradientStage: nothing scores the answers"):
        planned("grpo", node)
    with pytest.raises(
        ValueError, match=r"pipeline\.grpo.*GAE reads old_value, but the rollouts of PolicyGradientStage"
    ):
        planned("grpo", {**node, "advantage": {"_target_": "alignlab_ppo.GAE"}})


def test_a_reward_model_scores_where_no_source_is_given_and_a_source_goes_before_it(
    inputs: dict[str, Artifact], reward_model: Artifact, tmp_path: Path
) -> None:
    both = {**inputs, "reward": reward_model}
    learned = prepared(winners(reward=None), both, tmp_path / "a")
    own = prepared(winners(), both, tmp_path / "b")
    for ready, source in ((learned, "LearnedReward"), (own, "Tea")):
        assert ready.context.tracker.said[-1] == f"6 prompts, 3 held out, scored by {source}"
    one, other = (ready.sample(ready._prompts[:1], 0).sequence("reward") for ready in (learned, own))
    assert one.shape == other.shape == (3,) and not torch.equal(one, other)


def test_prompts_are_needed_in_both_splits(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    class TrainOnly(Questions):
        """Nothing held out."""

        def prompts(self, split: Split) -> Sequence[Prompt]:
            return super().prompts(split) if split == "train" else []

    with pytest.raises(DataError, match="Winners: TrainOnly has 6 prompts to train on and 0 held out; both are needed"):
        prepared(winners(data=TrainOnly()), inputs, tmp_path)


# ---- several processes ----------------------------------------------------------------------------------------------
@pytest.mark.slow  # each process imports everything; the conformance kit covers two ranks without them
def test_two_processes_learn_what_one_learns(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    """Groups, pairs and a baseline over the whole step; see `regimes_together.py`."""
    from regimes_together import METHODS, train

    run_together(Path(__file__).with_name("regimes_together.py"), inputs["policy"].path, tmp_path)
    for method in METHODS:
        alone = train(method, inputs["policy"].path, tmp_path / "alone" / method, processes=1)
        for rank in range(2):
            found = torch.load(tmp_path / f"{method}-{rank}.pt", weights_only=True)
            assert found.keys() == alone.keys()
            assert max(float((found[k] - alone[k]).abs().max()) for k in alone) < 1e-5
