"""Prompts that a policy can be asked: the chat template writes them, and the context leaves room for an answer."""

from collections.abc import Callable, Sequence
from random import Random

from alignlab.data.chat import encode_prompt
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.errors import DataError
from alignlab.policy.policy import Policy


def leaves_room(policy: Policy, prompt: Prompt) -> bool:
    """Whether a prompt can be asked: the chat template writes it, and the context has room for an answer."""
    return not _obstacle(policy, prompt)


def _obstacle(policy: Policy, prompt: Prompt) -> str:
    """Why a prompt cannot be asked; empty where it can."""
    try:
        length = len(encode_prompt(policy.tokenizer, prompt))
    except DataError as error:
        return str(error)
    return "" if length < policy.context else f"{length} tokens fill the model's context of {policy.context}"


def fitting(policy: Policy, prompts: Sequence[Prompt], skip: bool, say: Callable[[str], None]) -> list[Prompt]:
    """The prompts that can be asked.

    Args:
        skip: leave the others out and say how many, and why the first; if not, they are an error.

    Raises:
        DataError: there is one that cannot, or none that can.
    """
    obstacles = [_obstacle(policy, p) for p in prompts]
    kept = [p for p, obstacle in zip(prompts, obstacles, strict=True) if not obstacle]
    if len(kept) == len(prompts):
        return kept
    first, why = next((p, o) for p, o in zip(prompts, obstacles, strict=True) if o)
    what = (
        f"{len(prompts) - len(kept)} of {len(prompts)} prompts cannot be asked (the first, {first.text[:60]!r}: {why})"
    )
    if not skip or not kept:
        raise DataError(f"{what}; change them, or leave them out with data.on_bad_record=skip")
    say(f"{what}; they are left out")
    return kept


def in_turn(
    policy: Policy, source: DataSource, split: Split, count: int, order: str, say: Callable[[str], None]
) -> list[Prompt]:
    """Prompts of a split that can be asked, in a shuffled order, repeated until there are enough.

    Args:
        count: of prompts.
        order: the text that the order is a function of; it begins with the name of the stage.

    Raises:
        DataError: the split has no prompts, or some that cannot be asked and must not be skipped.
    """
    prompts = fitting(policy, source.prompts(split), source.on_bad_record == "skip", say)
    if not prompts:
        raise DataError(f"{type(source).__name__} has no {split} prompts")
    Random(order).shuffle(prompts)
    return [prompts[i % len(prompts)] for i in range(count)]
