"""Checks of a rollout: its sampler draws from the policy that it was shown last, and from nothing else."""

import copy
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.batch import RolloutBatch
from alignlab.data.chat import encode_prompt
from alignlab.data.records import Prompt
from alignlab.policy import Drawn, Policy, Rollout, Sampler, Sampling
from alignlab.runtime import Runtime
from alignlab.testing import rules
from alignlab.testing.apply import Checks, one_case_each, print_checks
from alignlab.testing.artifacts import tiny_policy_artifact

if TYPE_CHECKING:
    import pytest

EACH = 4
FEW = Sampling(temperature=0.7, max_new_tokens=6)
TEXTS = ("what does ana like ?", "tea", "what does bo think ?", "tea", "rain and bread or tea " * 4)
"""Prompts of unequal length; two of them are the same, and the last one leaves little room."""
ENDS = ("tea", "like", "sure", "or")
"""Words that end an answer, too."""
DRAWS = 600
"""Answers by which frequencies are compared with probabilities."""
DEVIATIONS = 4.5
"""Standard deviations that the count of a token may be off by; the seed is fixed, so that it is so once for all."""


@dataclass(frozen=True)
class RolloutSubject:
    """A rollout under test, with two tiny policies.

    Args:
        make: builds the rollout; its sampler is opened once.
        runtime: where it computes.
        tolerance: nats by which its log-probabilities may differ from the trainer's.
    """

    make: Callable[[], Rollout]
    runtime: Runtime = field(default_factory=lambda: Runtime(accelerator="cpu"))
    tolerance: float = 1e-4

    @property
    def name(self) -> str:
        """The rollout's class."""
        return type(self.make()).__name__

    @cached_property
    def policies(self) -> tuple[Policy, Policy]:
        """Two policies of one architecture."""
        folder = Path(tempfile.mkdtemp(prefix="conforms-"))
        try:
            one, other = (self._policy(folder / str(seed), seed) for seed in (0, 1))
        finally:
            shutil.rmtree(folder / "1", ignore_errors=True)  # the sampler may read the first one's configuration
        return one, other

    def _policy(self, folder: Path, seed: int) -> Policy:
        policy = Policy.load(tiny_policy_artifact(folder, seed), self.runtime.dtype).to(self.runtime.device)
        more = [policy.tokenizer.convert_tokens_to_ids(word) for word in ENDS]
        policy.model.generation_config.eos_token_id = more  # besides the trained one, as many models have it
        return policy

    @cached_property
    def _sampler(self) -> Sampler:
        return self.make().open(self.policies[0], self.runtime)

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Token ids of `TEXTS`."""
        return [encode_prompt(self.policies[0].tokenizer, Prompt.user(text)) for text in TEXTS]

    def sampler(self, policy: int = 0) -> Sampler:
        """The sampler, with the weights of one of the policies."""
        self._sampler.update(self.policies[policy])
        return self._sampler

    def answers(self, seed: int = 1, policy: int = 0, sampling: Sampling = FEW) -> list[Drawn]:
        """Answers to all prompts."""
        found = self.sampler(policy).sample(self.prompts, EACH, sampling, seed)
        assert len(found) == EACH * len(self.prompts), (
            f"{self.name}: gave {len(found)} answers to {len(self.prompts)} prompts, {EACH} to each"
        )
        return found

    @torch.no_grad()
    def logp(self, policy: int, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Float[Tensor, "t"]]:
        """Log-probabilities of the answers of (prompt, answer) rows by a policy, as the trainer computes them."""
        whole = [[*prompt, *answer] for prompt, answer in rows]
        masks = [[False] * len(prompt) + [True] * len(answer) for prompt, answer in rows]
        batch = RolloutBatch.of(whole, masks, temperature=FEW.temperature).to(self.runtime.device)
        with self.runtime.autocast():
            found = self.policies[policy].token_stats(batch, frozenset({"logp"})).logp
        return list(found[batch.response_mask].float().cpu().split([len(answer) for _, answer in rows]))

    def check_logp(self, answers: Sequence[Drawn], policy: int, when: str) -> None:
        """Insist that the log-probabilities of answers are those of a policy."""
        prompts = [prompt for prompt in self.prompts for _ in range(EACH)]
        own = self.logp(policy, [(p, tokens(a)) for p, a in zip(prompts, answers, strict=True)])
        pairs = zip(answers, own, strict=True)
        far = max(float((torch.tensor([x for _, x in a]) - o).abs().max()) for a, o in pairs)
        assert far <= self.tolerance, (
            f"{self.name}: {when}, log-probabilities of sampled tokens are up to {far:.3g} nats from the policy's at "
            f"the sampling temperature of {FEW.temperature}"
        )


def tokens(answer: Drawn) -> list[int]:
    """Token ids of an answer."""
    return [token for token, _ in answer]


def version_is_a_literal(subject: RolloutSubject) -> None:
    """The class states its own VERSION."""
    rules.check_version(subject.make())


def arguments_are_attributes(subject: RolloutSubject) -> None:
    """Constructor arguments are attributes that cannot be changed afterwards."""
    rules.check_arguments(subject.make())


def answers_end_where_they_must(subject: RolloutSubject) -> None:
    """With the first stop token, which is part of the answer, with the longest length, or where the context is full."""
    policy, ended = subject.policies[0], 0
    for number, answer in enumerate(subject.answers()):
        found, prompt = tokens(answer), subject.prompts[number // EACH]
        room = min(FEW.max_new_tokens, policy.context - len(prompt))
        stops = [t in policy.stop_ids for t in found]
        assert found and not any(stops[:-1]), f"{subject.name}: {found} goes on after a stop token, or is empty"
        assert stops[-1] or len(found) == room, (
            f"{subject.name}: {found} has {len(found)} tokens and no stop token at its end, where there was room for "
            f"{room}; the stop token belongs to the answer"
        )
        assert len(found) <= room, f"{subject.name}: {found} has {len(found)} tokens, where there was room for {room}"
        ended += stops[-1]
    assert ended, f"{subject.name}: no answer was ended by a stop token, of a policy whose answers often are"


def a_seed_gives_the_same_answers(subject: RolloutSubject) -> None:
    """Twice the same from one seed, whatever the global random state; others from another; several to one prompt."""
    torch.manual_seed(1)
    first = subject.answers(seed=1)
    torch.manual_seed(2)
    assert _texts(subject.answers(seed=1)) == _texts(first), f"{subject.name}: one seed gave different answers"
    assert _texts(subject.answers(seed=2)) != _texts(first), f"{subject.name}: another seed gave the same answers"
    to_one = {tuple(t) for t in _texts(first)[:EACH]}
    assert len(to_one) > 1, f"{subject.name}: all {EACH} answers to one prompt are the same"


def neighbours_change_nothing(subject: RolloutSubject) -> None:
    """Answer k depends on its own prompt and on (seed, first_index + k), not on what else is sampled."""
    together = _texts(subject.answers())
    for number, prompt in enumerate(subject.prompts):
        alone = _texts(subject.sampler().sample([prompt], EACH, FEW, 1, first_index=number * EACH))
        assert alone == together[number * EACH : (number + 1) * EACH], (
            f"{subject.name}: prompt {number} alone, with first_index={number * EACH}, is answered otherwise than "
            f"among {len(subject.prompts)} prompts"
        )


def log_probabilities_are_tempered(subject: RolloutSubject) -> None:
    """They are the policy's own, at the sampling temperature."""
    subject.check_logp(subject.answers(), 0, "sampled")


def tokens_are_as_frequent_as_they_are_likely(subject: RolloutSubject) -> None:
    """The first tokens of many answers to one prompt, counted, against the policy's probabilities."""
    prompt, vocabulary = subject.prompts[0], len(subject.policies[0].tokenizer)
    one = Sampling(temperature=FEW.temperature, max_new_tokens=1)
    drawn = [tokens(a)[0] for a in subject.sampler().sample([prompt], DRAWS, one, seed=3)]
    count = torch.bincount(torch.tensor(drawn), minlength=vocabulary)
    likely = torch.cat(subject.logp(0, [(prompt, [token]) for token in range(vocabulary)])).exp()
    allowed = DEVIATIONS * (DRAWS * likely * (1 - likely)).sqrt() + 1
    token = int(((count - DRAWS * likely).abs() - allowed).argmax())
    assert abs(float(count[token] - DRAWS * likely[token])) <= float(allowed[token]), (
        f"{subject.name}: token {token} has probability {float(likely[token]):.3f}, and was drawn {int(count[token])} "
        f"times out of {DRAWS}"
    )


def an_update_changes_who_answers(subject: RolloutSubject) -> None:
    """After `update` it is the given policy that answers, also after `rest`, and also one that has moved in place."""
    before = subject.answers()
    subject.check_logp(subject.answers(policy=1), 1, "after an update to another policy")
    subject.sampler().rest()
    assert _texts(subject.answers()) == _texts(before), f"{subject.name}: updated back, it answers otherwise"
    weight = subject.policies[0].model.get_output_embeddings().weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(0.5)
        subject.check_logp(subject.answers(), 0, "after an update to a policy whose weights had moved")
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def _texts(answers: Sequence[Drawn]) -> list[list[int]]:
    return [tokens(answer) for answer in answers]


CHECKS: Checks[RolloutSubject] = (
    version_is_a_literal,
    arguments_are_attributes,
    answers_end_where_they_must,
    a_seed_gives_the_same_answers,
    neighbours_change_nothing,
    log_probabilities_are_tempered,
    tokens_are_as_frequent_as_they_are_likely,
    an_update_changes_who_answers,
)


def conforms_rollout(
    make: Callable[[], Rollout],
    *,
    runtime: Runtime | None = None,
    tolerance: float = 1e-4,
    skip: Mapping[str, str] | None = None,
) -> "pytest.MarkDecorator":
    """Put a rollout through every check: `@conforms_rollout(BuiltinRollout)`.

    Args:
        make: builds the rollout; its sampler is opened once.
        runtime: where it computes; by default on the CPU in float32.
        tolerance: nats by which its log-probabilities may differ from the trainer's; 0.05 in bfloat16.
        skip: name of a check -> why it cannot hold here.
    """
    return one_case_each(CHECKS, RolloutSubject(make, runtime or Runtime(accelerator="cpu"), tolerance), skip or {})


def check_rollout(
    rollout: Rollout,
    *,
    runtime: Runtime | None = None,
    tolerance: float = 1e-4,
    skip: Mapping[str, str] | None = None,
) -> bool:
    """Print a table of every check's outcome; returns whether none failed. Needs no pytest.

    Args:
        rollout: copied where it is opened.
        runtime: see `conforms_rollout`, as `tolerance` and `skip`.
    """
    own = runtime or Runtime(accelerator="cpu")
    subject = RolloutSubject(lambda: copy.deepcopy(rollout), own, tolerance)
    return print_checks(subject.name, CHECKS, subject, skip or {})
