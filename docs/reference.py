"""Write docs/config.md and docs/metrics.md: python docs/reference.py

The first is read from the YAML of the options and their comments, the second from docs/metrics.yaml. Nothing of
alignlab is imported. A test fails where a page is out of date.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
GROUPS = {
    "stage": "One step of a model's life: named artifacts in, one artifact out ([Write a stage](write-a-stage.md)).",
    "objective": "The loss of a stage that trains ([Write a plugin](write-a-plugin.md)).",
    "advantage": "Credit for sampled answers, token by token ([Write an advantage](write-an-advantage.md)).",
    "reward": "Scores of answers ([Write a reward](write-a-reward.md)).",
    "preference": "Choices between two answers ([Write a judge](write-a-judge.md)).",
    "aggregate": "One label out of several judgements of a pair ([Raters and agreement](raters-and-agreement.md)).",
    "mixed_in": "Objectives on texts that are added to every step of a method on pairs, labels or rollouts.",
    "evaluation": "Measurements of a policy, for `stage: evaluate` ([Write an evaluation](write-an-evaluation.md)).",
    "data": "Documents, instructions, preferences and prompts.",
    "model": "A model from scratch, or one from elsewhere ([Your own model](your-own-model.md)).",
    "adapter": "What a stage trains in place of all weights ([Adapters](models.md#adapters)).",
    "rollout": "What samples the answers of a stage that trains on its own ([Rollouts](rollouts.md)).",
    "scale": "Learning rates by what is trained, in `experiment=align`.",
    "tokenizer": "A tokenizer trained on the experiment's own texts.",
    "optimizer": "The optimizer of a stage, with its peak learning rate.",
    "schedule": "The learning rate of each step over its peak.",
    "runtime": "Where and how stages compute. Only `precision` changes what is learnt.",
    "tracking": "Progress lines, curves, Weights & Biases, TensorBoard ([Trackers](trackers.md)).",
    "experiment": "Whole experiments: their stages and settings. `alignlab plan experiment=NAME` shows one.",
}
"""Config groups in the order of the page."""
USUAL = {
    "seed": "of everything random in it",
    "data": "a data source",
    "inputs": "none",
    "inputs.policy": "name of another stage, or a folder",
    "inputs.preferences": "name of another stage, or a folder",
    "optimizer.schedule.warmup_steps": "optimizer steps of linear warm-up",
    "evaluations.world.world": "the embedded world that is asked about",
    "evaluations.files.data": "the files",
    "experiment": "name of the experiment, for the title",
    "kind": "word or bpe",
    "knowledge": "the world whose facts it checks; null: none, so the text alone is rated",
    "model": "built where no policy is given",
    "name": "stands with its judgements",
    "num_nodes": "machines",
    "tokenizer": "trained where no policy is given",
    "sampling.temperature": "1 is the model as it is",
    "sampling.top_k": "see `sampling.top_p`",
}
"""Meaning of keys that many options share, where a file does not comment on them."""
WHERE = {
    "both": "`train`, `validation`",
    "train": "`train`",
    "validation": "`validation`",
    "result": "result",
}
CONFIG_HEAD = """# Configuration

Every option of every group, from the core and the plugins of this repository. Written by `python docs/reference.py`
from the YAML files: edit those. `alignlab plugins NAME` prints the same for what is installed.

An option is chosen by `group=option` where the group stands: `objective=ipo` for a single stage (`experiment=train`),
`pipeline.dpo.objective=ipo` for a stage of a lifecycle. A value is set by its key in the same way:
`pipeline.dpo.objective.beta=0.05`. Keys are the arguments of the class's constructor; an unknown key or a value of the
wrong type is an error before anything trains. `${seed}` and `${data}` stand for the experiment's own.
"""
METRICS_HEAD = """# Metrics

Every metric of the built-in objectives, stages and evaluations. Written by `python docs/reference.py` from
`docs/metrics.yaml`: edit that.

| where | name | found in |
|---|---|---|
| `train` | `train/NAME` | `curves.jsonl`, W&B: a mean over the units of the steps between two logged points |
| `validation` | `validation/NAME`, and `validation_NAME` of the published model | `curves.jsonl`, W&B; `metrics.json` |
| result | `NAME` | `metrics.json` of the stage; `STAGE/NAME` in that of the run |

Means are over units (tokens, pairs, answers) and never over batches, so that they do not depend on the batch size, the
memory budget or the number of processes. What an evaluation finds is filed under the stage whose model it measured. A
*share* is from 0 to 1.
"""


# ---- configuration ---------------------------------------------------------------------------------------------------
def config() -> str:
    """The page of all options."""
    groups = ", ".join(f"[{group}](#{group})" for group in GROUPS)
    parts = [
        CONFIG_HEAD,
        f"Groups: {groups}.\n",
        "## At the top\n",
        table(entries(ROOT / "conf" / "config.yaml"), {"defaults", "hydra"}),
    ]
    found = options()
    for group in [*GROUPS, *sorted(found.keys() - GROUPS.keys())]:
        parts += [f"## {group}\n", f"{GROUPS.get(group, '')}\n", *(option(file) for file in found.get(group, []))]
    return "\n".join(parts)


def options() -> dict[str, list[Path]]:
    """Files of each group, by the option's name."""
    found: dict[str, list[Path]] = {}
    for file in [*ROOT.glob("conf/*/*.yaml"), *ROOT.glob("plugins/*/conf/*/*.yaml")]:
        if file.parent.name != "hydra":
            found.setdefault(file.parent.name, []).append(file)
    return {group: sorted(files, key=lambda f: f.stem) for group, files in found.items()}


def option(file: Path) -> str:
    """The section of one option: what it is, its class, the options that it brings, its keys."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    head = [f"### `{file.parent.name}={file.stem}`\n", f"{summary(file)}\n"]
    facts = [f"class `{content['_target_']}`"] if "_target_" in content else []
    more = list(brought(content, file.parent.name))
    facts += [f"brings {', '.join(f'`{b}`' for b in more)}"] if more else []
    facts += [f"starts from `{file.parent.name}={base.stem}`" for base in bases(content, file)]
    inherited = {name: what for base in bases(content, file) for name, _, what in entries(base)}
    rows = ((name, value, what or inherited.get(name, "")) for name, value, what in entries(file))
    body = "" if file.parent.name == "experiment" else table(rows, {"defaults", "_target_"})
    return "\n".join([*head, *([f"{sentence('; '.join(facts))}\n"] if facts else []), *([body] if body else [])])


def sentence(text: str) -> str:
    """The text with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def summary(file: Path) -> str:
    """The comment at the head of a file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    head = [line.lstrip("# ") for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]]
    return " ".join(line for line in head if not line.startswith("@package"))


def brought(content: Mapping[str, Any], group: str) -> Iterator[str]:
    """Options that a defaults list chooses, at the place where it puts them."""
    for entry in content.get("defaults", []):
        if isinstance(entry, dict):
            for key, value in entry.items():
                yield f"{key.removeprefix('override ').lstrip('/')}={value}"
        elif "@" in entry:
            name, _, place = entry.partition("@")
            yield f"{group}@{place}={name}"


def bases(content: Mapping[str, Any], file: Path) -> list[Path]:
    """Options of the same group that a file starts from."""
    names = [entry for entry in content.get("defaults", []) if isinstance(entry, str) and "@" not in entry]
    return [file.with_name(f"{name}.yaml") for name in names if name != "_self_"]


def entries(file: Path) -> Iterator[tuple[str, str, str]]:
    """Dotted key, value as written, and comment of every key of a file."""
    text = file.read_text(encoding="utf-8")
    yield from _below(yaml.compose(text), text.splitlines(), "")


def _below(node: Any, lines: list[str], prefix: str) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        nested = isinstance(value, yaml.MappingNode) and value.value
        if nested and value.value[0][0].value == "_target_":
            yield name, f"`{value.value[0][1].value}`", "class of the keys below"
        if nested:
            yield from _below(value, lines, f"{name}.")
        elif key.value != "_target_" or not prefix:
            shown = lines[value.start_mark.line][value.start_mark.column : value.end_mark.column]
            yield name, f"`{shown}`", comment(key, lines) or USUAL.get(name, "")


def comment(key: Any, lines: list[str]) -> str:
    """The comment at the end of a key's line."""
    found = re.search(r"\s#\s+(.*)$", lines[key.start_mark.line][key.end_mark.column :])
    return found[1] if found else ""


def table(rows: Iterable[tuple[str, str, str]], without: set[str]) -> str:
    """A table of keys, those below `without` left out; empty where there are none."""
    kept = [(f"`{name}`", value, what) for name, value, what in rows if name.partition(".")[0] not in without]
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in kept]
    return "\n".join(["| key | default | |", "|---|---|---|", *lines, ""]) if lines else ""


# ---- metrics ---------------------------------------------------------------------------------------------------------
def metrics() -> str:
    """The page of all metrics."""
    parts = [METRICS_HEAD]
    for section in described():
        parts += [f"## {section['title']}\n", *([f"{section['text']}\n"] if "text" in section else [])]
        rows = [_row(name, about) for name, about in section["metrics"].items()]
        parts.append("\n".join(["| metric | where | unit | better | |", "|---|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def described() -> list[dict[str, Any]]:
    """The sections of docs/metrics.yaml."""
    found: list[dict[str, Any]] = yaml.safe_load((DOCS / "metrics.yaml").read_text(encoding="utf-8"))
    return found


def _row(name: str, about: Mapping[str, Any]) -> str:
    cells = (f"`{name}`", WHERE[about["where"]], about["unit"], about.get("better", "–"), about["text"])
    return f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in cells)} |"


PAGES = {"config.md": config, "metrics.md": metrics}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (DOCS / page).write_text(make(), encoding="utf-8")
