"""The lifecycle on a user's own files, end to end: a tiny model, two steps per stage."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alignlab.cli.app import main
from alignlab.cli.prepared import prepare
from alignlab.config import compose
from alignlab.data.preflight import check_data
from alignlab.pipeline.plan import Step

STAGES = ("pretrain", "sft", "reward_model", "dpo", "ppo")
SMALL = [
    "tracking=off",
    "runtime=cpu",
    "model.layers=1",
    "model.width=16",
    "model.heads=2",
    "model.feedforward=16",
    "model.context=64",
    "tokenizer.vocab_size=300",
    "data.document_characters=300",
    "data.validation_fraction=0.3",
    "pipeline.ppo.sampling.max_new_tokens=4",
    "pipeline.ppo.prompts_per_rollout=4",
    "pipeline.ppo.validation_prompts=4",
    "pipeline.ppo.loop.batch_size=4",
    *(f"pipeline.{stage}.loop.steps=2" for stage in STAGES),
    *(f"pipeline.evaluate_{s}.sampling.max_new_tokens=4" for s in ("pretrain", "sft", "dpo", "ppo")),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "corpus.txt").write_text("".join(f"Line {i} of it.\nMore of {i}.\n\n" for i in range(40)))
    answered = [{"instruction": f"Say {i}.", "output": f"{i}!"} for i in range(30)]
    (folder / "instructions.json").write_text(json.dumps(answered))
    for name, word in (("preferences", "No."), ("others", "Never.")):
        asked = [{"start": f"\n\nHuman: Say {i}.\n\nAssistant: "} for i in range(30)]
        pairs = [{"chosen": a["start"] + "Sure.", "rejected": a["start"] + word} for a in asked]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    return folder


def command(files: Path, preferences: str = "preferences") -> list[str]:
    named = {"corpus": "corpus.txt", "instructions": "instructions.json", "preferences": f"{preferences}.jsonl"}
    return ["experiment=lifecycle_files", *(f"data.{k}={files / v}" for k, v in named.items()), *SMALL]


@pytest.fixture(scope="module")
def run(files: Path) -> Path:
    folder = files / "run"
    with warnings_of_transformers() as said:
        assert main([*command(files), f"store_dir={files / 'store'}", f"hydra.run.dir={folder}"]) == 0
    (folder / "warnings.json").write_text(json.dumps(said))
    return folder


@contextmanager
def warnings_of_transformers() -> Iterator[list[str]]:
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger("transformers").removeHandler(handler)


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_every_stage_is_measured_on_what_was_held_out(run: Path) -> None:
    metrics = read(run / "metrics.json")
    for stage in ("pretrain", "sft", "dpo", "ppo"):
        for name in ("document_perplexity", "answer_loss", "finished", "answer_length", "preference_accuracy"):
            assert f"{stage}/{name}" in metrics
    assert 0 <= metrics["reward_model/accuracy"] <= 1
    assert metrics["preferences/pairs"] == 30
    assert read(run / "status.json")["status"] == "completed"
    assert (run / "report.html").stat().st_size > 0


def test_all_models_answer_the_same_prompts_side_by_side(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in rows} == {"instruction", "document"}
    assert all(set(row["answers"]) == {"pretrain", "sft", "dpo", "ppo"} for row in rows)


def test_the_models_load_with_transformers_alone(run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = read(run / "manifest.json")["stages"]["dpo"]["artifact"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "Say 3."}], return_tensors="pt", return_dict=True)
    logits = AutoModelForCausalLM.from_pretrained(folder)(**ids).logits
    assert logits.shape[-1] == len(tokenizer)


def test_nobody_is_warned_of_sequences_that_are_cut_to_the_context(files: Path, run: Path) -> None:
    """Documents here are longer than the context of 64 tokens, and are cut into windows."""
    assert not [text for text in read(run / "warnings.json") if "Token indices" in text]


# ---- what is found before anything trains ----------------------------------------------------------------------------
def refused(files: Path, capfd: pytest.CaptureFixture[str], name: str, *overrides: str, without: str = "") -> str:
    """What the command says where it refuses, and nothing has been made."""
    given = [o for o in command(files) if not (without and o.startswith(f"data.{without}="))]
    store = files / f"store-{name}"
    assert main([*given, *overrides, f"store_dir={store}", f"hydra.run.dir={files / name}"]) == 1
    assert not list(store.rglob("manifest.json"))
    complaint = capfd.readouterr().err
    assert "Traceback" not in complaint
    return complaint


def test_preferences_without_a_held_out_part_are_refused_at_once(
    files: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    complaint = refused(files, capfd, "unsplit", "data.validation_fraction=0")
    assert "data is missing; set data.validation_fraction above 0 (0.05 to 0.2 is usual) for " in complaint
    assert "preferences" in complaint


def test_all_bad_pairs_are_named_by_kind_with_their_count(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bad = [{"prompt": "a", "chosen": 3, "rejected": "c"}] * 3 + [{"prompt": "a", "chosen": "b"}]
    (files / "bad.jsonl").write_text("".join(json.dumps(r) + "\n" for r in bad))
    complaint = refused(files, capfd, "bad-pairs", f"data.preferences={files / 'bad.jsonl'}")
    assert "bad.jsonl:1: field 'chosen' must be text, found a number: 3 (3 such, next: " in complaint
    assert "bad.jsonl:4: field 'rejected' is missing" in complaint


def test_records_longer_than_the_context_are_named_before_pretraining(
    files: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The tokenizer that will be made is known only to pretraining, which asks for all stages after it."""
    long = [{"instruction": f"Say {i}. " + "Please. " * 90, "output": f"{i}!"} for i in range(4)]
    short = [{"instruction": f"Tell {i}.", "output": f"{i}!"} for i in range(20)]
    (files / "long.json").write_text(json.dumps(long + short))
    given = [*command(files), f"data.instructions={files / 'long.json'}", f"store_dir={files / 'store-long'}"]
    assert main([*given, f"hydra.run.dir={files / 'long'}"]) == 1
    made = [read(file)["kind"] for file in (files / "store-long").rglob("manifest.json")]
    complaint = capfd.readouterr().err
    assert made == ["preferences"]
    assert "the whole answer is cut away" in complaint and "(4 such, next: " in complaint


def test_without_pretraining_no_corpus_is_asked_for(files: Path, run: Path) -> None:
    """What is left runs from a model of one's own, on what it reads."""
    given = [
        o for o in command(files) if not o.startswith(("data.corpus", "pipeline.pretrain", "pipeline.evaluate_pre"))
    ]
    removed = ["~pipeline.pretrain", "~pipeline.evaluate_pretrain", "pipeline.sft.replay=0"]
    policy = read(run / "manifest.json")["stages"]["pretrain"]["artifact"]
    found = steps([*given, *removed, f"pipeline.sft.inputs.policy={policy}"])
    assert "pretrain" not in found and {"sft", "dpo", "ppo", "evaluate_sft"} <= found.keys()
    needs = {name: step.build().data_needs() for name, step in found.items()}
    check_data(needs)
    assert needs["preferences"]


def test_only_what_is_left_of_the_lifecycle_asks_for_files(files: Path) -> None:
    stages = ("preferences", "sft", "reward_model", "dpo", "ppo", "evaluate_sft", "evaluate_dpo", "evaluate_ppo")
    given = [o for o in command(files) if not o.startswith(("data.instructions", "data.preferences", "pipeline"))]
    found = steps([*given, "pipeline.pretrain.loop.steps=2", *(f"~pipeline.{name}" for name in stages)])
    assert found.keys() == {"pretrain", "evaluate_pretrain", "report"}
    check_data({name: step.build().data_needs() for name, step in found.items()})


# ---- what is found in the store --------------------------------------------------------------------------------------
def steps(overrides: list[str]) -> dict[str, Step]:
    with compose.session(overrides) as hydra:
        return {step.name: step for step in prepare(hydra.compose(overrides), overrides).steps}


def test_other_preferences_keep_base_and_instruct_models(files: Path) -> None:
    before, after = steps(command(files)), steps(command(files, "others"))
    same = {name for name in before if before[name].fingerprint == after[name].fingerprint}
    assert {"pretrain", "sft"} <= same
    assert not {"preferences", "reward_model", "dpo", "ppo"} & same


def test_files_that_moved_are_the_same_files(files: Path, tmp_path: Path) -> None:
    for file in files.glob("*.*"):
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    here, there = steps(command(files)), steps(command(tmp_path))
    assert {n: s.fingerprint for n, s in here.items()} == {n: s.fingerprint for n, s in there.items()}


def test_a_missing_file_is_an_exit_code_and_one_line(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [*command(files, "nothing"), f"store_dir={files / 'store'}", f"hydra.run.dir={files / 'failed'}"]
    assert main(arguments) == 1
    assert "no such file" in capfd.readouterr().err
    assert not (files / "failed").exists(), "found before the folder is made"


def test_a_bad_record_is_an_exit_code_and_names_its_line(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (files / "broken.jsonl").write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen": 3}\n'
    )
    store = f"store_dir={files / 'store'}"
    assert main([*command(files, "broken"), store, f"hydra.run.dir={files / 'bad'}"]) == 1
    complaint = capfd.readouterr().err
    assert f"{files / 'broken.jsonl'}:2: field 'chosen' must be text, found a number: 3" in complaint
    assert "Traceback" not in complaint
    assert "broken.jsonl:2" in json.dumps(read(files / "bad" / "status.json"))
