"""Estimates of memory: against what a GPU measured, on paper, and in the plan."""

import csv
import json
from pathlib import Path

import pytest
from model_folders import llama

from alignlab.cli import main
from alignlab.policy import Policy
from alignlab.training.footprint import WORKSPACE, Footprint, ModelSize

MEASURED = Path(__file__).resolve().parents[1] / "experiments" / "throughput" / "results-gpu.csv"
SIZES = {"0.5B": ModelSize(494_032_768, 24, 896, 4864), "3B": ModelSize(3_085_938_688, 36, 2048, 11008)}
FIXED = {"0.5B-2k", "0.5B-8k", "3B-2k", "3B-8k"}
"""Work of 16,384 tokens in each step, without a second model."""


def test_estimates_are_close_to_what_a_gpu_measured() -> None:
    every = csv.DictReader(MEASURED.read_text(encoding="utf-8").splitlines())
    rows = [r for r in every if r["work"] in FIXED and r["side"].startswith("alignlab")]
    plain = [r for r in rows if "compile" not in r["side"]]
    assert len(plain) >= 6
    for row in plain:
        size = SIZES[row["work"].split("-")[0]]
        found = Footprint(size, 1, 0, 16384, arithmetic_bytes=2, checkpointed="checkpoint" in row["side"])
        assert found.bytes / 2**30 == pytest.approx(float(row["peak_gb"]), rel=0.2), row


def test_what_is_held_is_added_up() -> None:
    size = ModelSize(parameters=1000, layers=2, width=4, feedforward=8)
    # Weight, gradient and two moments of 4 bytes; per token and block 16 * 4 + 4 * (8 * 4 + 4 * 8).
    one = Footprint(size, trained=1, frozen=0, tokens=10)
    assert one.bytes == 16_000 + 10 * 2 * 320 + WORKSPACE
    assert Footprint(size, 2, 1, 10).bytes - one.bytes == 16_000 + 4_000
    assert Footprint(size, 1, 0, 10, moment_bytes=2).bytes - one.bytes == -6_000
    # Checkpointed: the 16 bytes of each block's input, and one block.
    assert Footprint(size, 1, 0, 10, checkpointed=True).bytes == 16_000 + 10 * (2 * 16 + 320) + WORKSPACE


@pytest.mark.parametrize("tie", [True, False])
def test_a_size_is_read_without_loading_the_model(tie: bool, tmp_path: Path) -> None:
    folder = llama(tmp_path / "model", tie=tie)
    parameters = sum(p.numel() for p in Policy.load(folder).model.parameters())
    assert ModelSize.of(folder) == ModelSize(parameters, layers=2, width=16, feedforward=32)


def test_the_plan_says_how_much_memory_a_stage_is_expected_to_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = llama(tmp_path / "model")
    rows = [{"instruction": f"say {i}", "output": f"{i} it is"} for i in range(20)]
    (tmp_path / "answers.json").write_text(json.dumps(rows))
    given = ["plan", "experiment=train", "stage=sft", f"stage.inputs.policy={folder}", "data=files", "stage.replay=0"]
    assert main([*given, f"data.instructions={tmp_path / 'answers.json'}", "--json"]) == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert 256 < stage["memory_mb"] < 512
    monkeypatch.setenv("COLUMNS", "140")
    assert main([*given, f"data.instructions={tmp_path / 'answers.json'}"]) == 0
    assert f"~ {stage['memory_mb']} MiB" in capsys.readouterr().out
