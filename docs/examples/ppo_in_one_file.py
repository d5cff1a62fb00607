"""Proximal policy optimisation in one file: python docs/examples/ppo_in_one_file.py (seconds on a CPU).

A policy of random weights learns to answer "tea", and briefly: sample answers, score them, credit each token, step.
"""

import copy

import torch

from alignlab import Loss, Objective, RolloutBatch, TokenStats
from alignlab.advantage import generalized_advantage, token_rewards, whiten
from alignlab.data.records import Prompt
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.objective import tokens
from alignlab.policy import Llama, Policy, Sampling, generate
from alignlab.training.rollouts import rollout_batch
from alignlab.training.step import backward, whole_step

LOGP, VALUE = frozenset({"logp"}), frozenset({"value"})

# The models: a policy, its frozen copy as the reference, and a critic with a scalar head.
prompts = [Prompt.user(f"what does {name} like ?") for name in ("ana", "bo", "cy")]
tokenizer = TrainTokenizer("word", vocab_size=64).train(["what does ana bo cy like ?", "tea rain bread"])
shape = Llama(layers=1, width=32, heads=2, feedforward=64)
policy = Policy(shape.build(tokenizer, seed=0), tokenizer)
reference = copy.deepcopy(policy).requires_grad_(False)
critic = Policy(shape.build(tokenizer, seed=1), tokenizer)
critic.add_score_head(seed=2)


class PPO(Objective[RolloutBatch]):
    """Two terms, each a mean over response tokens: the clipped policy loss and the critic's squared error."""

    needs = LOGP | VALUE
    reads = frozenset({"old_logp", "advantage", "returns"})
    per = {"policy": tokens, "value": tokens}

    def __call__(self, stats: TokenStats, batch: RolloutBatch) -> Loss:
        ratio, advantage = batch.scored(stats.logp - batch.old_logp).exp(), batch.scored(batch.advantage)
        policy = -torch.minimum(advantage * ratio, advantage * ratio.clamp(0.8, 1.2))
        value = 0.5 * batch.scored(stats.value - batch.returns).square()
        return self.loss(batch, policy=policy, value=value, metrics={"ratio": ratio})


def stats(part: RolloutBatch) -> TokenStats:
    """Log-probabilities by the policy, values by the critic."""
    return policy.token_stats(part, LOGP) | critic.token_stats(part, VALUE)


def reward(answer: str) -> float:
    """One unit for "tea", less a tenth per word."""
    return float("tea" in answer.split()) - 0.1 * len(answer.split())


def sample(seed: int) -> RolloutBatch:
    """Eight answers to each prompt with their rewards, as one flat batch."""
    answers = generate(policy, [p for p in prompts for _ in range(8)], Sampling(max_new_tokens=8), seed)
    batch = rollout_batch(answers, samples_per_prompt=8, temperature=1.0)
    return batch.with_sequences(reward=torch.tensor([reward(a.text) for a in answers]))


@torch.no_grad()
def credit(batch: RolloutBatch) -> RolloutBatch:
    """How much better than forecast each token did; every token pays for leaving the reference."""
    now, before = stats(batch), reference.token_stats(batch, LOGP)
    batch = batch.with_tokens(old_logp=now.logp, reference_logp=before.logp)
    rewards, value = token_rewards(batch, beta=0.05, missing_eos_penalty=1.0), batch.scored(now.value)
    advantage = generalized_advantage(rewards, value, batch, gamma=1.0, lam=0.95)
    return batch.with_tokens(returns=advantage + value, advantage=whiten(advantage, batch.weight_by_token()))


objective, optimizer = PPO(), torch.optim.AdamW([*policy.parameters(), *critic.parameters()], lr=3e-3)
for number in range(1, 31):
    rollouts = credit(sample(seed=number))
    for _ in range(2):  # each buffer of rollouts is visited twice
        loss, metrics = backward(objective, whole_step(objective, rollouts, stats, max_tokens=1024), stats)
        optimizer.step()
        optimizer.zero_grad()
    kl = rollouts.sum_by_sequence(rollouts.old_logp - rollouts.reference_logp).mean()
    print(f"buffer {number:2}  reward {float(rollouts.sequence('reward').mean()):5.2f}  KL {float(kl):z5.2f} nats")
print("greedy answer:", generate(policy, prompts[:1], Sampling(temperature=0.0), seed=0)[0].text)
