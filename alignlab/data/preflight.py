"""Preflight: find problems of the data of all stages before any of them trains.

Two questions, each answered in one message that lists everything (a third, whether the records fit, needs a tokenizer:
`alignlab.data.lengths`):

- `check_settings`: is a file missing that some stage reads, or is nothing held out where a stage needs it? It follows
  from the arguments alone, so that a plan can check it;
- `check_data`: can the records be read, does each part that is needed hold records, is every prompt in one part only?
  Checked first in a run, for all stages that will run.
"""

from collections.abc import Mapping, Sequence

from alignlab.data.source import DataSource, Need
from alignlab.errors import DataError, MissingDataError

Needs = Mapping[str, Sequence[tuple[DataSource, Need]]]
"""For each stage by name, the data that it reads."""


def check_settings(needs: Needs) -> None:
    """Check that every stage's data is set; reads nothing.

    Args:
        needs: of all stages of a plan.

    Raises:
        MissingDataError: something is not; the message lists every setting with the stages that need it.
    """
    if unset := _unset(needs):
        lines = [f"{setting} for {', '.join(stages)}" for setting, stages in unset.items()]
        raise MissingDataError(f"data is missing; set {'; '.join(lines)}")


def check_data(needs: Needs) -> None:
    """Read the data of all stages, and check that they can use it.

    Args:
        needs: of the stages that will run (not of those whose artifacts are there already).

    Raises:
        MissingDataError: as `check_settings`.
        DataError: records are bad, a part that is needed is empty, or a prompt is in two parts.
    """
    check_settings(needs)
    problems = [line for source, wanted in _by_source(needs) for line in source.check(wanted)]
    if len(problems) == 1:
        raise DataError(problems[0])
    if problems:
        indented = ["\n  ".join(line.split("\n")) for line in dict.fromkeys(problems)]
        raise DataError("\n  ".join(["the data cannot be used as it is:", *indented]))


def _unset(needs: Needs) -> dict[str, list[str]]:
    """Each setting that is missing, and the stages that need it, with the reason where they give one."""
    found: dict[str, list[str]] = {}
    for stage, wanted in needs.items():
        for source, need in wanted:
            if setting := source.unset(need):
                stages = found.setdefault(setting, [])
                named = f"{stage} ({need.why})" if need.why else stage
                stages += [] if named in stages else [named]
    return found


def _by_source(needs: Needs) -> list[tuple[DataSource, list[Need]]]:
    """The needs of all stages, by the source that meets them."""
    found: dict[int, tuple[DataSource, list[Need]]] = {}
    for wanted in needs.values():
        for source, need in wanted:
            found.setdefault(id(source), (source, []))[1].append(need)
    return list(found.values())
