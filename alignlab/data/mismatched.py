"""Answers to other prompts, from which a baseline is taken that does not depend on how well a prompt is answered."""

from collections.abc import Sequence

from alignlab.data.records import Labelled
from alignlab.errors import DataError


def answers_to_other_prompts(labelled: Sequence[Labelled], more: Sequence[Labelled] = ()) -> list[str]:
    """For each record, the answer of the next one with another prompt; of the same label where there is one.

    The last record is followed by the first. Because labels are kept, both occur as often as in the data: in pairs,
    which list the chosen answer first, the next different prompt alone would give chosen answers only.

    Args:
        labelled: the records.
        more: where all records have the same prompt, the first different one of these serves.

    Raises:
        DataError: there is no other prompt.
    """
    good = _next_with_another_prompt([r if r.good else None for r in labelled])
    bad = _next_with_another_prompt([None if r.good else r for r in labelled])
    spare = next((r for r in more if r.prompt != labelled[0].prompt), None)
    any_label = [found or spare for found in _next_with_another_prompt(labelled)]
    found = [(good if r.good else bad)[i] or any_label[i] for i, r in enumerate(labelled)]
    if None in found:
        raise DataError(
            f"all {len(labelled)} labelled answers are to one prompt, so there is no answer to another one to take a "
            f"baseline from; add other prompts, or choose an objective without a baseline"
        )
    return [r.answer for r in found if r is not None]


def _next_with_another_prompt(records: Sequence[Labelled | None]) -> list[Labelled | None]:
    """For each record, the next one in a circle with another prompt; None where there is none. None is passed over."""
    found: list[Labelled | None] = [None] * len(records)
    following: Labelled | None = None
    different: Labelled | None = None  # the first record after `following` with another prompt than it
    # Backwards and twice around, so that the last records see the first ones.
    for i in reversed(range(2 * len(records))):
        here = records[i % len(records)]
        if here is None:
            continue
        if following is not None and following.prompt != here.prompt:
            different = following
        found[i % len(records)] = different
        following = here
    return found
