"""The kit's checks of stages: an honest one passes, every check catches a mutant, and a training stage resumes."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from alignlab_dpo import DPO, DPOStage

from alignlab.artifact import Artifact, Kind
from alignlab.stage import Stage, StageContext
from alignlab.testing import conforms_stage, tiny_policy_artifact, tiny_preferences_artifact
from alignlab.testing.stage import CHECKS
from alignlab.testing.workshop import KillingTracker, Subject
from alignlab.training import AdamW, Loop


class Honest(Stage):
    """Writes down how many preferences there are, in three portions, and remembers which it has done."""

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {"preferences": frozenset({"preferences"})}
    PRODUCES: ClassVar[Kind] = "other"

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        rows = list(inputs["preferences"].lines("preferences.jsonl"))
        notes = context.work / "notes.json"
        found: list[float] = json.loads(notes.read_text()) if notes.is_file() else []
        for portion in range(len(found), 3):
            found.append(self.look(rows[portion::3]))
            notes.write_text(json.dumps(found))
            context.tracker.progress(portion + 1, 3, {})
        (context.folder / "counts.json").write_text(json.dumps(found))
        return {"counted": self.summary(found)}

    def look(self, rows: list[dict[str, str]]) -> float:
        """What is found in one portion."""
        return float(len(rows))

    def summary(self, found: list[float]) -> float:
        """The stage's metric."""
        return sum(found)


class NoVersion(Honest):
    """Inherits what it should state."""


class Undeclared(Honest):
    """Takes an input that it does not declare."""

    VERSION: ClassVar[str] = "1"
    INPUTS: ClassVar[Mapping[str, frozenset[Kind]]] = {}


class NoNumber(Honest):
    """Reports a metric that is no number."""

    def summary(self, found: list[float]) -> float:
        return float("nan")


class Silent(Honest):
    """Says nothing but at the end."""

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        context.tracker.say("done")
        return {}


class Swallows(Honest):
    """Publishes what it has when it is told to stop."""

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        try:
            return super().run(inputs, context)
        except BaseException:
            return {}


class Elsewhere(Honest):
    """Writes beside its own folder."""

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        (context.folder.parent / "counts.part").write_text("0")
        return super().run(inputs, context)


class CountsTwice(Honest):
    """Begins again after a kill, and keeps what it had found before."""

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        with (context.work / "log").open("a") as log:
            for portion in range(3):
                log.write("portion\n")
                context.tracker.progress(portion + 1, 3, {})
        (context.folder / "log").write_text((context.work / "log").read_text())
        return {}


class Unseeded(Honest):
    """Draws from the global generator."""

    def look(self, rows: list[dict[str, str]]) -> float:
        return len(rows) + float(torch.rand(()))


class Vandal(Honest):
    """Writes into its input."""

    def run(self, inputs: Mapping[str, Artifact], context: StageContext) -> Mapping[str, float]:
        (inputs["preferences"].path / "seen").write_text("yes")
        return super().run(inputs, context)


def preferences(folder: Path) -> dict[str, Artifact]:
    return {"preferences": tiny_preferences_artifact(folder / "preferences")}


@conforms_stage(Honest, inputs=preferences)
def test_honest(check: Callable[[], None]) -> None:
    check()


MUTANTS: list[tuple[str, type[Stage]]] = [
    ("version_is_a_literal", NoVersion),
    ("inputs_and_product_are_declared", Undeclared),
    ("metrics_are_finite_numbers", NoNumber),
    ("reports_progress", Silent),
    ("publishes_nothing_on_failure", Swallows),
    ("publishes_nothing_on_failure", Elsewhere),
    ("goes_on_after_a_kill", CountsTwice),
    ("same_inputs_make_the_same_artifact", Unseeded),
    ("inputs_are_only_read", Vandal),
]


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_mutant_is_caught(name: str, mutant: type[Stage]) -> None:
    check = next(c for c in CHECKS if c.__name__ == name)
    with pytest.raises(AssertionError, match=mutant.__name__):
        check(Subject(mutant, preferences))


def test_every_check_has_a_mutant() -> None:
    assert {c.__name__ for c in CHECKS} == {name for name, _ in MUTANTS}


# ---- a stage that trains --------------------------------------------------------------------------------------------
def dpo() -> Stage:
    loop = Loop(steps=4, batch_size=4, micro_batch_tokens=64, validate_every=2, log_every=1, save_every=1)
    return DPOStage(objective=DPO(), optimizer=AdamW(lr=1e-3), loop=loop)


def dpo_inputs(folder: Path) -> dict[str, Artifact]:
    return {"policy": tiny_policy_artifact(folder / "policy"), **preferences(folder)}


def test_a_training_stage_goes_on_where_it_was() -> None:
    """Killed when step 3 is logged, it has saved step 2 and does 2 more steps, not 4."""
    with Subject(dpo, dpo_inputs).workshop() as workshop:
        whole = KillingTracker()
        workshop.run(whole, key="1" * 64)
        logged = [f"log of step {k}" for k in (1, 2, 3, 4)]
        assert sorted(set(whole.reports) & set(logged)) == logged
        workshop.kill(whole.reports.index("log of step 3"))
        again = KillingTracker()
        workshop.run(again)
        assert sorted(set(again.reports) & set(logged)) == logged[2:]
