"""Rollout: where the answers come from that an online stage trains on, behind one small interface.

A `Rollout` is a configuration that opens a `Sampler`; a sampler answers prompts, given as token ids, with the policy
that it was shown last. The built-in one samples by the policy itself. Another engine has kernels of its own, so that
its log-probabilities differ from the trainer's: by how much is measured, and logged, in every buffer.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from alignlab.data.chat import encode_prompt
from alignlab.data.records import Prompt
from alignlab.policy.choice import Sampling
from alignlab.policy.drawing import Drawn, draw
from alignlab.policy.policy import Policy
from alignlab.policy.sampling import Sample, check_room, sample_of
from alignlab.runtime import Runtime


class Sampler(abc.ABC):
    """Answers prompts with one policy at a time. It lives as long as the stage that opened it."""

    @abc.abstractmethod
    def update(self, policy: Policy) -> None:
        """Answer with this policy, as its weights are now, from here on."""

    @abc.abstractmethod
    def sample(
        self, prompts: Sequence[Sequence[int]], each: int, sampling: Sampling, seed: int, first_index: int = 0
    ) -> list[Drawn]:
        """The tokens of `each` answers to every prompt, those to one prompt next to each other.

        An answer ends with the first stop token, which it includes, after `sampling.max_new_tokens`, or where the
        context is full. Answer k draws from (seed, first_index + k) alone. Log-probabilities are of the distribution
        that each token was drawn from: tempered, cut and normalised again.

        Args:
            prompts: token ids that end where the answer begins; each leaves room for an answer.
            each: answers to a prompt.
            sampling: how.
            seed: of all answers.
            first_index: number of the first answer, where several processes share the prompts.
        """

    def rest(self) -> None:  # noqa: B027  # the built-in one holds nothing
        """Give back memory until the next `update`, which comes before the next answer."""

    def close(self) -> None:  # noqa: B027  # the built-in one holds nothing
        """Free what it holds; it is not used again."""


class Rollout(abc.ABC):
    """A source of sampled answers: a configuration, which opens a sampler.

    A concrete class states its `VERSION`, and is a frozen dataclass of the settings that a user can change.
    """

    VERSION: ClassVar[str]
    IS_THE_TRAINERS: ClassVar[bool] = False
    """Whether tokens are drawn by the trainer's own model, so that there is no drift to be measured."""

    def check_runtime(self, runtime: Runtime) -> None:  # noqa: B027  # most can work anywhere
        """Refuse a runtime that it cannot work on, before anything trains.

        Raises:
            ConfigError: says what is missing, and what to do.
        """

    @abc.abstractmethod
    def open(self, policy: Policy, runtime: Runtime) -> Sampler:
        """A sampler for policies of this one's architecture and tokenizer; `update` is called before it samples."""


@dataclass(frozen=True)
class BuiltinRollout(Rollout):
    """Sample by the policy itself, in its own precision (see `alignlab.policy.drawing`)."""

    VERSION: ClassVar[str] = "1"
    IS_THE_TRAINERS: ClassVar[bool] = True

    def open(self, policy: Policy, runtime: Runtime) -> Sampler:
        """A sampler that holds a policy and nothing else."""
        return _Builtin(policy)


class _Builtin(Sampler):
    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def update(self, policy: Policy) -> None:
        self._policy = policy

    def sample(
        self, prompts: Sequence[Sequence[int]], each: int, sampling: Sampling, seed: int, first_index: int = 0
    ) -> list[Drawn]:
        asked = [prompt for prompt in prompts for _ in range(each)]
        return draw(self._policy, asked, sampling, seed, first_index=first_index)


def answers(
    sampler: Sampler,
    policy: Policy,
    prompts: Sequence[Prompt],
    each: int,
    sampling: Sampling,
    seed: int,
    first_index: int = 0,
) -> list[Sample]:
    """A policy's answers to some prompts, `each` to every one, by a sampler that is brought up to date."""
    ids = [encode_prompt(policy.tokenizer, prompt) for prompt in prompts]
    check_room(policy, prompts, ids)
    sampler.update(policy)
    drawn = sampler.sample(ids, each, sampling, seed, first_index)
    sampler.rest()
    return [sample_of(policy, prompts[k // each], ids[k // each], answer) for k, answer in enumerate(drawn)]
