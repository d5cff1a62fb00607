"""Sampled answers as a rollout batch: sampled by all processes together, scored, and kept in checkpoints.

Axes: T tokens, S sequences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import batch as kinds
from alignlab import distributed
from alignlab.advantage import group_mean, without_signal
from alignlab.batch import Batch, RolloutBatch, concatenate
from alignlab.data.records import Prompt
from alignlab.policy import Policy, Sample, Sampler, Sampling, answers, on_device
from alignlab.reward import RewardSource, score_in_parts
from alignlab.runtime import Runtime
from alignlab.stats import Mean
from alignlab.training.measure import measure

PART = "reward_"
"""Begins the name of an extra that holds a part of the reward; it is logged under that name."""
LOGP_EXTRAS = frozenset({"old_logp", "reference_logp"})
"""Extras of rollouts that take a forward pass each."""

COMPARED = frozenset({"old_logp", "sampler_logp"})
"""Extras of rollouts that show how far the sampler is from the trainer."""


@dataclass(frozen=True)
class Collector:
    """Makes rollout batches: whole, in the order of the prompts, and the same on every process.

    Args:
        reference: frozen; None where `reference_logp` is not read.
        source: scores answers; None leaves them without a reward.
        scorers: the models that `source` scores with, to be moved to the device.
        sampling: how answers are sampled.
        sampler: samples them.
        runtime: gives the device and the precision.
        max_tokens: of one forward pass.
    """

    reference: Policy | None
    source: RewardSource | None
    scorers: Sequence[Policy]
    sampling: Sampling
    sampler: Sampler
    runtime: Runtime
    max_tokens: int

    def collect(
        self, policy: Policy, prompts: Sequence[Prompt], each: int, seed: int, extras: frozenset[str] = LOGP_EXTRAS
    ) -> RolloutBatch:
        """`each` answers to every prompt, with `finished`, `group` and, where a source scores, `reward` and its parts.

        Sample k draws from (seed, k), so the answers do not depend on the number of processes.

        Args:
            extras: `old_logp`, `reference_logp` and `sampler_logp` are filled in where they are named.
        """
        mine = share_of(len(prompts))
        asked = [prompts[i] for i in mine]
        with distributed.whole(policy):
            samples = answers(self.sampler, policy, asked, each, self.sampling, seed, mine.start * each)
            return self.completed(policy, samples, each, extras)

    def completed(self, policy: Policy, samples: Sequence[Sample], each: int, extras: frozenset[str]) -> RolloutBatch:
        """The rollouts of the samples of all processes, see `collect`.

        Args:
            policy: that `old_logp` is of.
            samples: this process's, `each` to a prompt.
            each: answers to a prompt.
            extras: see `collect`.
        """
        rollouts = rollout_batch(samples, each, self.sampling.temperature)
        if "sampler_logp" in extras:
            rollouts = rollouts.with_tokens(sampler_logp=sampler_logp(samples))
        if "old_logp" in extras:
            rollouts = rollouts.with_tokens(old_logp=self.measure(policy, rollouts))
        if "reference_logp" in extras and self.reference is not None:
            with on_device(self.reference, policy.device, self._offloads(policy)) as reference:
                rollouts = rollouts.with_tokens(reference_logp=self.measure(reference, rollouts))
        return gathered(rollouts.with_sequences(**self._rewards(samples)))

    def _offloads(self, policy: Policy) -> bool:
        """Whether the reference leaves the device again; one that shares weights with the policy stays with them."""
        assert self.reference is not None
        mine = {id(p) for p in policy.parameters()}
        return self.runtime.offload_reference and mine.isdisjoint(map(id, self.reference.parameters()))

    def measure(self, policy: Policy, rollouts: RolloutBatch) -> Float[Tensor, "T"]:
        """A policy's log-probabilities of the sampled tokens, at their temperature, nats."""
        return measure(policy, rollouts, self.runtime, self.max_tokens)

    def _rewards(self, samples: Sequence[Sample]) -> dict[str, Float[Tensor, "S"]]:
        """The rewards, and their parts as `reward_NAME`; nothing where no source scores."""
        if self.source is None:
            return {}
        if not samples:  # a process of more than there are prompts; no source needs to score nothing
            return {"reward": torch.zeros(0), **{PART + name: torch.zeros(0) for name in self.source.parts}}
        for scorer in self.scorers:
            scorer.to(self.runtime.device)
        found = score_in_parts(self.source, [s.prompt for s in samples], [s.text for s in samples])
        return {"reward": found.total.float(), **{PART + name: part.float() for name, part in found.parts.items()}}


def check_on_policy(sampling: Sampling, owner: str) -> None:
    """Refuse sampling settings whose distribution is not the trained one.

    Raises:
        ValueError: greedy, or cut by `top_p` or `top_k`.
    """
    if sampling.temperature == 0:
        raise ValueError(f"{owner}: sampling.temperature must be > 0, got 0; greedy answers have no ratio")
    if sampling.top_p != 1 or sampling.top_k != 0:
        raise ValueError(
            f"{owner}: sampling.top_p must be 1 and sampling.top_k 0, got {sampling.top_p} and {sampling.top_k}; a cut "
            f"distribution is not the one that is trained, so ratios would be wrong"
        )


def rollout_batch(samples: Sequence[Sample], samples_per_prompt: int, temperature: float) -> RolloutBatch:
    """One sequence per sample, its answer (stop token included) scored; consecutive samples of a prompt are a group."""
    rows = [[*s.prompt_ids, *s.answer_ids] for s in samples]
    masks = [[False] * len(s.prompt_ids) + [True] * len(s.answer_ids) for s in samples]
    batch = RolloutBatch.of(rows, masks, [s.prompt.text[:60] for s in samples], temperature=temperature)
    group = torch.arange(len(samples)) // samples_per_prompt
    return batch.with_sequences(group=group, finished=torch.tensor([float(s.finished) for s in samples]))


def sampler_logp(samples: Sequence[Sample]) -> Float[Tensor, "T"]:
    """Log-probabilities of sampled tokens as their sampler gave them, nats, aligned with the tokens of `rollout_batch`.

    Raises:
        ValueError: an answer was not drawn, so that no sampler gave it a probability.
    """
    for sample in samples:
        if len(sample.logp) != len(sample.answer_ids):
            raise ValueError(
                f"sampler_logp: the answer to {sample.prompt.text[:60]!r} has {len(sample.answer_ids)} tokens and "
                f"{len(sample.logp)} log-probabilities; answers that were given rather than sampled have none"
            )
    return torch.tensor([x for s in samples for x in (*[0.0] * len(s.prompt_ids), *s.logp)])


@dataclass(frozen=True)
class Drift:
    """How far the sampler's log-probabilities of sampled tokens are from the trainer's.

    Args:
        apart: |trainer's - sampler's|, nats, a mean over tokens.
        most: the largest of them, nats.
        ratio: the trainer's probability over the sampler's, a mean over tokens; 1 in expectation, whatever the policy.
    """

    apart: Mean
    most: float
    ratio: Mean

    @classmethod
    def of(cls, rollouts: RolloutBatch) -> "Drift":
        """Of the response tokens of some rollouts."""
        mask = rollouts.response_mask
        gap = (rollouts.old_logp - rollouts.sampler_logp)[mask].double()
        one = torch.ones_like(gap)
        most = float(gap.abs().max()) if gap.numel() else 0.0
        return cls(Mean.of(gap.abs(), one), most, Mean.of(gap.exp(), one))

    def __add__(self, other: "Drift") -> "Drift":
        return Drift(self.apart + other.apart, max(self.most, other.most), self.ratio + other.ratio)

    def metrics(self) -> dict[str, float]:
        """`sampler_drift`, `sampler_drift_max` and `sampler_ratio`."""
        apart, ratio = float(self.apart.value()), float(self.ratio.value())
        return {"sampler_drift": apart, "sampler_drift_max": self.most, "sampler_ratio": ratio}


def gathered(batch: RolloutBatch) -> RolloutBatch:
    """The batches of all processes joined, the same on each."""
    parts: list[Any] = distributed.gather_objects([batch])
    return concatenate(parts) if len(parts) > 1 else batch


def as_state(batch: Batch) -> dict[str, Any]:
    """The batch as tensors, numbers, texts and their lists and dictionaries: loads with `weights_only`."""
    plain = {f.name: getattr(batch, f.name) for f in fields(batch)}
    plain = {k: dict(v) if isinstance(v, Mapping) else list(v) if isinstance(v, tuple) else v for k, v in plain.items()}
    return {"kind": type(batch).__name__, **plain}


def from_state(state: Mapping[str, Any]) -> Batch:
    """The batch that `as_state` took apart."""
    kind: type[Batch] = getattr(kinds, state["kind"])
    own: dict[str, Any] = {k: tuple(v) if k == "names" else v for k, v in state.items() if k != "kind"}
    return kind(**own)


def summary(rollouts: RolloutBatch) -> dict[str, float]:
    """Means over the answers of a buffer.

    Returns:
        `reward` and each of its parts as `reward_NAME`, where answers were scored; `kl` to the reference in nats (the
        k1 estimate, summed over an answer; by the sampler's arithmetic where that of the trainer is not there yet),
        where it is known; `answer_length` in tokens; `finished`, the share that a
        stop token ended. Where groups have several answers: `without_signal`, the share whose group has equal rewards,
        and `group_variance`, the unbiased variance of the rewards of a group, reward units squared.
    """
    means = {"answer_length": rollouts.response_lengths(), "finished": rollouts.sequence("finished")}
    logp = rollouts.per_token.get("old_logp", rollouts.per_token.get("sampler_logp"))
    if logp is not None and "reference_logp" in rollouts.per_token:
        means = {"kl": rollouts.sum_by_sequence(logp - rollouts.reference_logp), **means}
    if "reward" in rollouts.per_sequence:
        rewards = {k: v for k, v in rollouts.per_sequence.items() if k == "reward" or k.startswith(PART)}
        means = {**rewards, **means, **_signal(rollouts)}
    return {k: float(v.double().mean()) for k, v in means.items()}


def _signal(rollouts: RolloutBatch) -> dict[str, Tensor]:
    """Whether each answer's group has equal rewards, and their variance; nothing where all answers are alone."""
    groups = rollouts.per_sequence.get("group")
    if groups is None or rollouts.num_sequences == groups.unique().numel():
        return {}
    reward = rollouts.sequence("reward").double()
    size = groups.bincount()[groups]
    square = (reward - group_mean(reward, groups)).square() * size / (size - 1)
    return {
        "without_signal": without_signal(rollouts.sequence("reward"), groups).float(),
        "group_variance": square[size > 1],
    }


def share_of(count: int) -> range:
    """Range of the `count` prompts that this process answers: one stretch per process, in the order of ranks."""
    rank, world = distributed.rank(), distributed.world_size()
    return range(count * rank // world, count * (rank + 1) // world)
