"""Five hundred random mistakes: whatever a user can mend ends in one message, never in a traceback.

Each is a function of its number, so that a failure can be repeated: `mistake_in(...)` of the number in the report.
"""

import io
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from alignlab.cli.app import main
from alignlab.testing import tiny_policy_artifact

pytestmark = pytest.mark.slow

EACH = 125
JUNK: tuple[Any, ...] = (
    -1, 0, 1.5, 10**9, 10**400, True, None, "", " ", "x", "nan", "a b", "é\u2028", [], [1, "a"], {}, {"a": {"b": 1}},
    "../..", "${seed}", "${nowhere}", "<eos>", "0" * 300,
)  # fmt: skip
TYPED = (
    "-1", "0", "1e9", "1e-9", "nan", "inf", "null", "''", "'", '"', "[", "]", "[1,2]", "{a:1}", "{a:", "${seed}",
    "${nowhere}", "${oc.env:HOME}", "a b", "a,b", "range(1,3)", "x=y", "=", "\\", "é", "true", "dpo", "0" * 400,
    "[[[[[1]]]]]", "glob(*)",
)  # fmt: skip
MARKS = "{}[]:,-#&*!|>%@`'\"\t \n\\$=~+0aé\x00"


# ---- overrides -------------------------------------------------------------------------------------------------------
KEYS = (
    "seed", "name", "store_dir", "rerun", "experiment", "stage", "data", "model", "tokenizer", "runtime",
    "tracking", "data.entities", "data.seed", "data.zipf", "data.values", "model.width", "model.heads",
    "tokenizer.vocab_size", "runtime.devices", "runtime.precision", "pipeline", "pipeline.dpo",
    "pipeline.dpo.objective", "pipeline.dpo.objective.beta", "pipeline.dpo.loop.steps", "objective",
    "pipeline.ppo.advantage", "pipeline.ppo.sampling.temperature", "pipeline.ppo.sampling.top_k",
    "pipeline.sft.replay", "pipeline.sft.optimizer.lr", "pipeline.sft.optimizer.betas",
    "pipeline.sft.optimizer.schedule", "pipeline.sft.inputs.policy", "pipeline.label.preference",
    "pipeline.label.preference.raters", "pipeline.label.preference.raters.dazzled.bias",
    "pipeline.label.preference.shares", "pipeline.evaluate_dpo.evaluations", "pipeline.report",
    "pipeline.report.inputs", "hydra.run.dir", "hydra.mode", "hydra/launcher", "hydra.job.name",
)  # fmt: skip


def wrong_overrides(random: Random, folder: Path) -> list[str]:
    words = ["plan", "experiment=lifecycle"]
    for _ in range(random.choice((1, 1, 2))):
        key, value = random.choice(KEYS), random.choice(TYPED)
        if random.random() < 0.4:
            at = random.randrange(len(key))
            key = key[:at] + random.choice(("", "x", ".", "@", "/", "=", key[at] * 2)) + key[at + 1 :]
        sign = random.choice(("", "", "", "", "+", "++", "~", "--"))
        words.append(f"{sign}{key}" if sign == "~" and random.random() < 0.5 else f"{sign}{key}={value}")
    return words


# ---- options ---------------------------------------------------------------------------------------------------------
OPTION = """# @package _global_
# Mine.
defaults:
  - /stage@pipeline.pretrain: pretrain
  - /stage@pipeline.sft: sft
  - override /data: world
  - override /model: tiny
  - _self_
name: mine
pipeline:
  pretrain:
    optimizer: {lr: 1.0e-3, betas: [0.9, 0.98]}
    loop: {steps: 5, batch_size: 4}
  sft:
    inputs: {policy: pretrain}
    replay: 0.25
    objective: {_target_: alignlab_sft.AnswerNLL}
"""


def wrong_option(random: Random, folder: Path) -> list[str]:
    text = OPTION
    for _ in range(random.choice((1, 1, 2, 4))):
        lines = text.splitlines()
        number = random.randrange(len(lines))
        at = random.randrange(max(1, len(text)))
        match random.randrange(6):
            case 0:
                text = text[:at] + random.choice(MARKS) + text[at:]
            case 1:
                text = text[:at] + text[at + 1 :]
            case 2:
                text = "\n".join([*lines[:number], *lines[number + 1 :]])
            case 3:
                text = "\n".join([*lines[:number], lines[number], *lines[number:]])
            case 4:
                text = "\n".join([*lines[:number], " " * random.randrange(4) + lines[number], *lines[number + 1 :]])
            case _:
                head = lines[number].partition(":")[0]
                junk = json.dumps(random.choice(JUNK), allow_nan=True)
                text = "\n".join([*lines[:number], f"{head}: {junk}", *lines[number + 1 :]])
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    return ["plan", "--config-dir", str(folder), "experiment=mine"]


# ---- data files ------------------------------------------------------------------------------------------------------
def wrong_data(random: Random, folder: Path) -> list[str]:
    rows: list[Any] = [{"instruction": f"what does ana like {i} ?", "output": "tea"} for i in range(12)]
    for _ in range(random.choice((1, 2, 3))):
        number = random.randrange(len(rows))
        row = rows[number]
        match random.randrange(4):
            case 0:
                rows[number] = random.choice(JUNK)
            case 1 if isinstance(row, dict) and row:
                row[random.choice(list(row))] = random.choice(JUNK)
            case 2 if isinstance(row, dict):
                row[str(random.choice(JUNK))[:20]] = random.choice(JUNK)
            case _ if isinstance(row, dict) and row:
                row.pop(random.choice(list(row)))
    suffix = random.choice(("jsonl", "json", "csv", "tsv", "parquet", "jsonl.gz", "txt", "dat"))
    content = (json.dumps(rows) if suffix == "json" else "\n".join(json.dumps(r) for r in rows)).encode()
    if suffix in ("csv", "tsv"):
        mark = "," if suffix == "csv" else "\t"
        content = "\n".join(mark.join(map(str, r.values())) if isinstance(r, dict) else str(r) for r in rows).encode()
    if random.random() < 0.4:
        at = random.randrange(len(content))
        content = random.choice(
            (content[:at], content[:at] + bytes([random.randrange(256)]) + content[at:], b"", b"\x00" * 9)
        )
    folder.mkdir(parents=True)
    (folder / f"rows.{suffix}").write_bytes(content)
    tiny_policy_artifact(folder / "policy")
    words = "experiment=train stage=sft data=files stage.replay=0 stage.loop.steps=1 stage.loop.batch_size=2"
    return [
        *words.split(),
        "tracking=off",
        "runtime=cpu",
        f"data.instructions={folder / f'rows.{suffix}'}",
        f"data.on_bad_record={random.choice(('stop', 'skip'))}",
        f"stage.inputs.policy={folder / 'policy'}",
        f"store_dir={folder / 'store'}",
        f"hydra.run.dir={folder / 'run'}",
    ]


# ---- model folders ---------------------------------------------------------------------------------------------------
def wrong_model(random: Random, folder: Path) -> list[str]:
    tiny_policy_artifact(folder)
    for _ in range(random.choice((1, 1, 2))):
        file = random.choice(sorted(f for f in folder.iterdir() if f.is_file()))
        match random.randrange(4):
            case 0:
                file.unlink()
            case 1:
                content = bytearray(file.read_bytes())
                at = random.randrange(max(1, len(content)))
                content[at : at + random.choice((1, 8))] = bytes([random.randrange(256)])
                file.write_bytes(content)
            case 2:
                file.write_bytes(file.read_bytes()[: random.randrange(1 + file.stat().st_size)])
            case _ if file.suffix == ".json":
                _change(random, file)
        if not any(folder.iterdir()):
            break
    return ["chat", str(folder), "--no-plain", "--max-new-tokens", "2"]


def _change(random: Random, file: Path) -> None:
    """Set or remove one entry of a JSON file, at any depth."""
    try:
        root = json.loads(file.read_bytes())
    except ValueError:
        return
    node = root
    while isinstance(node, dict) and node:
        key = random.choice(list(node))
        if isinstance(node[key], dict) and node[key] and random.random() < 0.6:
            node = node[key]
        elif random.random() < 0.3:
            del node[key]
            break
        else:
            node[key] = random.choice(JUNK)
            break
    file.write_text(json.dumps(root))


# ---- what comes of them ----------------------------------------------------------------------------------------------
def mistake_in(make: Callable[[Random, Path], list[str]], number: int, folder: Path) -> list[str]:
    """The arguments of a mistake; its files lie in the folder."""
    return make(Random(f"{make.__name__}:{number}"), folder)


def fault_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is wrong with what the command did; "" where it worked, or failed in one message."""
    capsys.readouterr()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            code = main(arguments)
    except SystemExit as error:  # argparse's own
        code = int(error.code or 0)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:300]
    said = capsys.readouterr().err
    if "Traceback" in said:
        return said.strip().splitlines()[-1][:300]
    complaints = [line for line in said.splitlines() if line.startswith("alignlab: ")]
    if code and len(complaints) != 1:
        return f"exit code {code} and {len(complaints)} messages: {said[:300]}"
    if code and len(complaints[0]) < 20:
        return f"a message that says nothing: {complaints[0]}"
    return ""


@pytest.mark.parametrize("make", [wrong_overrides, wrong_option, wrong_data, wrong_model], ids=lambda f: f.__name__)
def test_every_mistake_ends_in_one_message(
    make: Callable[[Random, Path], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    faults = {}
    for number in range(EACH):
        monkeypatch.setattr("sys.stdin", io.StringIO("what does ana like ?\n"))
        folder = tmp_path / str(number)
        if fault := fault_of(mistake_in(make, number, folder), capsys):
            faults[number] = fault
        shutil.rmtree(folder, ignore_errors=True)
    assert not faults, "\n".join(f"{number}: {fault}" for number, fault in faults.items())
