"""Judgements of pairs of answers: by raters, who see an order, or by a reward source, which sees one answer at a time.

Axes: N pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from alignlab.artifact import Artifact
from alignlab.policy import check_scored, learned
from alignlab.reward import Choice, Pair, Preference, RewardSource, score_in_parts
from alignlab.runtime import Runtime
from alignlab.stage import Stage

Array = npt.NDArray[np.float64]
Judge = RewardSource | Preference
PORTION = 256
"""Pairs that are judged between two reports of progress."""


@dataclass(frozen=True)
class Verdicts:
    """Judgements of some pairs, each of them shown in both orders.

    Args:
        shown_first: (N,) of the pair's first answer where it is shown first: 1 preferred, 0 not, 0.5 tied.
        shown_second: (N,) of the same answer where it is shown second.
        probability: (N,) that the same answer is preferred where it is not a tie, a mean over both orders; by a reward
            source, that of Bradley and Terry's model.
        parts: (N,) as `shown_first`, by each part of a reward that is made of parts (the members of an ensemble).
    """

    shown_first: Array
    shown_second: Array
    probability: Array
    parts: Mapping[str, Array] = field(default_factory=dict)

    @property
    def outcome(self) -> Array:
        """(N,) mean of both orders."""
        return (self.shown_first + self.shown_second) / 2

    @property
    def prefers_shown_first(self) -> Array:
        """(N,) share of both orders in which what is shown first is preferred; 0.5 without position bias."""
        return (self.shown_first + 1 - self.shown_second) / 2

    @property
    def consistent(self) -> Array:
        """(N,) whether the same answer is preferred in both orders."""
        return np.asarray(self.shown_first == self.shown_second, dtype=np.float64)


def judged(judge: Judge, pairs: Sequence[Pair], report: Callable[[int, int], None]) -> Verdicts:
    """The verdicts on the first answer of each pair. Two equal answers are tied, and nobody is asked.

    Both orders of a pair are one judgement by its number, so that the same rater of a panel sees both.

    Args:
        judge: raters or a reward source.
        pairs: of answers.
        report: receives (pairs judged, pairs in all).
    """
    names = () if isinstance(judge, Preference) else tuple(judge.parts)
    found = np.full((3 + len(names), len(pairs)), 0.5)
    for start in range(0, len(pairs), PORTION):
        places = [i for i in range(start, min(start + PORTION, len(pairs))) if pairs[i].first != pairs[i].second]
        part = [pairs[i] for i in places]
        found[:, places] = _by_raters(judge, part, places) if isinstance(judge, Preference) else _by_reward(judge, part)
        report(min(start + PORTION, len(pairs)), len(pairs))
    first, second, probability, *parts = found
    return Verdicts(first, second, probability, dict(zip(names, parts, strict=True)))


def _by_raters(judge: Preference, pairs: Sequence[Pair], numbers: Sequence[int]) -> Array:
    as_given = judge.compare(pairs, numbers)
    swapped = judge.compare([Pair(p.prompt, p.second, p.first) for p in pairs], numbers)
    both = zip(as_given, swapped, strict=True)
    found = [(_won(a), 1 - _won(b), (a.probability + 1 - b.probability) / 2) for a, b in both]
    return np.array([[row[i] for row in found] for i in range(3)], dtype=np.float64)


def _won(choice: Choice) -> float:
    return 0.5 if choice.tie else float(choice.first)


def _by_reward(judge: RewardSource, pairs: Sequence[Pair]) -> Array:
    prompts = [p.prompt for p in pairs]
    texts = ([p.first for p in pairs], [p.second for p in pairs])
    first, second = (score_in_parts(judge, prompts, answers) for answers in texts)
    both = [(first.total, second.total), *((first.parts[name], second.parts[name]) for name in judge.parts)]
    gaps = np.stack([(one.double() - other.double()).numpy() for one, other in both])
    outcomes = 0.5 + 0.5 * np.sign(gaps)
    return np.stack([outcomes[0], outcomes[0], 0.5 + 0.5 * np.tanh(gaps[0] / 2), *outcomes[1:]])


# ---- of a stage ------------------------------------------------------------------------------------------------------
def check_judged(
    stage: Stage, reward: RewardSource | None, preference: Preference | None, names: frozenset[str]
) -> None:
    """Refuse a stage without a judge, or with two.

    Args:
        stage: whose further inputs are reward models for its reward source to score with.
        reward: its reward source, if it has one.
        preference: its raters, if it has them.
        names: of its inputs.

    Raises:
        ValueError: names the stage and what to set.
    """
    owner = type(stage).__name__
    if preference is not None and (reward is not None or "reward" in names):
        other = "reward" if reward is not None else "inputs.reward"
        raise ValueError(f"{owner}: preference and {other} would both judge; set one of them to null")
    check_scored(stage, reward, names, needed=preference is None)


def judge_of(
    reward: RewardSource | None, preference: Preference | None, inputs: Mapping[str, Artifact], runtime: Runtime
) -> Judge:
    """The judge of a stage that `check_judged` has accepted, its reward models loaded."""
    if preference is not None:
        return preference
    source, scorers = learned(reward, inputs)
    assert source is not None, "see check_judged"
    for scorer in scorers:
        scorer.to(runtime.device)
    return source


def named(judge: Judge) -> str:
    """The judge in a few words."""
    return f"the raters of {type(judge).__name__}" if isinstance(judge, Preference) else judge.describe()
