"""Direct preference optimisation in one file: python docs/examples/dpo_in_one_file.py (seconds on a CPU)."""

from functools import partial

import torch

from alignlab import Loss, Objective, PreferenceBatch, TokenStats
from alignlab.data.records import Comparison, Prompt
from alignlab.data.rows import Truncation, comparison_rows, preference_batch
from alignlab.data.tokenizer import TrainTokenizer
from alignlab.policy import Llama, Policy
from alignlab.training.step import backward, whole_step


class DPO(Objective[PreferenceBatch]):
    reads = frozenset({"reference_logp"})

    def __call__(self, stats: TokenStats, batch: PreferenceBatch) -> Loss:
        gain = batch.sum_by_sequence(stats.logp - batch.reference_logp)  # nats per answer, over the reference
        margin = batch.chosen(gain) - batch.rejected(gain)
        return self.loss(batch, loss=-torch.nn.functional.logsigmoid(0.1 * margin), metrics={"margin": margin})


# Pairs of answers, the preferred one first; a tokenizer of their words; a small Llama of random weights.
pairs = [Comparison(Prompt.user(f"what does {name} like ?"), "tea", "rain i think") for name in ("ana", "bo", "cy")]
tokenizer = TrainTokenizer("word", vocab_size=64).train(["what does ana bo cy like ?", "tea rain i think"])
policy = Policy(Llama(layers=1, width=32, heads=2, feedforward=64).build(tokenizer, seed=0), tokenizer)

# One flat batch. The reference is the policy as it is now: its log-probabilities are taken once, before training.
objective = DPO()
stats = partial(policy.token_stats, needs=objective.needs)
batch = preference_batch(comparison_rows(tokenizer, pairs, Truncation(policy.context)))
batch = batch.with_tokens(reference_logp=stats(batch).logp.detach())

optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
for step in range(1, 31):
    loss, metrics = backward(objective, whole_step(objective, batch, stats, max_tokens=32), stats)
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step:2}  loss {float(loss.value()):.4f}  margin {float(metrics['margin'].value()):z5.2f} nats")
