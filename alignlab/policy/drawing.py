"""Drawing the tokens of answers, in batches, with a key-value cache where the model has one.

Every sample draws its randomness from (seed, its index) alone: one uniform number per token, turned into a token by the
inverse of the cumulative distribution. A sample does not depend on its batch neighbours (beyond rounding), nor on the
batch size. Finished rows leave the batch.

Axes: N samples, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from alignlab.policy.choice import Sampling, pick
from alignlab.policy.policy import Policy
from alignlab.policy.uncached import next_logits
from alignlab.seed import fold_in

_SHARED_PRODUCT = 2**20
"""Rows times width squared from which two threads of a CPU take less time for a step than one: measured with 4, 16 and
64 rows of models 128 to 768 wide."""

Progress = Callable[[int, int], None]
Drawn: TypeAlias = list[tuple[int, float]]
"""Tokens of an answer, each with its log-probability, nats."""


@torch.no_grad()
def draw(
    policy: Policy,
    ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    batch_size: int = 256,
    progress: Progress | None = None,
    first_index: int = 0,
) -> list[Drawn]:
    """The tokens of one answer to each prompt, given as token ids; see `generate`."""
    training = policy.training
    policy.eval()
    answers: dict[int, Drawn] = {}
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    try:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            uniforms = torch.stack([_uniforms(seed, first_index + i, sampling.max_new_tokens) for i in index])
            with _threads_for(policy, len(index)):
                found = _sample_batch(policy, [ids[i] for i in index], sampling, uniforms.to(policy.device))
            answers.update(zip(index, found, strict=True))
            if progress is not None:
                progress(len(answers), len(order))
    finally:
        policy.train(training)
    return [answers[i] for i in range(len(ids))]


@contextlib.contextmanager
def _threads_for(policy: Policy, rows: int) -> Iterator[None]:
    """One thread where a step's matrix products are too small to share: to wake another takes longer than its half."""
    embedding: Any = policy.model.get_input_embeddings()
    width, before = embedding.weight.shape[1], torch.get_num_threads()
    alone = policy.device.type == "cpu" and rows * width**2 < _SHARED_PRODUCT
    if alone:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if alone:
            torch.set_num_threads(before)


def _uniforms(seed: int, index: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(fold_in(seed, index))
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _sample_batch(policy: Policy, ids: Sequence[Sequence[int]], sampling: Sampling, uniforms: Tensor) -> list[Drawn]:
    """Answers to prompts of similar length; padded on the left, which the attention mask hides.

    Equal prompts are run once, and their keys and values are then copied to the rows of their answers. From a model
    that cannot be sampled from with a cache, every token takes a pass over its whole row.
    """
    device, longest = policy.device, max(map(len, ids))
    stop = torch.tensor(sorted(policy.stop_ids), device=device)
    each = list(dict.fromkeys(map(tuple, ids)))
    number = {row: i for i, row in enumerate(each)}
    answers_to = torch.tensor([number[tuple(row)] for row in ids], device=device)
    tokens = torch.tensor([[0] * (longest - len(row)) + list(row) for row in each], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in each], device=device)
    alive = torch.arange(len(ids), device=device)
    # Each row's own room, so that a longer neighbour does not shorten an answer.
    room = torch.tensor([min(sampling.max_new_tokens, policy.context - len(row)) for row in ids], device=device)
    answers: list[Drawn] = [[] for _ in ids]
    cache, whole = None, bool(policy.cache_obstacle())
    for t in range(int(room.max())):
        if whole:
            logits = next_logits(policy.model, [[*ids[r], *(k for k, _ in answers[r])] for r in alive.tolist()])
        else:
            logits, cache = _step(policy, tokens, mask, cache)
            if t == 0 and len(each) < len(ids):
                cache.batch_select_indices(answers_to)
                logits = logits[answers_to]
        mask = mask[answers_to] if t == 0 else mask
        chosen, logp = pick(logits, uniforms[alive, t], sampling)
        for row, token in zip(alive.tolist(), zip(chosen.tolist(), logp.tolist(), strict=True), strict=True):
            answers[row].append(token)
        going = (~torch.isin(chosen, stop) & (t + 1 < room[alive])).nonzero()[:, 0]
        if not going.numel():
            break
        if cache is not None and going.numel() < alive.numel():
            cache.batch_select_indices(going)
        alive, tokens = alive[going], chosen[going, None]
        mask = torch.cat([mask[going], mask.new_ones(going.numel(), 1)], 1)
    return answers


def _step(policy: Policy, tokens: Tensor, mask: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Logits of the next token of each row, and the cache with the tokens that were read."""
    position = (mask.cumsum(1) - 1).clamp_min(0)
    output = policy.model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=position[:, -tokens.shape[1] :],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1], output.past_key_values
