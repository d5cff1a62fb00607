"""Sampling answers and scoring them: by the policy, by its frozen reference, and by a reward.

Axes: T tokens, S sequences.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import distributed
from alignlab.batch import RolloutBatch
from alignlab.data.records import Prompt
from alignlab.errors import NonFiniteError
from alignlab.policy import Policy, Sample, Sampling, generate
from alignlab.reward import RewardSource
from alignlab.stage import Runtime
from alignlab_ppo.rollouts import gathered, rollout_batch

_LOGP = frozenset({"logp"})


class Collector:
    """Makes rollout batches: whole, in the order of the prompts, and the same on every process.

    It is no module, so that the models it holds are never trained and never in a checkpoint.

    Args:
        reference: frozen; what the KL is measured to.
        source: scores answers.
        scorer: the model behind `source`, to be moved to the device; none where the source needs no model.
        sampling: how answers are sampled.
        runtime: gives the precision.
        max_tokens: of one forward pass.
    """

    def __init__(
        self,
        reference: Policy,
        source: RewardSource,
        scorer: Policy | None,
        sampling: Sampling,
        runtime: Runtime,
        max_tokens: int,
    ) -> None:
        self.reference = reference.eval().requires_grad_(False)
        self.source = source
        self._scorer = None if scorer is None else scorer.eval().requires_grad_(False)
        self._sampling = sampling
        self._runtime = runtime
        self._max_tokens = max_tokens

    @torch.no_grad()
    def collect(self, policy: Policy, prompts: Sequence[Prompt], each: int, seed: int) -> RolloutBatch:
        """`each` answers to every prompt, with `old_logp`, `reference_logp`, `reward` and `finished`, on the CPU.

        Sample k draws from (seed, k), so the answers do not depend on the number of processes.
        """
        device = policy.device
        mine = _share(len(prompts))
        asked = [prompts[i] for i in mine for _ in range(each)]
        samples = generate(policy, asked, self._sampling, seed, first_index=mine.start * each)
        rollouts = rollout_batch(samples, each, self._sampling.temperature)
        reference = self.reference.to(device)
        old = self.measure(rollouts, lambda b: policy.token_stats(b, _LOGP).logp, device)
        kept = self.measure(rollouts, lambda b: reference.token_stats(b, _LOGP).logp, device)
        rollouts = rollouts.with_tokens(old_logp=old, reference_logp=kept)
        return gathered(rollouts.with_sequences(reward=self._rewards(samples, device)))

    @torch.no_grad()
    def measure(
        self, rollouts: RolloutBatch, by: Callable[[RolloutBatch], Tensor], device: torch.device
    ) -> Float[Tensor, "T"]:
        """A per-token quantity, computed in parts as the training loop would, and brought to the CPU."""
        with self._runtime.autocast():
            return torch.cat([by(part.to(device)).cpu() for part in rollouts.micro_batches(self._max_tokens)])

    def _rewards(self, samples: Sequence[Sample], device: torch.device) -> Float[Tensor, "S"]:
        if self._scorer is not None:
            self._scorer.to(device)
        rewards = self.source.score([s.prompt for s in samples], [s.text for s in samples]).float().cpu()
        bad = (~torch.isfinite(rewards)).nonzero()[:, 0].tolist()
        if bad:
            sample = samples[bad[0]]
            raise NonFiniteError(
                f"{type(self.source).__name__}: scored {float(rewards[bad[0]])} for the answer {sample.text!r} to "
                f"{sample.prompt.text!r}; a reward must be finite"
            )
        return rewards


def check_on_policy(sampling: Sampling, owner: str) -> None:
    """Refuse to sample from another distribution than the one that is trained.

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


def _share(count: int) -> range:
    """Which of `count` prompts this process answers: one stretch each, so that all joined are in order."""
    rank, world = distributed.rank(), distributed.world_size()
    return range(count * rank // world, count * (rank + 1) // world)
