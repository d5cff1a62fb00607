"""The lifecycle on somebody's own files, end to end: a tiny model, two steps a stage."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignlab.cli.app import main
from alignlab.cli.job import prepare
from alignlab.config import compose
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
    "data.document_characters=100",
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
    assert main([*command(files), f"store_dir={files / 'store'}", f"hydra.run.dir={folder}"]) == 0
    return folder


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
