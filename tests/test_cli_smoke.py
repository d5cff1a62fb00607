"""`experiment=smoke`: the whole lifecycle through the command, once, and everything that it must leave behind."""

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from alignlab.cli.app import main
from alignlab.pipeline.run_folder import read_status

MODELS = ("pretrain", "sft", "dpo", "ppo")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("smoke")
    assert main(["experiment=smoke", f"store_dir={folder}/store", f"hydra.run.dir={folder}/run"]) == 0
    return folder / "run"


def manifest(run: Path) -> dict[str, Any]:
    stages: dict[str, Any] = json.loads((run / "manifest.json").read_text())["stages"]
    return stages


def test_the_run_is_complete(run: Path) -> None:
    assert read_status(run) == "completed"
    evaluations = {f"evaluate_{model}" for model in MODELS}
    assert manifest(run).keys() == {*MODELS, *evaluations, "label", "reward_model", "report"}
    assert manifest(run)["dpo"]["inputs"] == {"policy": "sft", "preferences": "label"}


def test_what_evaluation_found_stands_under_each_models_stage(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert all(math.isfinite(value) for value in metrics.values())
    for model in MODELS:
        assert {f"{model}/instruction_following", f"{model}/fact_recall", f"{model}/answer_length"} <= metrics.keys()
    assert {"reward_model/accuracy", "dpo/true_taste", "label/agreement_with_reference"} <= metrics.keys()


def test_every_model_answers_the_same_prompts(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    assert rows and all(tuple(row["answers"]) == MODELS for row in rows)


@pytest.mark.parametrize(
    ("stage", "columns"),
    [
        ("pretrain", {"prompt", "answer", "wanted"}),
        ("sft", {"prompt", "answer", "wanted"}),
        ("reward_model", {"prompt", "chosen", "rejected", "chosen_score", "rejected_score"}),
        ("dpo", {"prompt", "answer", "chosen", "rejected"}),
        ("ppo", {"prompt", "answer", "reward"}),
    ],
)
def test_every_trained_model_shows_what_it_does(stage: str, columns: set[str], run: Path) -> None:
    """The tracker sends this file as the table of the stage's W&B run."""
    file = Path(manifest(run)[stage]["artifact"]) / "samples.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == 8 and all(row.keys() == columns for row in rows)
    assert all(str(row["prompt"]).strip() for row in rows)


def test_every_model_is_in_hugging_face_layout(run: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for model in MODELS:
        folder = manifest(run)[model]["artifact"]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        vocabulary = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight.shape[0]
        assert tokenizer.chat_template and len(tokenizer) == vocabulary


def test_the_report_needs_nothing_from_elsewhere(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//[^"'\s>]+""", page) == []
    assert all(model in page for model in MODELS)


def test_the_same_command_again_computes_nothing(run: Path) -> None:
    again = run.parent / "again"
    assert main(["experiment=smoke", f"store_dir={run.parent}/store", f"hydra.run.dir={again}"]) == 0
    assert all(stage["cached"] for stage in manifest(again).values())
    assert (again / "metrics.json").read_text() == (run / "metrics.json").read_text()


def test_another_beta_makes_only_what_depends_on_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "experiment=smoke", "pipeline.dpo.objective.beta=0.05", f"store_dir={run.parent}/store", "--json"]
    capsys.readouterr()
    assert main(asked) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert {s["name"] for s in stages if not s["cached"]} == {"dpo", "evaluate_dpo", "report"}


@pytest.mark.parametrize("stage", ["pretrain", "dpo"])
def test_every_model_can_be_talked_to(
    stage: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("where does somebody live ?\n\nand where else ?\n/quit\nunheard\n"))
    capsys.readouterr()
    assert main(["chat", str(run), stage, "--temperature", "0", "--max-new-tokens", "8"]) == 0
    heard = capsys.readouterr()
    assert len(heard.out.splitlines()) == 2
    assert ("continues what you write" in heard.err) == (stage == "pretrain")


def test_chat_needs_a_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in [
        ([str(run), "dppo"], "is not a stage of"),
        ([str(run), "label"], "made a preferences; only a policy can be talked to"),
        ([str(run)], "name a stage of"),
        (["nowhere", "dpo"], "no such folder: nowhere"),
        ([str(run), "dpo", "--temperature", "-1"], "temperature must be >= 0"),
    ]:
        assert main(["chat", *arguments]) == 1
        assert message in capsys.readouterr().err


def test_a_models_folder_can_be_talked_to(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    assert main(["chat", manifest(run)["sft"]["artifact"]]) == 0
    assert "ask it something" in capsys.readouterr().err
