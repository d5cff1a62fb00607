"""The answer loss against its closed form; what the stage trains on."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from alignlab_sft import SFT, AnswerNLL

from alignlab.artifact import Artifact
from alignlab.batch import TokenBatch
from alignlab.data import answers
from alignlab.data.records import Document, Example, Prompt
from alignlab.data.source import DataSource, Split
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.policy import Llama, Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.stats import TokenStats
from alignlab.testing import KillingTracker
from alignlab.training import AdamW, Loop


def test_only_answer_tokens_count_and_each_counts_the_same() -> None:
    batch = TokenBatch.of([[1, 2, 3, 4], [1, 2]], [[False, False, True, True], [False, True]])
    stats = TokenStats({"logp": torch.tensor([-100.0, -100.0, -1.0, -2.0, -100.0, -6.0])})
    objective = AnswerNLL()
    assert float(objective(stats, batch).mean(objective.units(batch))) == pytest.approx((1 + 2 + 6) / 3)


class Tiny(DataSource):
    """Two answers and a document."""

    VERSION: ClassVar[str] = "1"

    def documents(self, split: Split) -> list[Document]:
        return [Document("x y z")]

    def instructions(self, split: Split) -> list[Example]:
        return [Example(Prompt.user("a"), "b"), Example(Prompt.user("c"), "d d")]


def prepared(tmp_path: Path, **more: Any) -> SFT:
    words = TrainTokenizer("word", 50).train(["a b c d x y z"])
    Policy(Llama(layers=1, width=8, heads=1, feedforward=8, context=16).build(words, 0), words).save(tmp_path)
    stage = SFT(data=Tiny(), objective=AnswerNLL(), optimizer=AdamW(), loop=Loop(10, 2), **more)
    stage.prepare({"policy": Artifact.open(tmp_path)}, StageContext("sft", tmp_path, tmp_path, Runtime("cpu")))
    return stage


def test_the_answer_and_its_stop_token_are_scored_and_nothing_else(tmp_path: Path) -> None:
    stage = prepared(tmp_path)
    batch = stage.batch_at(0)
    words = stage.policy.tokenizer
    scored = words.decode(batch.tokens[batch.response_mask])
    assert sorted(scored.replace("<eos>", "").split()) == ["b", "d", "d"]
    assert scored.count("<eos>") == 2


def test_train_on_prompts_scores_all_but_the_first_token_and_leaves_validation_as_it_is(
    tmp_path: Path,
) -> None:
    (tmp_path / "masked").mkdir()
    masked, stage = prepared(tmp_path / "masked"), prepared(tmp_path, train_on_prompts=True)
    tokens, mask = stage.batch_at(0).tokens, stage.batch_at(0).response_mask
    first = tokens == stage.policy.tokenizer.bos_token_id
    assert int(first.sum()) == 2 and torch.equal(mask, ~first)
    assert "<user>" in stage.policy.tokenizer.decode(tokens[mask])
    assert torch.equal(tokens, masked.batch_at(0).tokens)
    assert [r.mask for r in stage.held_out_units] == [r.mask for r in masked.held_out_units]


def test_answers_of_another_stage_take_the_place_of_the_datas(tmp_path: Path) -> None:
    policy = prepared(tmp_path).policy
    (tmp_path / "answers").mkdir()
    rows = [answers.row(Example(Prompt.user("a"), "c c"), split) for split in ("train", "validation")]
    answers.write(tmp_path / "answers", rows)
    stage = SFT(objective=AnswerNLL(), optimizer=AdamW(), loop=Loop(1, 1), inputs={"answers": "best"})
    given = {"policy": Artifact.open(tmp_path), "answers": Artifact.open(tmp_path / "answers")}
    stage.check_inputs(frozenset(given))
    assert not stage.data_needs()
    stage.prepare(given, StageContext("sft", tmp_path, tmp_path, Runtime("cpu")))
    batch = stage.batch_at(0)
    assert policy.tokenizer.decode(batch.tokens[batch.response_mask]).split() == ["c", "c", "<eos>"]


def test_a_stage_with_nothing_to_learn_from_is_refused() -> None:
    stage = SFT(objective=AnswerNLL(), optimizer=AdamW(), loop=Loop(1, 1))
    with pytest.raises(ValueError, match="SFT: there is nothing to learn from; set data to a source of instructions"):
        stage.check_inputs(frozenset({"policy"}))
    with pytest.raises(ValueError, match=r"SFT: replay is 0.1, but there are no documents; set documents or data"):
        SFT(objective=AnswerNLL(), optimizer=AdamW(), loop=Loop(1, 1), replay=0.1)


@pytest.mark.slow
def test_replay_takes_its_share_of_steps(tmp_path: Path) -> None:
    stage = prepared(tmp_path, replay=0.3)
    x = stage.policy.tokenizer.convert_tokens_to_ids("x")
    replayed = [x in stage.batch_at(step).tokens.tolist() for step in range(1000)]
    assert sum(replayed) / 1000 == pytest.approx(0.3, abs=0.05)
    assert not any(x in prepared(tmp_path).batch_at(step).tokens.tolist() for step in range(100))


def test_a_share_of_one_or_more_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"SFT: replay must be in \[0, 1\), got 1.0"):
        prepared(tmp_path, replay=1.0)


class TwoSplits(Tiny):
    """Other words to learn from than to be validated on."""

    def instructions(self, split: Split) -> list[Example]:
        return [Example(Prompt.user("a"), "b b b b b b" if split == "train" else "d")] * (3 if split == "train" else 2)


def in_splits(tmp_path: Path, **more: Any) -> tuple[SFT, KillingTracker]:
    words = TrainTokenizer("word", 50).train(["a b c d x y z"])
    Policy(Llama(layers=1, width=8, heads=1, feedforward=8, context=16).build(words, 0), words).save(tmp_path)
    tracker = KillingTracker()
    stage = SFT(data=TwoSplits(), objective=AnswerNLL(), optimizer=AdamW(), loop=Loop(10, 2), **more)
    stage.prepare({"policy": Artifact.open(tmp_path)}, StageContext("sft", tmp_path, tmp_path, Runtime("cpu"), tracker))
    return stage, tracker


def test_it_learns_from_the_one_split_and_is_validated_on_the_other(tmp_path: Path) -> None:
    stage, tracker = in_splits(tmp_path)

    def words(batch: TokenBatch) -> set[str]:
        return set(stage.policy.tokenizer.decode(batch.tokens[batch.response_mask]).split()) - {"<eos>"}

    assert [words(stage.batch_at(k)) for k in range(3)] == [{"b"}] * 3
    assert [words(batch) for batch in stage.validation_batches()] == [{"d"}]
    assert tracker.reports == ["3 answers to learn from, 2 held out"]


def test_what_is_cut_is_said(tmp_path: Path) -> None:
    """A prompt is 4 tokens, the long answer and its stop token 7."""
    stage, tracker = in_splits(tmp_path, max_length=8)
    assert tracker.reports[-1] == "of 5 instructions: 3 cut short at 8 tokens"
    assert stage.batch_at(0).lengths().tolist() == [8, 8]


class Book(DataSource):
    """One document, and no instruction."""

    VERSION: ClassVar[str] = "1"

    def documents(self, split: Split) -> list[Document]:
        return [Document("d d d d")]


def test_documents_of_another_source_are_replayed(tmp_path: Path) -> None:
    stage = prepared(tmp_path, replay=0.9, documents=Book())
    replayed = [k for k in range(20) if stage._replays(k)]
    assert replayed
    texts = {stage.policy.tokenizer.decode(stage.batch_at(k).tokens, skip_special_tokens=True) for k in replayed}
    assert {word for text in texts for word in text.split()} == {"d"}
    assert [type(source) for source, need in stage.data_needs() if need.records == "documents"] == [Book]
