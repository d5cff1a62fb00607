"""docs/your-own-model.md: its commands run, on a tiny model in the hub's cache under the name that the page has."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import docs_pages
import pytest
from architectures import config
from chat_templates import CHATML, bpe
from model_folders import save
from test_align import SMALL
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignlab.cli.app import main

PAGE = "your-own-model.md"
NAME = "Qwen/Qwen2.5-0.5B-Instruct"
COMMANDS = docs_pages.commands(PAGE)
RUNS = [words for words in COMMANDS if "experiment=align" in words and not {"plan", "-m"} & set(words)]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the files of the page, and a hub's cache with its model."""
    folder = tmp_path_factory.mktemp("page")
    answered = [{"instruction": f"Say {i}.", "output": f"{i}!"} for i in range(30)]
    (folder / "alpaca.json").write_text(json.dumps(answered))
    pairs = [{"prompt": f"Say {i}.", "chosen": "Sure.", "rejected": "No."} for i in range(30)]
    (folder / "hh.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    (folder / "prompts.txt").write_text("".join(f"Tell me {i}.\n" for i in range(20)))
    cache = folder / "cache" / f"models--{NAME.replace('/', '--')}"
    snapshot = save(cache / "snapshots" / ("0" * 39 + "1"), config("qwen2"), bpe(CHATML))
    AutoTokenizer.from_pretrained(snapshot).save_pretrained(snapshot)  # as Qwen 2's class has it
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(snapshot.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


def small(words: list[str]) -> list[str]:
    """What makes a command of the page tiny; settings of stages that it leaves out are left out, too."""
    gone = [] if any(w.startswith("data.instructions=") for w in words) else ["sft", "evaluate_sft"]
    return [s for s in SMALL if not any(s.startswith(f"pipeline.{stage}.") for stage in gone)]


@pytest.fixture(scope="module")
def run(here: Path) -> Path:
    assert main([*RUNS[0], *small(RUNS[0]), "hydra.run.dir=run"]) == 0
    return here / "run"


@pytest.mark.parametrize(
    "words", [w for w in COMMANDS if "experiment=align" in w or "experiment=train" in w], ids=" ".join
)
def test_every_command_can_be_planned(words: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *[w for w in words if w != "plan"]]) == 0, capsys.readouterr().err


@pytest.mark.slow
def test_the_table_has_every_stage_of_the_run(run: Path) -> None:
    stages = json.loads((run / "manifest.json").read_text())["stages"]
    page = docs_pages.text(PAGE)
    assert all(f"| `{name}` |" in page for name in stages if not name.startswith("evaluate_"))
    assert {f"evaluate_{name}" for name in ("base", "sft", "dpo", "online")} <= stages.keys()
    assert (run / "report.html").is_file()


@pytest.mark.slow
def test_what_it_made_is_talked_to_and_taken_elsewhere(
    run: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (chat,) = [w for w in COMMANDS if w[0] == "chat"]
    (export,) = [w for w in COMMANDS if w[0] == "export"]
    monkeypatch.setattr("sys.stdin", io.StringIO("Say 3.\n"))
    assert main([*(w.replace("RUN", "run") for w in chat), "--max-new-tokens", "2"]) == 0
    assert main([w.replace("RUN", "run").replace("FOLDER", "elsewhere") for w in export]) == 0
    assert AutoModelForCausalLM.from_pretrained("elsewhere") and AutoTokenizer.from_pretrained("elsewhere")
    assert main(["export", "run", "base", "base"]) == 0
    weights = here / "base" / "model.safetensors"
    assert weights.is_file() and not weights.is_symlink(), "a copy, not a link"


def test_a_model_alone_is_imported(here: Path) -> None:
    (words,) = [w for w in COMMANDS if "stage=import_model" in w]
    assert main([*words, "tracking=off", "runtime=cpu", "hydra.run.dir=alone"]) == 0
    made = json.loads((here / "alone" / "stages" / "import_model" / "config.json").read_text())
    assert made["alignlab"] == {"attention": "eager"}


@pytest.mark.slow
@pytest.mark.parametrize("words", RUNS[1:], ids=" ".join)
def test_every_other_run_of_the_page_ends_in_a_report(words: list[str], run: Path, here: Path) -> None:
    if "adapter=lora" in words:
        pytest.importorskip("peft", reason="peft is not installed; the dev extra brings it")
    folder = here / f"run-{RUNS.index(words)}"
    less = [
        s for s in small(words) if "stage@pipeline.online=rloo" not in words or not s.startswith("pipeline.online.loop")
    ]
    more = ["pipeline.online.loop.batch_size=16", "pipeline.online.loop.steps=2"] if less != small(words) else []
    assert main([*words, *less, *more, f"hydra.run.dir={folder}"]) == 0
    assert (folder / "report.html").is_file()
