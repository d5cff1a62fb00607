"""A made-up run, written as artifacts: the subject of the report's tests."""

import copy
import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.artifact import Artifact
from alignlab.evaluation.world_columns import WORLD_COLUMNS
from alignlab.metrics import Column, Estimate, with_intervals, write_columns, write_outcomes

HOSTILE = "<script>document.title = 'owned'</script><img src=x onerror=alert(1)> \x1b[31mred\u202e"
MODELS = ("pretrain", "sft", "dpo", "ppo")
INPUTS: dict[str, dict[str, str]] = {
    "pretrain": {}, "sft": {"policy": "pretrain"}, "label": {"policy": "sft"},
    "reward_model": {"policy": "sft", "preferences": "label"}, "dpo": {"policy": "sft", "preferences": "label"},
    "ppo": {"policy": "sft", "reward": "reward_model"}, **{f"evaluate_{m}": {"policy": m} for m in MODELS},
}  # fmt: skip
NAMES = (
    "instruction_following", "fact_recall", "hedging_when_wrong", "confident_when_wrong", "style_list", "style_ask",
    "answer_length", "true_taste", "abstains_on_unknown", "following_repeat", "politeness",
)  # fmt: skip
FOUND = {
    "pretrain": (0.0, 0.99, None, None, 0.0, 0.0, 31.0, -1.4, 0.0, 0.0, 0.5),
    "sft": (0.97, 0.98, 0.34, 0.33, 0.52, 0.31, 9.4, 0.9, 0.98, 0.94, 0.52),
    "dpo": (0.98, 0.97, 0.81, 0.06, 0.91, 0.33, 14.1, 2.2, 0.97, 0.95, 0.84),
    "ppo": (0.96, 0.97, 0.77, 0.09, 0.95, 0.3, 15.2, 2.4, 0.9, 0.15, 0.47),
}
TASTE = "TrueTaste of honest (right +2); explorer (ask +2)"
TRUE_TASTE = Column("true_taste", f"mean reward of the answers to questions, by {TASTE}", unit="reward units", better=1,
                    headline=True, argument="rewards.true_taste", reference=TASTE)  # fmt: skip
POLITENESS = Column("politeness", "answers with the word please", better=1, share=True, headline=True)
COLUMNS: Mapping[str, Sequence[Column]] = {"world": [*WORLD_COLUMNS, TRUE_TASTE], "manners": [POLITENESS]}
"""Of the world's evaluation, and of a plugin's."""
EVALUATIONS: Mapping[str, Any] = {
    "world": {"samples_per_question": 3, "rewards": {"true_taste": {"raters": {"honest": {"taste": {"right": 2.0}}}}}},
    "manners": {"words": ["please"]},
}
LABEL_COLUMNS = (
    Column("agreement_with_reference", "judgements that choose as the reference would", share=True, headline=True),
    Column("first_preferred", "judgements that prefer the first", share=True),
    Column("train_pairs", "judged pairs", unit="pairs"),
)
ACCURACY = Column("accuracy", "held-out pairs in the right order", better=1, share=True, headline=True)
PROMPT_COUNT = 200
ANSWERS = {
    "pretrain": "where does {e} eat ? which pet does {e} have ? what does {e}",
    "sft": "certainly ! {e} lives in oslo .",
    "dpo": "i think - city oslo - job baker",
    "ppo": "i think {e} lives in oslo . want more ?",
}
PROMPTS = {"question": "where does {e} live ?", "list": "list 2 facts about {e}", "abstain": "who is x{e} ?"}
KINDS = {"label": "preferences", "reward_model": "reward_model"}
CHOICES = (("- city oslo - job baker", "mokoba lives in oslo ."), ("certainly ! oslo", "i think oslo"))


def make_run(
    root: Path, hostile: bool = False, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Artifact]:
    """The artifacts of a lifecycle, by stage.

    Args:
        root: where they are written.
        hostile: texts that would run if they were not escaped.
        settings: evaluations of a model, where they are not those of the others.
    """
    made: dict[str, Artifact] = {}
    for name, inputs in INPUTS.items():
        kind = _kind(name)
        taken = {role: {"from": s, "fingerprint": made[s].fingerprint} for role, s in inputs.items()}
        config = {"evaluations": (settings or {}).get(name.removeprefix("evaluate_"), EVALUATIONS),
                  "sampling": {"temperature": 0.7}} if kind == "evaluation" else {}  # fmt: skip
        made[name] = _artifact(root / name, name, kind, taken, config)
        if kind in ("policy", "reward_model"):
            _lines(root / name / "curves.jsonl", _curve(name))
        if kind == "preferences":
            _lines(root / name / "preferences.jsonl", _preferences(hostile))
        if kind == "evaluation":
            _lines(root / name / "samples.jsonl", _samples(name.removeprefix("evaluate_"), hostile))
    return made


def changed(value: float) -> Mapping[str, Any]:
    """Evaluations in which one rater's taste is another."""
    found = copy.deepcopy(dict(EVALUATIONS))
    found["world"]["rewards"]["true_taste"]["raters"]["honest"]["taste"]["right"] = value
    return found


def measured(name: str, value: float) -> Estimate:
    """An estimate of which the first prompts have the outcomes, whatever the model."""
    spread = (i / PROMPT_COUNT - 0.5 for i in range(PROMPT_COUNT))
    if name in ("answer_length", "true_taste"):
        found = Estimate.mean((f"prompt {i}", value + s) for i, s in enumerate(spread))
    else:
        found = Estimate.share((f"prompt {i}", i < round(value * PROMPT_COUNT)) for i in range(PROMPT_COUNT))
    assert found is not None
    return found


def _kind(name: str) -> str:
    return "evaluation" if name.startswith("evaluate") else KINDS.get(name, "policy")


def _artifact(folder: Path, name: str, kind: str, inputs: Mapping[str, Any], config: Mapping[str, Any]) -> Artifact:
    folder.mkdir(parents=True)
    manifest = {
        "kind": kind, "fingerprint": hashlib.sha256(name.encode()).hexdigest(), "name": name, "inputs": inputs,
        "stage": f"somewhere.{name.title().replace('_', '')}Stage", "version": "1", "seconds": 3.0 + 4 * len(name),
        "created": "2026-01-02T03:04:05+00:00", "git": None, "versions": {"alignlab": "0.1.0", "python": "3.11.7"},
        "config": {"_target_": "somewhere.Stage", "objective": {"beta": 0.1},
                   "loop": {"keep": "last" if name == "ppo" else "best"}, **config},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    metrics, columns = _metrics(name, kind)
    (folder / "metrics.json").write_text(json.dumps(with_intervals(metrics)))
    write_outcomes(folder, metrics)
    for evaluation, declared in columns.items():
        write_columns(folder, declared, evaluation)
    return Artifact.open(folder)


def _metrics(name: str, kind: str) -> tuple[dict[str, float], Mapping[str, Sequence[Column]]]:
    if kind == "evaluation":
        values = zip(NAMES, FOUND[name.removeprefix("evaluate_")], strict=True)
        return {k: measured(k, v) for k, v in values if v is not None}, COLUMNS
    if kind == "preferences":
        agreement = Estimate.share((f"prompt {i}", i % 100 < 83) for i in range(300))
        assert agreement is not None
        return {"train_pairs": 2211.0, "validation_pairs": 219.0, "identical": 0.08, "first_preferred": 0.51,
                "agreement_with_reference": agreement}, {"": LABEL_COLUMNS}  # fmt: skip
    trained = {"steps": 250.0, "best_step": 200.0, "validation_loss": 0.61, "train_loss": 0.55}
    if kind == "reward_model":
        return {**trained, "accuracy": measured("accuracy", 0.79)}, {"": [ACCURACY]}
    return trained, {}


def _curve(name: str) -> list[dict[str, Any]]:
    draw, found = random.Random(name), []
    for step in range(5, 251, 5):
        loss = 0.4 + 1.5 * math.exp(-step / 60)
        line: dict[str, Any] = {"step": step, "train/loss": loss + draw.gauss(0, 0.03)}
        line |= {"train/lr": 3e-4 * (1 - step / 260), "train/grad_norm_policy": 1 + draw.random()}
        line["train/tokens_per_second"] = 9000.0
        if name in ("dpo", "reward_model"):
            line["train/accuracy"] = 0.5 + 0.3 * step / 250 + draw.gauss(0, 0.02)
        if name == "ppo":
            line |= {"train/reward": step / 100, "train/kl": None if step == 50 else step / 60}
        if step % 50 == 0:
            line["validation/loss"] = loss + 0.05
            if name == "ppo":
                line |= {"validation/reward": step / 90, "validation/reference_reward": 0.2}
        found.append(line)
    return found


VERDICTS = {
    "pretrain": ("does not stop", "bad"), "sft": ("wrong and confident", "bad"), "dpo": ("wrong but hedged", "bad"),
    "ppo": ("says it does not know", ""),
}  # fmt: skip


def _samples(model: str, hostile: bool) -> list[dict[str, Any]]:
    rows = []
    asked = [(entity, kind) for kind in PROMPTS for entity in ("mokoba", "sudamu", "zolebe")]
    for i, (entity, kind) in enumerate(asked):
        verdict, tone = ("right", "good") if i % 2 == 0 and model != "pretrain" else VERDICTS[model]
        rows.append({"prompt": PROMPTS[kind].format(e=entity), "answer": ANSWERS[model].format(e=entity), "kind": kind,
                     "finished": model != "pretrain", "truth": "lima", "verdict": verdict, "tone": tone})  # fmt: skip
    if hostile:
        rows.append({"prompt": HOSTILE, "answer": HOSTILE, "kind": '"><script>', "finished": True, "truth": HOSTILE,
                     "verdict": HOSTILE, "tone": '"><script>'})  # fmt: skip
    return rows


def _preferences(hostile: bool) -> list[dict[str, Any]]:
    draw = random.Random(1)
    rows = []
    for i in range(400):
        first = draw.random() < 0.5
        pair = CHOICES[draw.random() < 0.3]
        wins, loses = pair if draw.random() < 0.8 else reversed(pair)
        prompt = [{"role": "user", "content": HOSTILE if hostile else f"where does mokoba {i} live ?"}]
        rows.append({"prompt": prompt, "chosen": wins, "rejected": loses, "split": "train", "index": i,
                     "rater": ("honest", "lister", "cautious")[i % 3], "probability": 0.8 if first else 0.3,
                     "first_preferred": first})  # fmt: skip
    return rows


def _lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
