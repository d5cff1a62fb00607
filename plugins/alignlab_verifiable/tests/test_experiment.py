"""`experiment=verifiable` through the command, on very little: what it leaves behind, not what is learnt."""

import json
from pathlib import Path

import pytest

from alignlab.cli.app import main
from alignlab.pipeline.run_folder import read_status

LITTLE = (
    "data.training_problems=60", "data.validation_problems=12", "data.training_documents=40", "model.width=32",
    "model.feedforward=32", "pipeline.pretrain.loop.steps=2", "pipeline.sft.loop.steps=2", "pipeline.grpo.loop.steps=2",
    "pipeline.grpo.prompts_per_rollout=4", "pipeline.grpo.samples_per_prompt=2", "pipeline.grpo.loop.batch_size=8",
    "pipeline.grpo.validation_prompts=4", "tracking=off", "runtime=cpu",
)  # fmt: skip
PARTS = (
    "pipeline.grpo.reward=weighted", "pipeline.evaluate_grpo.evaluations.reward.reward=weighted",
    "pipeline.evaluate_grpo.evaluations.reward.name=parted",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, whose reward is a sum of parts."""
    folder = tmp_path_factory.mktemp("verifiable")
    where = (f"store_dir={folder}/store", f"hydra.run.dir={folder}/run")
    assert main(["experiment=verifiable", *LITTLE, *PARTS, *where]) == 0
    return folder / "run"


def test_the_run_is_complete_and_measures_before_and_after(run: Path) -> None:
    assert read_status(run) == "completed"
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"sft/accuracy", "sft/accuracy_low", "sft/accuracy_high"} <= metrics.keys()
    assert metrics["grpo/parted"] == pytest.approx(metrics["grpo/parted_correct"] + 0.1 * metrics["grpo/parted_format"])
    assert (run / "report.html").is_file()


def test_each_part_is_logged_in_training_and_validation(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert {
        "grpo/validation_reward",
        "grpo/validation_reward_correct",
        "grpo/validation_reward_format",
    } <= metrics.keys()
    lines = (run / "stages" / "grpo" / "curves.jsonl").read_text().splitlines()
    logged = {name for line in lines for name in json.loads(line)}
    assert {"train/reward", "train/reward_correct", "train/reward_format"} <= logged
