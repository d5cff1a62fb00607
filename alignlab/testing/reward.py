"""Checks of a reward source: a score depends on its own prompt and answer, and on nothing else."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignlab.data.records import Message, Prompt
from alignlab.reward import RewardSource, score_in_parts
from alignlab.testing import rules
from alignlab.testing.apply import Checks, one_case_each, print_checks
from alignlab.testing.process import in_new_process

if TYPE_CHECKING:
    import pytest

PROMPTS = (
    Prompt.user("what does ana like ?"),
    Prompt.user("list three things", system="be brief"),
    Prompt((Message("user", "hello"), Message("assistant", "hello ."), Message("user", "and now ?"))),
    Prompt.user("what does ana like ?"),
)
ANSWERS = ("tea", "", "i am not sure , but i think it is rain", "Größe 3 × 4 😀\n- eins\n- zwei", "tea", "tea " * 40)


@dataclass(frozen=True)
class RewardSubject:
    """A reward source under test, with the answers that it is asked to score.

    Args:
        make: builds the source.
        prompts: one for each answer.
        answers: odd ones among them.
        tolerance: reward units that rounding may move a score by.
    """

    make: Callable[[], RewardSource]
    prompts: Sequence[Prompt]
    answers: Sequence[str]
    tolerance: float = 1e-5

    @property
    def name(self) -> str:
        """The source's class."""
        return type(self.make()).__name__

    @cached_property
    def scores(self) -> Any:
        """Of all answers in one call of a new source, whatever it returns."""
        return self.make().score(self.prompts, self.answers)

    def check(self, found: Tensor, expected: Tensor, what: str) -> None:
        """Insist that two lists of scores are the same, within the tolerance."""
        far = float((found - expected).abs().max())
        assert far <= self.tolerance, (
            f"{self.name}: {what} moves a score by {far:.3g}; a score must depend on its own prompt and answer alone"
        )


def version_is_a_literal(subject: RewardSubject) -> None:
    """The class states its own VERSION."""
    rules.check_version(subject.make())


def arguments_are_attributes(subject: RewardSubject) -> None:
    """Constructor arguments are attributes that cannot be changed afterwards."""
    rules.check_arguments(subject.make())


def one_finite_score_for_each_answer(subject: RewardSubject) -> None:
    """As many scores as answers, floating-point, none of them NaN or infinite, whatever the text."""
    scores = subject.scores
    assert isinstance(scores, Tensor), f"{subject.name}: score() must return a tensor, got a {type(scores).__name__}"
    expected = (len(subject.answers),)
    assert tuple(scores.shape) == expected, f"{subject.name}: scores have shape {tuple(scores.shape)}, not {expected}"
    assert scores.is_floating_point(), f"{subject.name}: scores are {scores.dtype}, expected floating point"
    assert not scores.requires_grad, f"{subject.name}: scores carry a gradient; score under torch.no_grad()"
    bad = [a for a, s in zip(subject.answers, scores.tolist(), strict=True) if s != s or abs(s) == float("inf")]
    assert not bad, f"{subject.name}: the score of {bad[0]!r} is not finite"


def an_empty_list_has_no_scores(subject: RewardSubject) -> None:
    """Empty lists give an empty tensor, not an error."""
    try:
        scores = subject.make().score([], [])
    except Exception as error:
        raise AssertionError(f"{subject.name}: cannot score an empty list ({error!r}); give an empty tensor") from error
    assert tuple(scores.shape) == (0,), f"{subject.name}: no answers give shape {tuple(scores.shape)}, not (0,)"


def batch_size_changes_nothing(subject: RewardSubject) -> None:
    """One by one, and in twos, the scores are those of one call."""
    for size in (1, 2):
        source = subject.make()
        cuts = [slice(i, i + size) for i in range(0, len(subject.answers), size)]
        found = torch.cat([source.score(subject.prompts[c], subject.answers[c]) for c in cuts])
        subject.check(found, subject.scores, f"scoring {size} at a time")


def order_changes_nothing(subject: RewardSubject) -> None:
    """Backwards, and rotated, each answer keeps its score."""
    backwards = list(range(len(subject.answers)))[::-1]
    for order in (backwards, [*backwards[2:], *backwards[:2]]):
        found = subject.make().score([subject.prompts[i] for i in order], [subject.answers[i] for i in order])
        subject.check(found, subject.scores[order], "another order")


def earlier_calls_change_nothing(subject: RewardSubject) -> None:
    """No memory and no global randomness: the same question again, from another random state, gets the same score."""
    source = subject.make()
    with rules.no_randomness(subject.name, seed=1):
        subject.check(source.score(subject.prompts, subject.answers), subject.scores, "a second source")
    source.score(subject.prompts[:1], ["something else"])
    with rules.no_randomness(subject.name, seed=2):
        subject.check(source.score(subject.prompts, subject.answers), subject.scores, "an earlier call")


def process_changes_nothing(subject: RewardSubject) -> None:
    """A new process with other hash seeds gives the same scores; the source can be pickled to get there."""
    found = in_new_process(subject.make(), "score", list(subject.prompts), list(subject.answers))
    subject.check(found, subject.scores, "another process")


def parts_belong_to_the_score(subject: RewardSubject) -> None:
    """`score_in_parts` gives the total that `score` gives, and every named part, whatever else is scored with it."""
    source = subject.make()
    whole = score_in_parts(source, subject.prompts, subject.answers)
    subject.check(whole.total, subject.scores, "score_in_parts() in place of score()")
    for i in range(len(subject.answers)):
        alone = score_in_parts(source, subject.prompts[i : i + 1], subject.answers[i : i + 1])
        for name, part in alone.parts.items():
            subject.check(part, whole.parts[name][i : i + 1], f"part {name}: scoring one at a time")


CHECKS: Checks[RewardSubject] = (
    version_is_a_literal,
    arguments_are_attributes,
    one_finite_score_for_each_answer,
    an_empty_list_has_no_scores,
    batch_size_changes_nothing,
    order_changes_nothing,
    earlier_calls_change_nothing,
    process_changes_nothing,
    parts_belong_to_the_score,
)


def conforms_reward_source(
    make: Callable[[], RewardSource],
    *,
    prompts: Sequence[Prompt] = (),
    answers: Sequence[str] = (),
    tolerance: float = 1e-5,
    skip: Mapping[str, str] | None = None,
) -> "pytest.MarkDecorator":
    """Put a reward source through every check: `@conforms_reward_source(lambda: Length(weight=0.1))`.

    Args:
        make: builds the source; called often. Its class can be imported by name, as a new process must.
        prompts: asked in place of the kit's own, for a source that accepts only some.
        answers: one for each of `prompts`; the kit adds odd ones (an empty one, a long one, emoji) to the same prompts.
        tolerance: reward units that rounding may move a score by (a model's padding does).
        skip: name of a check -> why it cannot hold here.
    """
    return one_case_each(CHECKS, _subject(make, prompts, answers, tolerance), skip or {})


def check_reward_source(
    source: RewardSource,
    *,
    prompts: Sequence[Prompt] = (),
    answers: Sequence[str] = (),
    tolerance: float = 1e-5,
    skip: Mapping[str, str] | None = None,
) -> bool:
    """Print a table of every check's outcome; returns whether none failed. Needs no pytest.

    Args:
        source: copied for each check.
        prompts: see `conforms_reward_source`, as the others.
    """
    subject = _subject(lambda: copy.deepcopy(source), prompts, answers, tolerance)
    return print_checks(subject.name, CHECKS, subject, skip or {})


def _subject(
    make: Callable[[], RewardSource], prompts: Sequence[Prompt], answers: Sequence[str], tolerance: float
) -> RewardSubject:
    if len(answers) > 0 and len(answers) != len(prompts):
        raise ValueError(f"conforms_reward_source: {len(answers)} answers to {len(prompts)} prompts; give one each")
    known = prompts or PROMPTS
    asked = [known[i % len(known)] for i in range(len(ANSWERS))] + list(prompts[: len(answers)])
    return RewardSubject(make, asked, [*ANSWERS, *answers], tolerance)
