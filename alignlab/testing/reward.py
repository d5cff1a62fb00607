"""Checks of a reward source: a score depends on its own prompt and answer, and on nothing else."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from torch import Tensor

from alignlab.data.records import Message, Prompt
from alignlab.reward import RewardSource
from alignlab.testing import rules
from alignlab.testing.apply import one_case_each

_CHILD = """
import pickle, sys
path, source, prompts, answers = pickle.loads(sys.stdin.buffer.read())
sys.path[:] = path
source = pickle.loads(source)
sys.stdout.buffer.write(pickle.dumps(source.score(prompts, answers).tolist()))
"""

PROMPTS = (
    Prompt.user("what does ana like ?"),
    Prompt.user("list three things", system="be brief"),
    Prompt((Message("user", "hello"), Message("assistant", "hello ."), Message("user", "and now ?"))),
    Prompt.user("what does ana like ?"),
)
ANSWERS = ("tea", "", "i am not sure , but i think it is rain", "Größe 3 × 4 😀\n- eins\n- zwei", "tea", "tea " * 40)


@dataclass(frozen=True)
class Subject:
    """A reward source under test, and what it is asked to score."""

    make: Callable[[], RewardSource]
    prompts: Sequence[Prompt]
    answers: Sequence[str]
    tolerance: float

    @property
    def name(self) -> str:
        """The source's class."""
        return type(self.make()).__name__

    @cached_property
    def scores(self) -> Tensor:
        """Of all answers in one call of a new source."""
        return self.make().score(self.prompts, self.answers)

    def check(self, found: Tensor, expected: Tensor, what: str) -> None:
        """Insist that two lists of scores are the same, within the tolerance."""
        far = float((found - expected).abs().max())
        assert far <= self.tolerance, f"{self.name}: {what} moves a score by {far:.3g}; its own text alone may do that"


def version_is_a_literal(subject: Subject) -> None:
    """The class states its own VERSION."""
    rules.check_version(subject.make())


def arguments_are_attributes(subject: Subject) -> None:
    """Constructor arguments are attributes, and stay as they are."""
    rules.check_arguments(subject.make())


def one_finite_score_for_each_answer(subject: Subject) -> None:
    """As many scores as answers, floating-point, none of them NaN or infinite, whatever the text."""
    scores = subject.scores
    expected = (len(subject.answers),)
    assert tuple(scores.shape) == expected, f"{subject.name}: scores have shape {tuple(scores.shape)}, not {expected}"
    assert scores.is_floating_point(), f"{subject.name}: scores are {scores.dtype}, expected floating point"
    assert not scores.requires_grad, f"{subject.name}: scores carry a gradient; score under torch.no_grad()"
    bad = [a for a, s in zip(subject.answers, scores.tolist(), strict=True) if s != s or abs(s) == float("inf")]
    assert not bad, f"{subject.name}: the score of {bad[0]!r} is not finite"


def nothing_gives_no_scores(subject: Subject) -> None:
    """Empty lists give an empty tensor, not an error."""
    try:
        scores = subject.make().score([], [])
    except Exception as error:
        raise AssertionError(f"{subject.name}: cannot score an empty list ({error!r}); give an empty tensor") from error
    assert tuple(scores.shape) == (0,), f"{subject.name}: no answers give shape {tuple(scores.shape)}, not (0,)"


def batch_size_changes_nothing(subject: Subject) -> None:
    """One by one, and in twos, the scores are those of one call."""
    for size in (1, 2):
        source = subject.make()
        cuts = [slice(i, i + size) for i in range(0, len(subject.answers), size)]
        found = torch.cat([source.score(subject.prompts[c], subject.answers[c]) for c in cuts])
        subject.check(found, subject.scores, f"scoring {size} at a time")


def order_changes_nothing(subject: Subject) -> None:
    """Backwards, and rotated, each answer keeps its score."""
    backwards = list(range(len(subject.answers)))[::-1]
    for order in (backwards, [*backwards[2:], *backwards[:2]]):
        found = subject.make().score([subject.prompts[i] for i in order], [subject.answers[i] for i in order])
        subject.check(found, subject.scores[order], "another order")


def earlier_calls_change_nothing(subject: Subject) -> None:
    """No memory and no global randomness: the same question again, from another random state, gets the same score."""
    source = subject.make()
    with rules.no_randomness(subject.name, seed=1):
        subject.check(source.score(subject.prompts, subject.answers), subject.scores, "a second source")
    source.score(subject.prompts[:1], ["something else"])
    with rules.no_randomness(subject.name, seed=2):
        subject.check(source.score(subject.prompts, subject.answers), subject.scores, "an earlier call")


def process_changes_nothing(subject: Subject) -> None:
    """A new process with other hash seeds gives the same scores; the source can be pickled to get there."""
    try:
        source = pickle.dumps(subject.make())
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AssertionError(f"{subject.name}: cannot be sent to another process ({error})") from error
    task = pickle.dumps((sys.path, source, list(subject.prompts), list(subject.answers)))
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD], input=task, capture_output=True, env=environment, timeout=300
    )
    assert child.returncode == 0, f"{subject.name}: fails in a new process:\n{child.stderr.decode()[-800:]}"
    found = torch.tensor(pickle.loads(child.stdout), dtype=subject.scores.dtype)
    subject.check(found, subject.scores, "another process")


CHECKS: tuple[Callable[[Subject], None], ...] = (
    version_is_a_literal,
    arguments_are_attributes,
    one_finite_score_for_each_answer,
    nothing_gives_no_scores,
    batch_size_changes_nothing,
    order_changes_nothing,
    earlier_calls_change_nothing,
    process_changes_nothing,
)


def conforms_reward_source(
    make: Callable[[], RewardSource],
    *,
    prompts: Sequence[Prompt] = (),
    answers: Sequence[str] = (),
    tolerance: float = 1e-5,
    skip: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Put a reward source through every check: `@conforms_reward_source(lambda: Length(weight=0.1))`.

    Args:
        make: builds the source; called often. Its class can be imported by name, as a new process must.
        prompts: to be asked in place of the kit's own, for a source that knows only some.
        answers: one for each of `prompts`; the kit adds odd ones (an empty one, a long one, emoji) to the same prompts.
        tolerance: reward units that rounding may move a score by (a model's padding does).
        skip: name of a check -> why it cannot hold here.
    """
    if len(answers) > 0 and len(answers) != len(prompts):
        raise ValueError(f"conforms_reward_source: {len(answers)} answers to {len(prompts)} prompts; give one each")
    known = prompts or PROMPTS
    asked = [known[i % len(known)] for i in range(len(ANSWERS))] + list(prompts[: len(answers)])
    return one_case_each(CHECKS, Subject(make, asked, [*ANSWERS, *answers], tolerance), skip or {})
