"""Reward against KL: points where they are on paper, one drawing per judge and reference."""

import datetime
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from report_run import HOSTILE, make_run
from test_report import Tags

from alignlab.artifact import Artifact
from alignlab.metrics import Column, write_columns
from alignlab.report.frontier import frontiers
from alignlab.report.page import render
from alignlab.report.run import RunView

NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
COLOUR = {"pretrain": "m0", "sft": "m1", "dpo": "m2", "ppo": "m3"}
KL = Column("kl", "KL to the reference", unit="nats per answer")
PROXY = Column("proxy_reward", "by the reward model", unit="reward units")
GOLD = Column("true_taste", "by the raters on reflection", unit="reward units", better=1, reference="TrueTaste")


TASTE = {"_target_": "TrueTaste", "raters": ["honest"]}


def stage(
    made: dict[str, Artifact], root: Path, name: str, kind: str, inputs: Mapping[str, str], metrics: Mapping[str, float]
) -> None:
    """Add a stage of some inputs to a made-up run."""
    folder = root / name
    folder.mkdir()
    taken = {role: {"from": s, "fingerprint": made[s].fingerprint} for role, s in inputs.items()}
    config = {"rewards": {"true_taste": TASTE}}
    known = {"created": "", "stage": "somewhere.Stage", "config": config, "versions": {}, "version": "1", "git": None}
    manifest = {**known, "kind": kind, "fingerprint": name.encode().hex().ljust(64, "0"), "name": name, "inputs": taken}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    made[name] = Artifact.open(folder)


def drift(made: dict[str, Artifact], root: Path, policy: str, reference: str = "sft", **metrics: float) -> None:
    name = f"drift_{policy}_{reference}"
    inputs = {"policy": policy, "reference": reference, "reward": "reward_model"}
    stage(made, root, name, "evaluation", inputs, metrics)
    write_columns(root / name, [c for c in (KL, PROXY, GOLD) if c.metric in metrics], "drift")


def of(root: Path) -> dict[str, Artifact]:
    """A run with two measured drifts and the best of some samples; PPO's curves have both numbers at three steps."""
    made = make_run(root)
    drift(made, root, "sft", kl=-0.01, proxy_reward=0.5, true_taste=1.0)
    drift(made, root, "dpo", kl=4.0, proxy_reward=2.0, proxy_reward_low=1.5, proxy_reward_high=2.5, true_taste=1.5)
    best = {"kl_estimate": 1.0, "reward": 1.25, "mean_reward": 0.5}
    stage(made, root, "best_of_n", "answers", {"policy": "sft", "reward": "reward_model"}, best)
    rows: list[dict[str, Any]] = [{"step": 25, "train/kl": 9.0, "validation/kl": 9.0, "validation/reward": 9.0}]
    rows += [{"step": 0, "train/kl": 0.0, "train/reward": 0.5, "train/reward_true_taste": 1.0}]
    rows += [{"step": 50, "train/kl": 1.0, "train/reward": 1.0, "train/reward_true_taste": 0.5}]
    rows += [{"step": 100, "train/kl": 2.25, "train/reward": 1.5, "train/reward_true_taste": 0.25}]
    (root / "ppo" / "curves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made["ppo"] = with_config(root, parts=[{"true_taste": TASTE}])
    return made


def with_config(root: Path, **config: Any) -> Artifact:
    """PPO's stage with further arguments."""
    file = root / "ppo" / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "config": {**manifest["config"], **config}}))
    return Artifact.open(file.parent)


def test_each_judge_has_its_drawing_and_points_are_at_the_root_of_the_kl(tmp_path: Path) -> None:
    (found,) = frontiers(RunView.of(of(tmp_path)), COLOUR)
    assert found.reference == "sft" and found.paths
    assert [f.judge.name for f in found.facets] == ["reward_model", "true taste"]
    assert found.legend == {"sft": "m1", "dpo": "m2", "ppo": "m3", "best_of_n": "m4"}
    proxy, gold = (Tags(str(f.drawing)).named("svg")[0]["aria-label"] for f in found.facets)
    # Roots: of -0.01 it is 0; of PPO's 0, 1 and 2.25; of the best of n 1; of DPO's 4.
    assert proxy == (
        "reward by reward_model over root of the KL, in √nats per answer: ppo 0.50 at 0, 1 at 1, 1.50 at 1.50; "
        "sft 0.50 at 0; dpo 2 at 2; best_of_n 1.25 at 1"
    )
    assert gold is not None and gold.endswith("ppo 1 at 0, 0.50 at 1, 0.25 at 1.50; sft 1 at 0; dpo 1.50 at 2")
    assert str(found.facets[0].drawing).count('class="spread"') == 1, "only DPO's reward has an interval"


def test_a_reward_of_its_own_is_another_judge_than_the_reward_model_in_it(tmp_path: Path) -> None:
    """PPO takes the reward model, and scores with an ensemble that it is a part of."""
    made = of(tmp_path)
    made["ppo"] = with_config(tmp_path, reward={"_target_": "Ensemble"})
    told = labels(made)
    assert set(told) == {"reward_model", "true taste"}, "its own reward is of one model alone"
    assert "ppo" not in told["reward_model"] and "ppo" in told["true taste"]


def test_a_part_of_the_name_of_a_judge_with_another_configuration_is_another_judge(tmp_path: Path) -> None:
    made = of(tmp_path)
    made["ppo"] = with_config(tmp_path, parts=[{"true_taste": {**TASTE, "raters": ["dazzled"]}}])
    told = labels(made)
    assert "ppo" in told["reward_model"] and "ppo" not in told["true taste"]


def labels(made: Mapping[str, Artifact]) -> dict[str, str]:
    (found,) = frontiers(RunView.of(made), COLOUR)
    return {f.judge.name: str(Tags(str(f.drawing)).named("svg")[0]["aria-label"]) for f in found.facets}


def test_a_path_is_made_of_means_over_steps(tmp_path: Path) -> None:
    """Of 48 steps 24 points are left, each of two: the roots of 0.5, 2.5, ..., and rewards of 0.5, 2.5, ..."""
    made = make_run(tmp_path)
    drift(made, tmp_path, "dpo", kl=4.0, proxy_reward=2.0)
    rows = [{"step": s, "train/kl": float(s), "train/reward": float(s)} for s in range(48)]
    (tmp_path / "ppo" / "curves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = frontiers(RunView.of(made), COLOUR)
    (facet,) = found.facets
    (line,) = re.findall(r'd="(M[^"]*)"', str(facet.drawing))
    assert line.count("L") == 23 and "ppo 0.50 at 0.71, 46.5 at 6.82" in str(facet.drawing)


def test_kls_to_different_references_do_not_share_a_drawing(tmp_path: Path) -> None:
    made = of(tmp_path)
    drift(made, tmp_path, "ppo", "dpo", kl=0.5, true_taste=2.0)
    drift(made, tmp_path, "dpo", "dpo", kl=0.0, true_taste=1.5)
    assert [f.reference for f in frontiers(RunView.of(made), COLOUR)] == ["sft", "dpo"]


@pytest.mark.parametrize("kl", [0.0, -1.0])
def test_one_kl_alone_is_not_drawn(tmp_path: Path, kl: float) -> None:
    made = make_run(tmp_path)
    drift(made, tmp_path, "sft", kl=0.0, true_taste=1.0)
    drift(made, tmp_path, "dpo", kl=kl, true_taste=2.0)
    assert frontiers(RunView.of(made), COLOUR) == []
    assert 'id="frontier"' not in render(RunView.of(made), "", NOW)


def test_the_page_has_the_frontier_and_hostile_names_stay_text(tmp_path: Path) -> None:
    made = of(tmp_path)
    bad = Column("bad", HOSTILE, title=HOSTILE, unit="reward units", reference=HOSTILE)
    for name, reward in (("drift_sft_sft", 1.0), ("drift_dpo_sft", 2.0)):
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        (tmp_path / name / "metrics.json").write_text(json.dumps({**metrics, "bad": reward}))
        write_columns(tmp_path / name, [bad], "drift")
    page = render(RunView.of(made), "", NOW)
    section = page.partition('id="frontier"')[2].partition("</section>")[0]
    assert section.count('class="plot"') == 3 and "KL to sft" in section
    assert len(Tags(page).named("script")) == 1 and not Tags(page).named("img")
