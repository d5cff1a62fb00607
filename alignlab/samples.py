"""`samples.jsonl`: what a model said, as the report and the trackers show it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from alignlab.artifact import SAMPLES, write_lines
from alignlab.sanitize import redact_texts


def write_samples(folder: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write the samples of a stage. A key that a model has learnt by heart is redacted: they are shown and sent.

    Args:
        folder: of the artifact.
        rows: one a sample.
    """
    write_lines(folder / SAMPLES, (redact_texts(row) for row in rows))
