"""What the stage on labelled answers feeds its objective: which answers, which labels, whose log-probabilities."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_kto import KTO
from regimes import Counted, Questions, adam, furthest, loop, prepared, run
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.batch import LabelledBatch
from alignlab.data import preferences
from alignlab.data.mismatched import answers_to_other_prompts
from alignlab.data.records import Labelled, Prompt
from alignlab.data.rows import order_at
from alignlab.data.source import DataSource, Split
from alignlab.errors import DataError, MissingDataError
from alignlab.objective import Loss, Objective
from alignlab.policy import Policy
from alignlab.stats import TokenStats
from alignlab.testing import tiny_policy_artifact, tiny_preferences_artifact
from alignlab.training import LabelledStage


@dataclass(frozen=True)
class Unlikelihood(Objective[LabelledBatch]):
    """Mean over labelled answers of their log-probability, good ones with a minus; reads no reference."""

    VERSION: ClassVar[str] = "1"
    reads: ClassVar[frozenset[str]] = frozenset({"desirable"})

    def __call__(self, stats: TokenStats, batch: LabelledBatch) -> Loss:
        likelihood = batch.answer(batch.mean_by_sequence(stats.logp))
        return self.loss(batch, loss=(1 - 2 * batch.desirable) * likelihood)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("labelled")
    return {
        "policy": tiny_policy_artifact(folder / "policy"),
        "preferences": tiny_preferences_artifact(folder / "preferences"),
        "reference": tiny_policy_artifact(folder / "reference", seed=9),
    }


def without(inputs: dict[str, Artifact], *names: str) -> dict[str, Artifact]:
    return {k: v for k, v in inputs.items() if k not in names}


def stage_of(objective: Objective[LabelledBatch] | None = None, **changes: Any) -> LabelledStage:
    own = {k: changes.pop(k) for k in list(changes) if k in ("steps", "batch_size", "micro_batch_tokens")}
    optimizer = adam(changes.pop("lr", 3e-3))
    return LabelledStage(objective=objective or KTO(), optimizer=optimizer, loop=loop(**own), seed=3, **changes)


def texts(stage: LabelledStage, batch: LabelledBatch) -> list[tuple[str, str]]:
    """Prompt and answer of each sequence, read back from its tokens."""
    found = []
    for s in range(batch.num_sequences):
        of = batch.sequence_id == s
        asked, answer = batch.tokens[of & ~batch.response_mask], batch.tokens[of & batch.response_mask]
        assert int(answer[-1]) in stage.policy.stop_ids
        decode = stage.policy.tokenizer.decode
        question = str(decode(asked, skip_special_tokens=True)).strip()
        found.append((question, str(decode(answer[:-1])).strip()))
    return found


# ---- which answers --------------------------------------------------------------------------------------------------
def test_both_sides_of_a_pair_become_answers_the_chosen_one_good(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    stage = prepared(stage_of(Unlikelihood()), without(inputs, "reference"), tmp_path)
    pairs = preferences.read(inputs["preferences"], "train")
    wanted = [(p, side) for p in pairs for side in ("chosen", "rejected")]
    for step in range(6):
        batch, picked = stage.batch_at(step), [wanted[i] for i in order_at(step, 16, 6, 3)]
        assert batch.num_sequences == batch.num_units == 6
        assert batch.desirable.tolist() == [float(side == "chosen") for _, side in picked]
        assert [answer for _, answer in texts(stage, batch)] == [getattr(p, side) for p, side in picked]
        assert batch.names == tuple(f"{p.source} ({side})" for p, side in picked)
    held_out = preferences.read(inputs["preferences"], "validation")
    (batch, last) = stage.validation_batches()
    names = [f"{p.source} ({side})" for p in held_out for side in ("chosen", "rejected")]
    assert [*batch.names, *last.names] == names


def test_without_preferences_the_answers_are_the_datas_own(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    stage = stage_of(Unlikelihood(), data=Questions())
    prepared(stage, without(inputs, "reference", "preferences"), tmp_path)
    records = Questions().labelled("train")
    picked = [records[i] for i in order_at(0, len(records), 6, 3)]
    batch = stage.batch_at(0)
    assert batch.desirable.tolist() == [float(r.good) for r in picked]
    assert [answer for _, answer in texts(stage, batch)] == [r.answer for r in picked]
    assert batch.names == tuple(r.source for r in picked)
    assert {name for b in stage.validation_batches() for name in b.names} == {f"validation {n}" for n in range(3)}


def test_where_both_are_given_the_preferences_count(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    stage = prepared(stage_of(Unlikelihood(), data=Questions()), without(inputs, "reference"), tmp_path)
    assert all(name.startswith("preferences.jsonl") for name in stage.batch_at(0).names)


def test_what_is_cut_is_counted_for_answers_not_for_the_baselines_sequences(
    tmp_path: Path, inputs: dict[str, Artifact]
) -> None:
    stage = prepared(stage_of(KTO(), max_length=10), without(inputs, "reference"), tmp_path)
    said = stage.context.tracker.said  # type: ignore[attr-defined]
    assert "16 labelled answers to learn from, 8 held out" in said
    # Every rejected answer of these pairs is longer than its chosen one.
    assert "of 24 labelled answers: 12 cut short at 10 tokens" in said


class OneTooLong(Questions):
    """Three answers, of which one is to a prompt that fills all of the room."""

    def labelled(self, split: Split) -> list[Labelled]:
        return labelled(("tea ?", "yes", True), ("tea " * 9, "not", False), ("rain ?", "yes", True))


def test_an_answer_that_is_wholly_cut_away_stops_it_or_is_counted(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    given = without(inputs, "reference", "preferences")
    with pytest.raises(DataError, match="labelled answer 1: the whole answer is cut away"):
        prepared(stage_of(max_length=9, data=OneTooLong()), given, tmp_path)
    stage = prepared(stage_of(max_length=9, data=OneTooLong(), on_bad_record="skip"), given, tmp_path)
    assert "2 labelled answers to learn from, 2 held out" in stage.context.tracker.said  # type: ignore[attr-defined]
    assert [name for name in stage.batch_at(0).names if "another" not in name].count("labelled answer 1") == 0


# ---- answers to other prompts ---------------------------------------------------------------------------------------
def test_each_prompt_also_comes_with_the_answer_to_another_one(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    stage = prepared(stage_of(KTO(), data=Questions()), without(inputs, "preferences", "reference"), tmp_path)
    answers_to = {r.prompt.text: {x.answer for x in Questions().labelled("train") if x.prompt == r.prompt}
                  for r in Questions().labelled("train")}  # fmt: skip
    for step in range(6):
        batch = stage.batch_at(step)
        assert batch.num_units == 6 and batch.num_sequences == 12
        assert batch.rank().tolist() == [0, 1] * 6
        told = texts(stage, batch)
        for own, other in zip(told[0::2], told[1::2], strict=True):
            assert own[0] == other[0]
            assert own[1] in answers_to[next(k for k in answers_to if k in own[0])]
        assert all(name.endswith("(with the answer to another prompt)") for name in batch.names[1::2])


def labelled(*records: tuple[str, str, bool]) -> list[Labelled]:
    return [Labelled(Prompt.user(p), a, good) for p, a, good in records]


def test_it_is_that_of_the_next_different_prompt_with_the_same_label() -> None:
    pairs = labelled(("a", "a+", True), ("a", "a-", False), ("b", "b+", True), ("b", "b-", False), ("c", "c+", True))
    assert answers_to_other_prompts(pairs) == ["b+", "b-", "c+", "a-", "a+"]
    several = labelled(("a", "1", True), ("a", "2", True), ("b", "3", True), ("a", "4", True), ("b", "5", True))
    assert answers_to_other_prompts(several) == ["3", "3", "4", "5", "1"]


def test_without_one_of_the_same_label_another_label_does() -> None:
    assert answers_to_other_prompts(labelled(("a", "a+", True), ("b", "b-", False))) == ["b-", "a+"]
    lone = labelled(("a", "1", True), ("a", "2", False), ("b", "3", True))
    assert answers_to_other_prompts(lone) == ["3", "3", "1"]


def test_many_answers_to_one_prompt_are_passed_over_once() -> None:
    """Not a search per record: 2,000 records with one different prompt at the end."""
    records = labelled(*[("a", str(n), n % 2 == 0) for n in range(2000)], ("b", "other", True))
    seen = 0

    class Prompted(Prompt):
        def __eq__(self, other: object) -> bool:
            nonlocal seen
            seen += 1
            return self.messages == other.messages  # type: ignore[attr-defined]

        __hash__ = None  # type: ignore[assignment]

    counted = [Labelled(Prompted(r.prompt.messages), r.answer, r.good) for r in records]
    assert set(answers_to_other_prompts(counted)[:-1]) == {"other"}
    assert seen <= 6 * len(records)


def test_held_out_answers_to_one_prompt_borrow_from_the_training_split() -> None:
    held_out = labelled(("a", "1", True), ("a", "2", False))
    assert answers_to_other_prompts(held_out, labelled(("a", "3", True), ("b", "4", True))) == ["4", "4"]
    with pytest.raises(DataError, match="all 2 labelled answers are to one prompt"):
        answers_to_other_prompts(held_out, labelled(("a", "3", True)))


def test_answers_to_one_prompt_alone_are_an_error(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    class OnePrompt(Questions):
        """Three answers to one question."""

        def labelled(self, split: Split) -> list[Labelled]:
            return labelled(("tea ?", "yes", True), ("tea ?", "not", False), ("tea ?", "tea", True))

    given = without(inputs, "preferences", "reference")
    with pytest.raises(
        DataError, match=r"all 3 labelled answers are to one prompt, .* add other prompts, or choose an"
    ):
        prepared(stage_of(KTO(), data=OnePrompt()), given, tmp_path)
    prepared(stage_of(Unlikelihood(), data=OnePrompt()), given, tmp_path)


# ---- the reference --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("given", ["policy", "reference"])
def test_every_step_carries_the_references_log_probabilities(
    given: str, tmp_path: Path, inputs: dict[str, Artifact]
) -> None:
    stage = stage_of(KTO(), micro_batch_tokens=40)
    prepared(stage, inputs if given == "reference" else without(inputs, "reference"), tmp_path)
    for batch in [stage.batch_at(0), stage.batch_at(5), *stage.validation_batches()]:
        expected = logp_of(inputs[given], batch)
        assert torch.allclose(batch.reference_logp, expected, atol=1e-5)


@torch.no_grad()
def logp_of(artifact: Artifact, batch: LabelledBatch) -> Tensor:
    return Policy.load(artifact).token_stats(batch, frozenset({"logp"})).logp


def test_a_reference_is_loaded_and_asked_only_where_it_is_read(
    tmp_path: Path, inputs: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    prepared(stage_of(Unlikelihood()), without(inputs, "reference"), tmp_path / "a")
    assert (counted.loads, counted.measured) == (1, [])
    prepared(stage_of(KTO()), without(inputs, "reference"), tmp_path / "b")
    assert counted.loads == 2, "the policy as it was is its own reference"
    assert sum(counted.measured) == 2 * (16 + 8), "each answer and its mismatched one, once"
    prepared(stage_of(KTO()), inputs, tmp_path / "c")
    assert counted.loads == 4


# ---- learning -------------------------------------------------------------------------------------------------------
def test_the_first_loss_is_half_of_each_weight(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    kto = KTO(desirable_weight=1.5, undesirable_weight=0.5)
    _, seen = run(stage_of(kto, batch_size=16), without(inputs, "reference"), tmp_path)
    assert seen.values("train/loss")[0] == pytest.approx((1.5 + 0.5) / 2 / 2, abs=1e-6)
    assert seen.values("train/baseline")[0] == pytest.approx(0.0, abs=1e-5)


def test_good_answers_to_held_out_prompts_become_likelier_and_bad_ones_less(
    tmp_path: Path, inputs: dict[str, Artifact]
) -> None:
    metrics, _ = run(stage_of(KTO(0.3), steps=25, batch_size=8), without(inputs, "reference"), tmp_path)
    assert metrics["validation_desirable_log_ratio"] > metrics["validation_undesirable_log_ratio"] + 1
    assert metrics["validation_loss"] < 0.45


def test_the_memory_budget_does_not_change_what_is_learnt(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    """The baseline runs over the whole step: in micro-batches of one unit it would be each unit's own."""
    stages = [stage_of(KTO(0.5), steps=3, micro_batch_tokens=budget) for budget in (1, 10_000)]
    for number, stage in enumerate(stages):
        run(stage, without(inputs, "reference"), tmp_path / str(number))
    assert furthest(*stages) < 1e-5


# ---- what it refuses ------------------------------------------------------------------------------------------------
def test_nothing_to_learn_from_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match=r"LabelledStage: there are no labelled answers; set data to a source"):
        stage_of().check_inputs(frozenset({"policy"}))
    stage_of().check_inputs(frozenset({"policy", "preferences"}))
    stage_of(data=Questions()).check_inputs(frozenset({"policy"}))


def test_data_without_labels_is_an_error_that_names_the_key(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    class Unlabelled(DataSource):
        """Nothing."""

        VERSION: ClassVar[str] = "1"

    with pytest.raises(MissingDataError, match=r"Unlabelled has no labelled answers; set data\.labelled to a file"):
        prepared(stage_of(data=Unlabelled()), without(inputs, "preferences", "reference"), tmp_path)


def test_a_reference_that_nobody_reads_is_refused() -> None:
    with pytest.raises(ValueError, match=r"LabelledStage: Unlikelihood does not use inputs\.reference; remove it"):
        stage_of(Unlikelihood()).check_inputs(frozenset({"policy", "preferences", "reference"}))
