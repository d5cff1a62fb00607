"""What the stage on pairs feeds its objective: which pairs, which side first, and whose log-probabilities."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_dpo import DPO, DavidsonDPO
from torch import Tensor

from alignlab.artifact import Artifact
from alignlab.batch import PreferenceBatch
from alignlab.data import preferences
from alignlab.data.records import Comparison
from alignlab.data.rows import Truncation, comparison_rows, order_at, preference_batch
from alignlab.errors import DataError
from alignlab.policy import Policy
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import KillingTracker, tiny_policy_artifact, tiny_preferences_artifact
from alignlab.training import AdamW, Cosine, Loop, PreferenceStage

SEED = 3
STEPS = 5
LOGP = frozenset({"logp"})


class Watching(PreferenceStage):
    """Remembers the loss of every step."""

    def after_step(self, step: int) -> None:
        vars(self).setdefault("seen", []).append(float(self.last_step.means["loss"].value()))


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Artifact]:
    return {
        "policy": tiny_policy_artifact(tmp_path / "policy"),
        "preferences": tiny_preferences_artifact(tmp_path / "preferences"),
        "reference": tiny_policy_artifact(tmp_path / "reference", seed=9),
    }


def stage_of(folder: Path, budget: int = 60, steps: int = STEPS, max_length: int | None = None) -> Watching:
    loop = Loop(steps, 3, budget, validate_every=steps, keep="last")
    optimizer = AdamW(lr=3e-3, schedule=Cosine(warmup_steps=0))
    stage = Watching(objective=DPO(beta=0.5), optimizer=optimizer, loop=loop, seed=SEED, max_length=max_length)
    (folder / "work").mkdir()
    stage.context = StageContext("dpo", folder, folder / "work", Runtime("cpu"), KillingTracker())
    return stage


def prepared(folder: Path, inputs: dict[str, Artifact], **settings: Any) -> Watching:
    stage = stage_of(folder, **settings)
    stage.prepare(inputs, stage.context)
    return stage


class Margins(DPO):
    """Reads the margin of each pair."""

    @property
    def reads(self) -> frozenset[str]:
        return super().reads | {"margin"}


def test_numbers_on_a_judgement_stay_with_their_pair(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    found = [(s, p) for s in ("train", "validation") for p in preferences.read(inputs["preferences"], s)]
    noted = [(s, dataclasses.replace(p, notes={"margin": float(i)})) for i, (s, p) in enumerate(found)]
    preferences.write(tmp_path, (preferences.row(p, s) for s, p in noted))
    inputs["preferences"] = Artifact(tmp_path, "preferences", "noted")
    stage = stage_of(tmp_path)
    stage.objective = Margins()
    stage.prepare(without_reference(inputs), stage.context)
    for step in range(STEPS):
        margins = stage.batch_at(step).of_unit("margin").tolist()
        assert margins == [float(i) for i in order_at(step, 8, 3, SEED)]


def test_a_pair_is_decided_where_no_note_says_that_it_is_a_tie(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    found = [(s, p) for s in ("train", "validation") for p in preferences.read(inputs["preferences"], s)]
    tied = [(s, dataclasses.replace(p, notes={"tie": 1.0} if i % 2 else {})) for i, (s, p) in enumerate(found)]
    preferences.write(tmp_path, (preferences.row(p, s) for s, p in tied))
    inputs["preferences"] = Artifact(tmp_path, "preferences", "tied")
    stage = stage_of(tmp_path)
    stage.objective = DavidsonDPO()
    stage.prepare(without_reference(inputs), stage.context)
    for step in range(STEPS):
        ties = stage.batch_at(step).of_unit("tie").tolist()
        assert ties == [float(i % 2) for i in order_at(step, 8, 3, SEED)]


def test_a_number_that_a_pair_lacks_is_refused(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    stage = stage_of(tmp_path)
    stage.objective = Margins()
    with pytest.raises(DataError, match=r"Margins reads margin, which \d+ of \d+ preferences lack \(first: "):
        stage.prepare(without_reference(inputs), stage.context)


def without_reference(inputs: dict[str, Artifact]) -> dict[str, Artifact]:
    return {k: v for k, v in inputs.items() if k != "reference"}


@torch.no_grad()
def logp_of(artifact: Artifact, batch: PreferenceBatch) -> Tensor:
    return Policy.load(artifact).token_stats(batch, LOGP).logp


def whole_of(artifact: Artifact, pairs: list[Comparison]) -> PreferenceBatch:
    """The pairs, tokenised anew: the chosen answer first."""
    return preference_batch(comparison_rows(Policy.load(artifact).tokenizer, pairs, Truncation(32)))


def test_step_k_holds_the_pairs_that_its_number_says_chosen_first(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    """Eight pairs, three a step: also across the end of an epoch."""
    stage = prepared(tmp_path, without_reference(inputs))
    pairs = preferences.read(inputs["preferences"], "train")
    for step in range(STEPS):
        batch = stage.batch_at(step)
        chosen = [pairs[i] for i in order_at(step, 8, 3, SEED)]
        assert batch.names == tuple(f"{p.source} ({side})" for p in chosen for side in ("chosen", "rejected"))
        answers = [batch.tokens[(batch.sequence_id == s) & batch.response_mask][:-1] for s in range(6)]
        said = [str(stage.policy.tokenizer.decode(ids)).strip() for ids in answers]
        assert said == [text for p in chosen for text in (p.chosen, p.rejected)]


def test_it_learns_from_the_one_split_and_is_validated_on_the_other(
    tmp_path: Path, inputs: dict[str, Artifact]
) -> None:
    stage = prepared(tmp_path, without_reference(inputs))
    lines = {name.split()[0] for k in range(STEPS) for name in stage.batch_at(k).names}
    held_out = [name.split()[0] for batch in stage.validation_batches() for name in batch.names]
    assert held_out == [f"preferences.jsonl:{n}" for n in (3, 3, 6, 6, 9, 9, 12, 12)]
    assert lines == {f"preferences.jsonl:{n}" for n in (1, 2, 4, 5, 7, 8, 10, 11)}


@pytest.mark.parametrize("given", ["policy", "reference"])
@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_every_step_carries_what_the_reference_says_of_its_own_tokens(
    given: str, budget: int, tmp_path: Path, inputs: dict[str, Artifact]
) -> None:
    """The input `reference` where there is one, else the policy as it was; each token its own number."""
    taken = inputs if given == "reference" else without_reference(inputs)
    stage = prepared(tmp_path, taken, budget=budget)
    for batch in [stage.batch_at(k) for k in range(STEPS)] + list(stage.validation_batches()):
        expected = logp_of(inputs[given], batch)
        assert torch.allclose(batch.reference_logp, expected, atol=1e-5)
        assert float(expected[batch.response_mask].std()) > 0.1, "or a mix-up would not be seen"


def test_a_run_too_short_for_all_pairs_scores_those_that_it_visits(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    stage = prepared(tmp_path, inputs, steps=2)
    for step in range(2):
        batch = stage.batch_at(step)
        assert torch.allclose(batch.reference_logp, logp_of(inputs["reference"], batch), atol=1e-5)


def test_the_first_loss_is_ln_2_only_where_the_reference_is_the_policy(
    tmp_path: Path, inputs: dict[str, Artifact]
) -> None:
    (tmp_path / "own").mkdir()
    own = stage_of(tmp_path / "own")
    own.run(without_reference(inputs), own.context)
    assert own.seen[0] == pytest.approx(math.log(2), abs=1e-6)
    (tmp_path / "other").mkdir()
    other = stage_of(tmp_path / "other")
    other.run(inputs, other.context)
    batch = prepared_first(tmp_path, inputs)
    gained = batch.sum_by_sequence(logp_of(inputs["policy"], batch) - logp_of(inputs["reference"], batch))
    expected = -torch.nn.functional.logsigmoid(0.5 * (gained[0::2] - gained[1::2])).mean()
    assert other.seen[0] == pytest.approx(float(expected), abs=1e-5)
    assert abs(other.seen[0] - math.log(2)) > 0.1


def prepared_first(folder: Path, inputs: dict[str, Artifact]) -> PreferenceBatch:
    pairs = preferences.read(inputs["preferences"], "train")
    return whole_of(inputs["policy"], [pairs[i] for i in order_at(0, 8, 3, SEED)])


def test_training_raises_the_chosen_answers_of_held_out_pairs_against_the_rejected(
    tmp_path: Path, inputs: dict[str, Artifact]
) -> None:
    stage = stage_of(tmp_path, steps=20)
    stage.run(without_reference(inputs), stage.context)
    batch = whole_of(inputs["policy"], preferences.read(inputs["preferences"], "validation"))
    gained = batch.sum_by_sequence(logp_of(Artifact.open(tmp_path), batch) - logp_of(inputs["policy"], batch))
    assert float((gained[0::2] - gained[1::2]).min()) > 1.0


def test_what_is_cut_is_said(tmp_path: Path, inputs: dict[str, Artifact]) -> None:
    stage = prepared(tmp_path, without_reference(inputs), max_length=10)
    assert "of 12 pairs: 12 cut short at 10 tokens" in stage.context.tracker.reports  # type: ignore[attr-defined]
