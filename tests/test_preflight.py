"""What cannot be used is found before anything trains, all of it in one message."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alignlab.data.files import Files
from alignlab.data.preflight import check_data, check_settings
from alignlab.data.records import Example, Prompt
from alignlab.data.source import DataSource, Need, Split
from alignlab.data.world import World
from alignlab.errors import DataError, MissingDataError


def write(path: Path, *records: Any) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return str(path)


def answered(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"question": f"What is {i}?", "answer": "A number."} for i in range(start, start + count)]


def paired(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"prompt": f"What is {i}?", "chosen": "A number.", "rejected": "No."} for i in range(start, start + count)]


# ---- settings: nothing is read -----------------------------------------------------------------------------------
def test_every_missing_file_is_named_once_with_the_stages_that_read_it(tmp_path: Path) -> None:
    files = Files(instructions=write(tmp_path / "a.jsonl", "not read"))
    needs: dict[str, Sequence[tuple[DataSource, Need]]] = {
        "preferences": [(files, Need("comparisons", held_out=True))],
        "pretrain": [(files, Need("documents"))],
        "sft": [(files, Need("instructions")), (files, Need("documents", why="replay=0.15"))],
        "ppo": [(files, Need("prompts", held_out=True))],
    }
    with pytest.raises(MissingDataError) as caught:
        check_settings(needs)
    assert str(caught.value) == (
        "data is missing; set data.preferences=FILE for preferences; data.corpus=FILE for pretrain, sft (replay=0.15)"
    )
    check_settings({"sft": needs["sft"][:1], "ppo": needs["ppo"]})
    with pytest.raises(
        MissingDataError, match=r"set data\.prompts=FILE or data\.instructions=FILE or data\.preferences=FILE for ppo"
    ):
        check_settings({"ppo": [(Files(), Need("prompts"))]})


def test_what_needs_a_held_out_part_is_named_where_there_cannot_be_one(tmp_path: Path) -> None:
    files = Files(
        instructions=write(tmp_path / "a.jsonl", *answered(3)),
        preferences=write(tmp_path / "b.jsonl", *paired(3)),
        validation_fraction=0.0,
    )
    with pytest.raises(MissingDataError, match=r"set data\.validation_fraction above 0 .* for preferences, ppo$"):
        check_data(
            {
                "preferences": [(files, Need("comparisons", held_out=True))],
                "sft": [(files, Need("instructions"))],
                "ppo": [(files, Need("prompts", held_out=True))],
            }
        )
    check_data({"sft": [(files, Need("instructions"))]})


# ---- data: everything that is wrong, in one message --------------------------------------------------------------
def test_bad_records_of_all_stages_are_in_one_message(tmp_path: Path) -> None:
    files = Files(
        corpus=write(tmp_path / "c.jsonl", {"text": 3}, {"text": "x"}, {"text": 4}),
        instructions=write(tmp_path / "a.jsonl", *answered(20), {"question": "x"}, {"question": "y"}, "{"),
        preferences=write(tmp_path / "b.jsonl", *paired(20), {"prompt": "x", "chosen": 1, "rejected": "y"}),
    )
    with pytest.raises(DataError) as caught:
        check_data(
            {
                "pretrain": [(files, Need("documents"))],
                "sft": [(files, Need("instructions"))],
                "preferences": [(files, Need("comparisons", held_out=True))],
                "ppo": [(files, Need("prompts"))],
            }
        )
    message = str(caught.value)
    for part in (
        "c.jsonl:1: field 'text' must be text, found a number: 3 (2 such, next: ",
        "a.jsonl:21: field 'answer' is missing (the record has question) (2 such, next: ",
        "a.jsonl:23: broken JSON",
        "b.jsonl:21: field 'chosen' must be text, found a number: 1",
    ):
        assert message.count(part) == 1, part


def test_skipping_leaves_them_out_and_an_empty_held_out_part_is_refused(tmp_path: Path) -> None:
    rows = [*answered(20), {"question": "x"}]
    files = Files(instructions=write(tmp_path / "a.jsonl", *rows), on_bad_record="skip")
    check_data({"sft": [(files, Need("instructions", held_out=True))]})

    class Unsplit(DataSource):
        VERSION = "1"

        def instructions(self, split: Split) -> Sequence[Example]:
            return [Example(Prompt.user("a"), "b")] if split == "train" else []

    with pytest.raises(DataError, match="Unsplit holds out no instructions"):
        check_data({"sft": [(Unsplit(), Need("instructions", held_out=True))]})
    check_data({"sft": [(Unsplit(), Need("instructions"))]})


def test_a_prompt_in_the_training_part_of_one_role_and_the_held_out_part_of_another_is_refused(tmp_path: Path) -> None:
    """So few pairs that none falls under the fraction: one is moved over, and is trained on as an instruction."""
    many = write(tmp_path / "a.jsonl", *answered(40))

    def needs(files: Files) -> dict[str, Sequence[tuple[DataSource, Need]]]:
        return {"sft": [(files, Need("instructions"))], "preferences": [(files, Need("comparisons"))]}

    found = set()
    for start in range(20):
        files = Files(instructions=many, preferences=write(tmp_path / f"{start}.jsonl", *paired(2, start)))
        parts = [(files.instructions(s), files.comparisons(s)) for s in ("train", "validation")]
        (learnt, pairs), (held, held_pairs) = [[{r.prompt for r in records} for records in part] for part in parts]
        twice = bool(learnt & held_pairs or pairs & held)
        found.add(twice)
        if twice:
            with pytest.raises(DataError, match=r"1 prompts are in the training \w+ and the held-out \w+ "):
                check_data(needs(files))
        else:
            check_data(needs(files))
    assert found == {True, False}, "both must come up"


def test_a_fact_that_no_file_has_is_refused(tmp_path: Path) -> None:
    files = Files(
        instructions=write(tmp_path / "a.jsonl", *answered(20)),
        preferences=write(tmp_path / "b.jsonl", *({**p, "level": 3} for p in paired(20))),
        facts=["level", "topic"],
    )
    with pytest.raises(DataError, match=r"data\.facts names topic, which no file of instructions, preferences has"):
        check_data({"a": [(files, Need("instructions")), (files, Need("comparisons"))]})
    with pytest.raises(DataError, match=r"data\.facts names level, topic, which no file of instructions has"):
        check_data({"a": [(files, Need("prompts"))]})


def test_the_embedded_world_meets_every_need() -> None:
    world = World(entities=4, unknown=2, training_documents=20, training_instructions=20)
    needs = [Need("documents", held_out=True), Need("instructions", held_out=True), Need("prompts")]
    check_data({"all": [(world, need) for need in needs]})
    assert not world.check(needs)


# ---- stages of one experiment ------------------------------------------------------------------------------------
def planned(pipeline: str, *overrides: str) -> list[Any]:
    from alignlab.cli.prepared import prepare
    from alignlab.config import compose

    with compose.session(given := [f"experiment={pipeline}", *overrides]) as hydra:
        return prepare(hydra.compose(given), given).steps


def files_for_all_roles(folder: Path) -> list[str]:
    pairs = [{**row, "margin": 0.5} for row in paired(30)[:-2]] + paired(2, 40)
    named = {
        "corpus": write(folder / "c.jsonl", *({"text": f"Line {i}."} for i in range(30))),
        "instructions": write(folder / "a.jsonl", *answered(30)),
        "preferences": write(folder / "b.jsonl", *pairs),
    }
    return [*(f"data.{role}={file}" for role, file in named.items()), f"store_dir={folder / 'store'}"]


def test_a_number_that_an_objective_reads_is_missed_before_anything_trains(tmp_path: Path) -> None:
    from alignlab.pipeline.preflight import check_records

    files = files_for_all_roles(tmp_path)
    check_records(planned("lifecycle_files", *files))
    with pytest.raises(DataError, match=r"2 comparisons lack margin, which is learnt \(first: .*b\.jsonl:"):
        check_records(planned("lifecycle_files", *files, "pipeline.reward_model.objective=margin_bradley_terry"))


def test_lengths_are_checked_once_for_all_stages_whose_policies_come_from_one(tmp_path: Path) -> None:
    from alignlab.pipeline.preflight import needs_of_policy

    steps = planned("lifecycle_files", *files_for_all_roles(tmp_path))
    later = [step for step in steps if step.name != "pretrain"]  # the base is in the store
    for found in (needs_of_policy("pretrain", steps), needs_of_policy("reward_model", later)):
        assert {need.records for _, need in found} >= {"instructions", "comparisons", "prompts"}
