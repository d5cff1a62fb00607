"""Stages, and parts of stages, that several jobs need, to be computed before they start."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from alignlab.errors import PipelineError, suggestion
from alignlab.pipeline.plan import Step

MODELS: Final = ("policy", "reward_model")


def shared(jobs: Sequence[Sequence[Step]], until: str | None = None) -> list[list[Step]]:
    """For each job the stages that others need, too; of a single job those before its last model.

    A stage is listed for the first of the jobs that need it. With a stage its ancestors are listed, since they are
    needed by the same jobs.

    Args:
        jobs: the steps of each.
        until: only ancestors of this stage.

    Raises:
        PipelineError: no job has a stage of that name.
    """
    _check(until, jobs)
    if len(jobs) == 1 and until is None:
        until = _last_model(jobs[0])
    needed = Counter(key for steps in jobs for key in {step.fingerprint for step in steps})
    seen, found = set[str](), list[list[Step]]()
    for steps in jobs:
        wanted = ancestors(steps, until) if until is not None else {step.name for step in steps}
        own = [s for s in steps if s.name in wanted and (len(jobs) == 1 or needed[s.fingerprint] > 1)]
        found.append([step for step in own if step.fingerprint not in seen])
        seen.update(step.fingerprint for step in own)
    return found


def shared_parts(
    jobs: Sequence[Sequence[Step]], is_missing: Callable[[Step], bool], until: str | None = None
) -> list[list[Step]]:
    """For each job the stages of which only a part is shared (`Step.shares`); each part is listed once.

    Args:
        jobs: the steps of each.
        is_missing: whether a stage is still to be made.
        until: only parts of this stage's ancestors.
    """
    users: dict[str, set[str]] = {}
    for step in (step for steps in jobs for step in steps if step.shares is not None and is_missing(step)):
        users.setdefault(step.shared_recipe, set()).add(step.fingerprint)
    seen, found = set[str](), list[list[Step]]()
    for steps in jobs:
        wanted = ancestors(steps, until) if until is not None else {step.name for step in steps}
        of_several = [s for s in steps if s.name in wanted and len(users.get(s.shared_recipe, ())) > 1]
        own = [step for step in of_several if is_missing(step)]
        found.append([s for s in own if s.shared_recipe not in seen])
        seen.update(step.shared_recipe for step in own)
    return found


def before_part(steps: Sequence[Step], step: Step) -> set[str]:
    """Names of the stages that the shared part of a stage comes from."""
    assert step.shares is not None
    taken = {step.inputs[name] for name in step.from_stages & step.shares.inputs}
    return taken.union(*(ancestors(steps, name) for name in taken))


def ancestors(steps: Sequence[Step], name: str) -> set[str]:
    """Names of the stages that a stage comes from; none where there is no stage of that name."""
    by_name = {step.name: step for step in steps}
    found, todo = set[str](), [name] if name in by_name else []
    while todo:
        step = by_name[todo.pop()]
        fresh = {step.inputs[key] for key in step.from_stages} - found
        found |= fresh
        todo += fresh
    return found


def _check(until: str | None, jobs: Sequence[Sequence[Step]]) -> None:
    known = list(dict.fromkeys(step.name for steps in jobs for step in steps))
    if until is not None and until not in known:
        raise PipelineError(f"--until {until}: no such stage; stages: {', '.join(known)}{suggestion(until, known)}")


def _last_model(steps: Sequence[Step]) -> str | None:
    """The last stage that makes a model; what comes after it is measured, not trained."""
    models = [step.name for step in steps if step.stage.PRODUCES in MODELS]
    return models[-1] if models else None
