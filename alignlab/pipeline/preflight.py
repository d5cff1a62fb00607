"""Find problems of a run's data before the first of its stages trains."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from alignlab.artifact import Artifact
from alignlab.data.preflight import check_data
from alignlab.data.source import DataSource, Need
from alignlab.errors import ConfigError
from alignlab.pipeline.plan import Step
from alignlab.pipeline.store import Store
from alignlab.stage import Stage

MADE_OF_RECORDS = ("preferences", "rankings", "answers")
"""Inputs that may come from files, and are tokenised by the stages that learn from them."""


def missing(steps: Sequence[Step], store: Store) -> list[Step]:
    """The steps that will run: those that the store lacks, or that are to run again."""
    return [step for step in steps if step.again or not store.has(step.fingerprint)]


def check_records(steps: Sequence[Step]) -> None:
    """Read the data of all steps that will run, and check it.

    Raises:
        DataError: see `alignlab.data.preflight.check_data`.
    """
    by_name = {step.name: step for step in steps}
    needs: dict[str, list[tuple[DataSource, Need]]] = {}
    for step in steps:
        stage = step.build()
        notes = tuple(sorted(stage.needs_notes()))
        of_inputs = _made_of(step, by_name) if notes else []
        compared = [(d, replace(n, notes=notes)) for d, n in of_inputs if n.records == "comparisons"]
        needs[step.name] = [*stage.data_needs(), *compared]
    check_data(needs)


def check_starts(steps: Sequence[Step], store: Store) -> None:
    """Have every step that will run look at where its policy comes from.

    Args:
        steps: all of them.
        store: has the others.

    Raises:
        ConfigError: a step could not train it; the message has its place.
    """
    by_name = {step.name: step for step in steps}
    will_run = {step.name for step in missing(steps, store)}
    for step in (step for step in steps if step.name in will_run and "policy" in step.inputs):
        source = step.inputs["policy"]
        while source in will_run and "policy" in by_name[source].inputs:
            source = by_name[source].inputs["policy"]
        try:
            step.build().check_start(_start(source, by_name, will_run, store))
        except ConfigError as error:
            raise ConfigError(f"{step.spec.path}: {error}") from error


def _start(source: str, by_name: Mapping[str, Step], will_run: Collection[str], store: Store) -> Artifact | Stage:
    """The artifact of a folder or of a stage in the store, or the stage that will make it."""
    if source in will_run:
        return by_name[source].build()
    path = store.path(by_name[source].fingerprint) if source in by_name else Path(source)
    return Artifact.open(path, verify=False)


def needs_of_policy(name: str, steps: Sequence[Step]) -> list[tuple[DataSource, Need]]:
    """Records that all stages with the tokenizer of a step's policy will learn from or answer.

    An evaluation leaves out what does not fit.

    Args:
        name: of the step.
        steps: those that will run. One whose policy comes from elsewhere has another tokenizer.
    """
    by_name = {step.name: step for step in steps}
    origin = _origin(by_name[name], by_name)
    found = []
    for step in steps:
        if _origin(step, by_name) == origin and step.stage.PRODUCES != "evaluation":
            stage = step.build()
            found += list(stage.data_needs())
            skip = getattr(stage, "on_bad_record", "stop") == "skip"
            length = getattr(stage, "max_length", None)
            needs = [] if skip else _made_of(step, by_name)
            found += [(d, Need(n.records, max_length=length)) for d, n in needs if n.records != "prompts"]
    return found


def _made_of(step: Step, by_name: Mapping[str, Step]) -> list[tuple[DataSource, Need]]:
    """Records of the data that other stages only hand on to a step."""
    made = [by_name[s] for k, s in step.inputs.items() if k in MADE_OF_RECORDS and s in by_name]
    return [need for other in made for need in other.build().data_needs()]


def _origin(step: Step, by_name: Mapping[str, Step]) -> str:
    """The first step, or the folder, that a step's policy comes from."""
    while (policy := step.inputs.get("policy", "")) in by_name:
        step = by_name[policy]
    return policy or step.name
