"""What the stage on rankings feeds its objective, from an artifact and from files; on two answers it is DPO."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_dpo import DPO, ChosenNLL, PlackettLuce
from regimes import adam, furthest, loop, prepared, run

from alignlab import Objective, PreferenceBatch, TokenStats, WeightedSum, Wrapped
from alignlab.artifact import RANKINGS, Artifact
from alignlab.data import preferences, rankings
from alignlab.data.files import Files
from alignlab.data.records import Comparison
from alignlab.data.rows import order_at
from alignlab.data.source import Split
from alignlab.errors import DataError
from alignlab.testing import tiny_policy_artifact, tiny_rankings_artifact
from alignlab.training import PreferenceStage, RankingStage

SPLITS: tuple[Split, ...] = ("train", "validation")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("rankings")
    return {
        "policy": tiny_policy_artifact(folder / "policy"),
        "rankings": tiny_rankings_artifact(folder / "rankings"),
    }


def stage_of(objective: Objective[PreferenceBatch] | None = None, **changes: Any) -> RankingStage:
    own = {k: changes.pop(k) for k in list(changes) if k in ("steps", "batch_size", "micro_batch_tokens")}
    arguments = {"inputs": {"rankings": "rank"}, **changes}
    return RankingStage(
        objective=objective or PlackettLuce(), optimizer=adam(3e-3), loop=loop(**own), seed=3, **arguments
    )


def texts(stage: RankingStage, batch: PreferenceBatch) -> list[list[str]]:
    """The answers of each unit, read back from their tokens."""
    found: list[list[str]] = [[] for _ in range(batch.num_units)]
    for s in range(batch.num_sequences):
        answer = batch.tokens[(batch.sequence_id == s) & batch.response_mask]
        assert int(answer[-1]) in stage.policy.stop_ids
        found[int(batch.unit[s])].append(str(stage.policy.tokenizer.decode(answer[:-1])).strip())
    return found


def test_each_ranking_is_a_unit_the_best_answer_first(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    stage = prepared(stage_of(), inputs, tmp_path)
    known = rankings.read(inputs["rankings"], "train")
    assert {len(r.answers) for r in known} == {2, 3, 4}
    for step in range(4):
        wanted = [list(known[i].answers) for i in order_at(step, len(known), 6, 3)]
        assert texts(stage, stage.batch_at(step)) == wanted


def test_on_rankings_of_two_it_is_dpo(tmp_path: Path) -> None:
    """The same pairs, as rankings and as preferences: one batch, one loss, one trained model."""
    policy, two = tiny_policy_artifact(tmp_path / "policy"), tiny_rankings_artifact(tmp_path / "two", longest=2)
    (tmp_path / "pairs").mkdir()
    pairs = [(Comparison(r.prompt, *r.answers), split) for split in SPLITS for r in rankings.read(two, split)]
    preferences.write(tmp_path / "pairs", [preferences.row(pair, split) for pair, split in pairs])
    on_pairs = PreferenceStage(objective=DPO(), optimizer=adam(3e-3), loop=loop(), seed=3)
    on_lists = stage_of()
    a, _ = run(on_pairs, {"policy": policy, "preferences": Artifact.open(tmp_path / "pairs")}, tmp_path / "a")
    b, _ = run(on_lists, {"policy": policy, "rankings": two}, tmp_path / "b")
    for step in range(3):
        one, other = on_pairs.batch_at(step), on_lists.batch_at(step)
        assert torch.equal(one.tokens, other.tokens) and torch.equal(one.unit, other.unit)
        assert torch.equal(one.reference_logp, other.reference_logp)
        stats = TokenStats({"logp": on_pairs.token_stats(one).logp.detach().double()})
        dpo, ranked = (float(objective(stats, one).terms["loss"]) for objective in (DPO(), PlackettLuce()))
        assert dpo == pytest.approx(ranked, rel=1e-12)
    assert a["validation_loss"] == pytest.approx(b["validation_loss"], abs=1e-6)
    assert furthest(on_pairs, on_lists) < 1e-5


def test_the_memory_budget_may_not_tear_a_list(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    one = prepared(stage_of(), inputs, tmp_path).batch_at(0)
    parts = one.micro_batches(1)
    assert [p.num_units for p in parts] == [1] * 6 and sum(p.num_sequences for p in parts) == one.num_sequences


# ---- objectives ------------------------------------------------------------------------------------------------------
def test_an_objective_on_pairs_is_refused_at_construction() -> None:
    for objective in (DPO(), WeightedSum({"a": PlackettLuce(), "b": DPO()}), Wrapped(DPO())):
        with pytest.raises(ValueError, match=r"RankingStage: .* takes pairs and no longer lists.*plackett_luce"):
            stage_of(objective)
    for objective in (WeightedSum({"a": PlackettLuce(), "b": ChosenNLL()}), Wrapped(PlackettLuce())):
        assert stage_of(objective).objective.lists


def test_something_must_bring_rankings() -> None:
    with pytest.raises(ValueError, match=r"there are no rankings; set data .*or inputs\.rankings"):
        stage_of(inputs={}).check_inputs(frozenset({"policy"}))


# ---- files -----------------------------------------------------------------------------------------------------------
def ranked_file(folder: Path, *more: Any) -> str:
    rows = [{"prompt": f"what does {n} like ?", "answers": ["tea", "rain", "i think not"]} for n in ("ana", "bo", "cy")]
    path = folder / "ranked.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*rows, *more]), encoding="utf-8")
    return str(path)


def test_rankings_are_read_from_files_and_trained_on(inputs: dict[str, Artifact], tmp_path: Path) -> None:
    data = Files(rankings=ranked_file(tmp_path), validation_fraction=0.4)
    stage = stage_of(data=data, inputs={}, batch_size=2, steps=2)
    (need,) = [need for source, need in stage.data_needs()]
    assert need.records == "rankings" and not data.check([need])
    metrics, _ = run(stage, {"policy": inputs["policy"]}, tmp_path)
    assert metrics["steps"] == 2 and 0 <= metrics["validation_accuracy"] <= 1
    assert texts(stage, stage.batch_at(0))[0] == ["tea", "rain", "i think not"]
    assert "rankings: " in data.notes()[0] and "as prompt_answers" in data.notes()[0]


BAD = {
    "one answer": (["tea"], "field 'answers' holds 1 answers; a ranking needs two or more"),
    "no answers": ([], "field 'answers' holds 0 answers"),
    "an answer twice": (["tea", "rain", "tea"], "ranks the answer 'tea' at two places"),
    "a text": ("tea", "must be a list of texts, the best first, found text"),
    "numbers": ([1, 2], "must be a list of texts, the best first, found a list"),
    "null": (None, "field 'answers' is null"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_ranking_is_one_clear_error_before_training(tmp_path: Path, name: str) -> None:
    answers, message = BAD[name]
    data = Files(rankings=ranked_file(tmp_path, {"prompt": "what ?", "answers": answers}))
    (problem,) = data.check([need for _, need in stage_of(data=data, inputs={}).data_needs()])
    assert "ranked.jsonl:4" in problem and message in problem and "data.on_bad_record=skip" in problem
    kept = Files(rankings=ranked_file(tmp_path, {"prompt": "what ?", "answers": answers}), on_bad_record="skip")
    assert len(kept.rankings("train")) + len(kept.rankings("validation")) == 3


def test_without_a_file_the_setting_is_named() -> None:
    data = Files()
    (need,) = [need for _, need in stage_of(data=data, inputs={}).data_needs()]
    assert data.unset(need) == "data.rankings=FILE"


# ---- artifacts -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": ["tea"]}, "found 1 answers, 1 of them different"),
        ({"answers": ["tea", "tea"]}, "found 2 answers, 1 of them different"),
        ({"answers": "tea"}, "answers must be a list of texts"),
        ({"split": "test"}, "split must be train or validation"),
    ],
)
def test_a_bad_line_of_an_artifact_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    artifact = tiny_rankings_artifact(tmp_path / "r")
    lines = (artifact.path / RANKINGS).read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), **change})
    (artifact.path / RANKINGS).write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"rankings\.jsonl:2: a ranking needs .*{message}"):
        rankings.read(artifact, "train")


def test_answers_that_are_the_same_once_cut_are_left_out_and_counted(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    data = Files(
        rankings=ranked_file(
            tmp_path, {"prompt": "what does ana think ?", "answers": ["tea tea tea tea", "tea tea tea"]}
        ),
        validation_fraction=0.0,
    )
    longest = max(len(r.tokens) for r in prepared(stage_of(), inputs, tmp_path / "a").units[0]) - 4
    stage = stage_of(data=data, inputs={}, max_length=longest)
    stage = prepared(stage, {"policy": inputs["policy"]}, tmp_path / "b")
    assert len(stage.units) == 3
    assert any("two answers are the same within" in line for line in stage.context.tracker.said)  # type: ignore[attr-defined]


def test_a_bare_folder_of_rankings_is_an_input(tmp_path: Path) -> None:
    assert tiny_rankings_artifact(tmp_path / "r").kind == "rankings"
