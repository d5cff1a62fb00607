"""Whether the code and data of a sweep's job are those with which the sweep began.

A job may begin hours after its sweep, in a process that reads the files as they are by then. Its numbers would stand in
one table with those of jobs that read them before the change, so it is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.artifact import fingerprint
from alignlab.errors import PipelineError
from alignlab.pipeline.plan import Step


def sources(steps: Sequence[Step]) -> dict[str, str]:
    """Digests of what a job reads from files, by what they are called in messages."""
    found = {f"the code of {step.name}": fingerprint(dict(step.code)) for step in steps}
    for step in steps:
        outside = {k: v for k, v in step.input_fingerprints.items() if k not in step.from_stages}
        found.update({f"{step.name}.inputs.{name}": digest for name, digest in outside.items()})
    read = {id(source): source.content_digest() for step in steps for source in step.builder.shared()}
    return found | {"data": fingerprint(sorted(read.values()))}


def check_unchanged(record: Mapping[str, Any], steps: Sequence[Step]) -> None:
    """Compare a job with the record that its sweep made of it.

    Raises:
        PipelineError: code or data has changed since.
    """
    before, now = record.get("reads") or {}, sources(steps)
    if changed := [what for what in before if now.get(what) != before[what]]:
        raise PipelineError(
            f"changed since this sweep began: {', '.join(changed)}. This job's numbers would not fit those of the "
            f"others; undo the change, or start the sweep again (sweep.resume=true keeps the jobs that it does not "
            f"concern)"
        )
