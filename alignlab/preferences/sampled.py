"""Sampled answers to be judged: several to each prompt, by a policy."""

from collections.abc import Sequence

from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.policy import Policy, Sampling, generate, in_turn
from alignlab.seed import fold_in
from alignlab.stage import StageContext

SPLITS: tuple[Split, ...] = ("train", "validation")


def prompts_of_both(
    policy: Policy, data: DataSource, counts: Sequence[int], order: str, context: StageContext
) -> list[Prompt]:
    """Prompts to be answered: first those for training, then those for validation.

    Args:
        policy: that will be asked.
        data: gives the prompts.
        counts: prompts of each split; they are repeated in a shuffled order until there are enough.
        order: the text that the order is a function of; it begins with the name of the stage.
        context: receives what is left out.
    """
    return [
        prompt
        for split, count in zip(SPLITS, counts, strict=True)
        for prompt in in_turn(policy, data, split, count, f"{order}:{split}", context.tracker.say)
    ]


def answers_to(
    policy: Policy, prompts: Sequence[Prompt], each: int, sampling: Sampling, seed: int, context: StageContext
) -> list[list[str]]:
    """`each` answers to every prompt. They are drawn alike, so their order is random as it is."""
    repeated = [p for p in prompts for _ in range(each)]

    def progress(done: int, total: int) -> None:
        context.tracker.progress(done // each, total // each, {})

    texts = [s.text for s in generate(policy, repeated, sampling, fold_in(seed, 1), progress=progress)]
    return [texts[i : i + each] for i in range(0, len(texts), each)]
