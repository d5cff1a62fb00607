"""experiment=align: somebody's own model on their own files, from a folder to a report."""

import json
from pathlib import Path
from typing import Any

import pytest
from architectures import config
from model_folders import save

from alignlab.artifact import Artifact
from alignlab.cli.app import main
from alignlab.cli.prepared import prepare
from alignlab.config import compose
from alignlab.data.files import Files
from alignlab.errors import DataError, PipelineError
from alignlab.pipeline.plan import Step
from alignlab.policy import Policy

TRAINED = ("sft", "reward_model", "dpo", "online")
POLICIES = ("base", "sft", "dpo", "online")
SMALL = [
    "tracking=off",
    "runtime=cpu",
    "data.validation_fraction=0.3",
    "pipeline.online.prompts_per_rollout=4",
    "pipeline.online.validation_prompts=4",
    "pipeline.online.loop.batch_size=4",
    *(f"pipeline.{stage}.loop.steps=2" for stage in TRAINED),
    *(f"pipeline.{stage}.sampling.max_new_tokens=4" for stage in ("online", *(f"evaluate_{p}" for p in POLICIES))),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Instructions, preferences, prompts, and a Qwen 3."""
    folder = tmp_path_factory.mktemp("align")
    answered = [
        {"messages": [{"role": "user", "content": f"Say {i}."}, {"role": "assistant", "content": f"{i}!"}]}
        for i in range(30)
    ]
    pairs = [{"prompt": f"Say {i}.", "chosen": "Sure.", "rejected": "No."} for i in range(30)]
    for name, rows in (("instructions", answered), ("preferences", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "prompts.txt").write_text("".join(f"Tell me {i}.\n\n" for i in range(20)))
    save(folder / "qwen", config("qwen3"))
    return folder


def command(files: Path, *roles: str) -> list[str]:
    named = {"instructions": "instructions.jsonl", "preferences": "preferences.jsonl", "prompts": "prompts.txt"}
    return [
        "experiment=align",
        f"model.name_or_path={files / 'qwen'}",
        *(f"data.{r}={files / named[r]}" for r in roles),
    ]


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def steps(overrides: list[str]) -> dict[str, Step]:
    with compose.session(overrides) as hydra:
        return {step.name: step for step in prepare(hydra.compose(overrides), overrides).steps}


@pytest.fixture(scope="module")
def run(files: Path) -> Path:
    folder = files / "run"
    given = [*command(files, "instructions", "preferences", "prompts"), *SMALL, f"store_dir={files / 'store'}"]
    assert main([*given, f"hydra.run.dir={folder}"]) == 0
    return folder


def test_one_command_takes_a_folder_to_a_report(run: Path, files: Path) -> None:
    assert read(run / "status.json")["status"] == "completed"
    assert (run / "report.html").stat().st_size > 0
    metrics, stages = read(run / "metrics.json"), read(run / "manifest.json")["stages"]
    assert metrics["base/vocabulary"] > 300 and metrics["base/parameters"] > 1000
    for policy in POLICIES:
        for name in ("answer_loss", "preference_accuracy", "finished"):
            assert f"{policy}/{name}" in metrics
    base = Artifact.open(stages["base"]["artifact"])
    assert base.manifest["links"]["model.safetensors"]["target"] == str(files / "qwen" / "model.safetensors")
    for name in ("sft", "dpo", "online"):
        trained = Policy.load(Artifact.open(stages[name]["artifact"]))
        assert type(trained.model).__name__ == "Qwen3ForCausalLM"


def test_its_prompts_are_what_is_answered(run: Path) -> None:
    stages = read(run / "manifest.json")["stages"]
    for name in ("online", "evaluate_online"):
        rows = [
            json.loads(line) for line in (Path(stages[name]["artifact"]) / "samples.jsonl").read_text().splitlines()
        ]
        assert rows and all("Tell me" in json.dumps(row) for row in rows), name


def test_the_same_command_finds_everything_in_the_store(files: Path, run: Path) -> None:
    """Also where the weights are, in the meantime, elsewhere: what identifies them is their content."""
    before = {
        name: step.fingerprint
        for name, step in steps([*command(files, "instructions", "preferences", "prompts"), *SMALL]).items()
    }
    made = read(run / "manifest.json")["stages"]
    assert {name: entry["fingerprint"] for name, entry in made.items()} == before


def test_without_instructions_nothing_is_fine_tuned(files: Path) -> None:
    found = steps(command(files, "preferences"))
    assert "sft" not in found and "evaluate_sft" not in found
    assert {found[name].inputs["policy"] for name in ("reward_model", "dpo", "online", "evaluate_base")} == {"base"}
    assert set(found["report"].inputs) == set(found) - {"report"}
    with_instructions = steps(command(files, "preferences", "instructions"))
    assert with_instructions["dpo"].inputs["policy"] == "sft" and with_instructions["sft"].inputs["policy"] == "base"
    assert with_instructions["base"].fingerprint == found["base"].fingerprint


@pytest.mark.parametrize("method", ["ppo", "rloo", "online_dpo"])
def test_any_online_method_keeps_the_learning_rate_of_a_pretrained_model(method: str, files: Path) -> None:
    given = command(files, "preferences")
    found = steps([*given, f"stage@pipeline.online={method}"])["online"]
    assert found.inputs == {"policy": "base", "reward": "reward_model"}
    assert found.spec.arguments["optimizer"].arguments["lr"] == 1e-6
    own = steps([*given, f"stage@pipeline.online={method}", "pipeline.online.optimizer.lr=3e-7"])["online"]
    assert own.spec.arguments["optimizer"].arguments["lr"] == 3e-7


def test_adapters_have_learning_rates_of_their_own(files: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed; the dev extra brings it")
    found = steps([*command(files, "preferences"), "stage@pipeline.online=rloo", "adapter=lora", "scale=adapter"])
    assert found["online"].spec.arguments["optimizer"].arguments["lr"] == 1e-5
    assert all(found[name].spec.arguments["adapter"] is not None for name in ("reward_model", "dpo", "online"))


def test_a_stage_that_is_left_out_must_have_a_policy_in_its_place(files: Path) -> None:
    given = [*command(files, "preferences"), "pipeline.reward_model.only_with=null"]
    with pytest.raises(
        PipelineError, match=r"pipeline\.online\.inputs\.reward: .* takes reward_model here, but 'base'"
    ):
        steps(given)


# ---- data.prompts ----------------------------------------------------------------------------------------------------
def prompts(path: Path, **arguments: Any) -> list[str]:
    data = Files(prompts=str(path), validation_fraction=0.0, **arguments)
    return [p.text for p in data.prompts("train")]


def test_each_line_of_a_text_is_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("What is it?\n\n  Where is it? \nWhat is it?\n")
    assert prompts(tmp_path / "asked.txt") == ["What is it?", "Where is it?"]


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"prompt": "A?"}, "A?"),
        ({"prompt": "A?", "completion": "not read"}, "A?"),
        ({"prompt": [{"role": "user", "content": "A?"}]}, "A?"),
        ({"prompt": "A?", "system": "Be brief."}, "system: Be brief.\n\nuser: A?"),
        ({"messages": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "not read"}]}, "A?"),
        ({"instruction": "A?", "input": "B", "output": "not read"}, "A?\n\nB"),
        ({"question": "A?", "answer": "B"}, "A?"),
    ],
)
def test_records_are_read_up_to_what_is_asked(record: dict[str, Any], text: str, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(record) + "\n")
    assert prompts(tmp_path / "asked.jsonl") == [text]
    if "question" in record:
        data = Files(prompts=str(tmp_path / "asked.jsonl"), validation_fraction=0.0)
        assert data.prompts("train")[0].fact("answer") == "B"


def test_prompts_go_before_those_of_the_instructions_and_share_their_split(files: Path) -> None:
    named = {role: str(files / f"{role}.jsonl") for role in ("instructions", "preferences")}
    (files / "asked.jsonl").write_text("".join(json.dumps({"prompt": f"Say {i}."}) + "\n" for i in range(30)))
    own = Files(**named, prompts=str(files / "asked.jsonl"), validation_fraction=0.3)
    theirs = Files(**named, validation_fraction=0.3)
    for split in ("train", "validation"):
        assert own.prompts(split) == theirs.prompts(split)  # type: ignore[arg-type]
    assert own.content_digest() != theirs.content_digest()


def test_other_roles_take_no_plain_text(files: Path) -> None:
    with pytest.raises(DataError, match=r"plain text, which only data\.corpus and data\.prompts take"):
        Files(instructions=str(files / "prompts.txt"))
