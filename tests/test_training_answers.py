"""What the stage on given answers feeds its objective: which answers, what of them is scored, in which order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_sft import AnswerNLL
from regimes import Questions, adam, loop, prepared, run

from alignlab.artifact import Artifact
from alignlab.data.records import Example, Prompt
from alignlab.data.rows import order_at
from alignlab.data.source import DataSource, Split
from alignlab.errors import ConfigError, DataError, MissingDataError
from alignlab.policy import Policy
from alignlab.testing import tiny_policy_artifact
from alignlab.training import AnswerStage

SEED = 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return {"policy": tiny_policy_artifact(tmp_path_factory.mktemp("answers") / "policy")}


def stage(kind: type[AnswerStage] = AnswerStage, data: DataSource | None = None, **changes: Any) -> AnswerStage:
    max_length = changes.pop("max_length", None)
    own = {"steps": 4, "batch_size": 4, "validate_every": 4, **changes}
    return kind(
        data=data or Questions(), objective=AnswerNLL(), optimizer=adam(1e-2), loop=loop(**own), seed=SEED,
        max_length=max_length,
    )  # fmt: skip


def said(ready: AnswerStage) -> list[str]:
    return ready.context.tracker.said  # type: ignore[attr-defined, no-any-return]


# ---- which answers --------------------------------------------------------------------------------------------------
def test_each_step_has_the_answers_that_its_number_says(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ready = prepared(stage(), inputs, tmp_path)
    examples = Questions().instructions("train")
    for step in range(4):
        batch = ready.batch_at(step)
        assert batch.names == tuple(examples[i].source for i in order_at(step, 6, 4, SEED))
        assert batch.weight.tolist() == [1.0] * 4 and batch.temperature == 1.0
    assert "6 answers to learn from, 3 held out" in said(ready)


def test_the_answer_and_its_stop_token_are_scored_and_nothing_else(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ready = prepared(stage(), inputs, tmp_path)
    examples = {e.source: e for e in Questions().instructions("train")}
    batch, decode = ready.batch_at(0), ready.policy.tokenizer.decode
    for s, name in enumerate(batch.names):
        of = batch.sequence_id == s
        asked, answer = batch.tokens[of & ~batch.response_mask], batch.tokens[of & batch.response_mask]
        assert str(decode(answer[:-1])).strip() == examples[name].answer
        assert int(answer[-1]) in ready.policy.stop_ids
        assert examples[name].prompt.text in str(decode(asked))
        assert batch.response_mask[of].tolist() == [False] * len(asked) + [True] * len(answer)


def test_it_is_validated_on_the_held_out_answers_alone(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    ready = prepared(stage(batch_size=2), inputs, tmp_path)
    names = [batch.names for batch in ready.validation_batches()]
    assert names == [("validation 0", "validation 1"), ("validation 2",)]


def test_a_subclass_may_take_other_answers(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    class ShortAnswers(AnswerStage):
        """Learns from answers of one word."""

        VERSION: ClassVar[str] = "1"

        def examples(self, split: Split, inputs: Mapping[str, Artifact]) -> Sequence[Example]:
            return [e for e in super().examples(split, inputs) if " " not in e.answer]

    ready = prepared(stage(ShortAnswers), inputs, tmp_path)
    assert {name for step in range(4) for name in ready.batch_at(step).names} == {"train 0", "train 3"}


def test_without_held_out_answers_the_last_model_is_published(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    class NothingHeldOut(Questions):
        """Training answers only."""

        def instructions(self, split: Split) -> Sequence[Example]:
            return super().instructions(split) if split == "train" else []

    metrics, seen = run(stage(data=NothingHeldOut(), keep="best"), inputs, tmp_path)
    assert not any(name.startswith("validation") for name in metrics)
    assert "nothing is held out: there is no best model, the last one is published" in seen.said
    assert (tmp_path / "out" / "model.safetensors").is_file()


# ---- what does not fit ----------------------------------------------------------------------------------------------
class LongAndShort(Questions):
    """A prompt that leaves no room for its answer, an answer that is cut, and one that fits."""

    def instructions(self, split: Split) -> Sequence[Example]:
        return [
            Example(Prompt.user("tea " * 9), "yes"),
            Example(Prompt.user("tea ?"), "yes and yes and yes"),
            Example(Prompt.user("rain ?"), "not"),
        ]


def test_an_answer_that_is_wholly_cut_away_stops_it_and_names_the_record(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"example 0: the whole answer is cut away: .* max_length is 8 .2 such.; raise"):
        prepared(stage(data=LongAndShort(), max_length=8), inputs, tmp_path)


def test_or_is_left_out_and_counted_as_the_data_says(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    data = LongAndShort()
    data.on_bad_record = "skip"
    ready = prepared(stage(data=data, max_length=8), inputs, tmp_path)
    assert {name for step in range(4) for name in ready.batch_at(step).names} == {"example 1", "example 2"}
    (counted,) = (line for line in said(ready) if line.startswith("of 6 instructions"))
    assert counted.startswith("of 6 instructions: 2 cut short at 8 tokens, 2 skipped")
    assert max(ready.batch_at(0).lengths().tolist()) == 8


def test_a_length_that_cannot_work_is_refused(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="AnswerStage: max_length must be >= 2 or null, got 1"):
        stage(max_length=1)
    with pytest.raises(ConfigError, match="AnswerStage: max_length must be at most the model's context of 32, got 33"):
        prepared(stage(max_length=33), inputs, tmp_path)


def test_data_without_instructions_is_an_error_that_names_the_key(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    class Nothing(DataSource):
        """No records."""

        VERSION: ClassVar[str] = "1"

    with pytest.raises(MissingDataError, match=r"Nothing has no instructions; set data\.instructions to a file"):
        prepared(stage(data=Nothing()), inputs, tmp_path)


# ---- learning -------------------------------------------------------------------------------------------------------
def test_the_answers_become_likelier_and_are_shown_next_to_the_models_own(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    learner = stage(steps=15, validate_every=15)
    metrics, seen = run(learner, inputs, tmp_path)
    batch, needs = learner.batch_at(0), frozenset({"logp"})
    with torch.no_grad():
        before = batch.sum_by_sequence(Policy.load(inputs["policy"]).token_stats(batch, needs).logp)
        after = batch.sum_by_sequence(Policy.load(tmp_path / "out").token_stats(batch, needs).logp)
    assert bool((after > before + 1).all())
    assert metrics["validation_loss"] > 0 and len(seen.values("train/loss")) == 15
    held_out = Questions().instructions("validation")
    rows = list(learner.samples())
    assert [row["prompt"] for row in rows] == [e.prompt.text for e in held_out]
    assert [row["wanted"] for row in rows] == [e.answer for e in held_out]
