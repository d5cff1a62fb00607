"""Sampling answers, in batches, with a key-value cache where the model has one.

Every sample draws its randomness from (seed, its index) alone: one uniform number per token, turned into a token by the
inverse of the cumulative distribution. A sample does not depend on its batch neighbours (beyond rounding), nor on the
batch size. Finished rows leave the batch.

Axes: N samples, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from alignlab import distributed, launched
from alignlab.data.chat import decode, encode_document, encode_prompt
from alignlab.data.records import Prompt
from alignlab.errors import DataError
from alignlab.policy.choice import Sampling, pick
from alignlab.policy.policy import Policy
from alignlab.policy.uncached import next_logits
from alignlab.seed import fold_in


@dataclass(frozen=True)
class Sample:
    """One sampled answer.

    Args:
        prompt: what was asked.
        prompt_ids: its tokens, up to where the answer begins.
        answer_ids: the answer's tokens, the stop token included when it came.
        text: the answer as it was sampled: control tokens in it are visible, the stop token is left out.
        finished: whether a stop token ended it; otherwise it ran into `max_new_tokens` or the context.
        logp: log-probability of each of the answer's tokens under the distribution that it was drawn from (tempered,
            cut and normalised again), by the sampler's own arithmetic; nats. Empty where nothing was drawn.
    """

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    text: str
    finished: bool
    logp: tuple[float, ...] = field(default=(), compare=False)


_SHARED_PRODUCT = 2**20
"""Rows times width squared from which two threads of a CPU take less time for a step than one: measured with 4, 16 and
64 rows of models 128 to 768 wide."""

Progress = Callable[[int, int], None]
Drawn: TypeAlias = list[tuple[int, float]]
"""Tokens of an answer, each with its log-probability, nats."""


def generate(
    policy: Policy,
    prompts: Sequence[Prompt | Sequence[int]],
    sampling: Sampling,
    seed: int,
    batch_size: int = 256,
    progress: Progress | None = None,
    first_index: int = 0,
) -> list[Sample]:
    """One answer to each prompt, in their order.

    Args:
        prompts: conversations, or token ids that end where the answer begins (for a turn of your own format).
        progress: receives (samples done, samples in all) after every batch.
        first_index: index of the first sample, where several processes share the prompts.
    """
    ids = [encode_prompt(policy.tokenizer, p) if isinstance(p, Prompt) else list(p) for p in prompts]
    asked = [p if isinstance(p, Prompt) else Prompt.user(decode(policy.tokenizer, p)) for p in prompts]
    return _sample_all(policy, asked, ids, sampling, seed, batch_size, progress, first_index)


def complete(
    policy: Policy, texts: Sequence[str], sampling: Sampling, seed: int, batch_size: int = 256
) -> list[Sample]:
    """A plain continuation of each text, as of a document: what a base model does."""
    ids = [encode_document(policy.tokenizer, t)[:-1] for t in texts]
    return _sample_all(policy, [Prompt.user(t) for t in texts], ids, sampling, seed, batch_size, None)


def _sample_all(
    policy: Policy,
    prompts: Sequence[Prompt],
    ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    batch_size: int,
    progress: Progress | None,
    first_index: int = 0,
) -> list[Sample]:
    check_room(policy, prompts, ids)
    answers = _draw_by_all(policy, ids, sampling, seed, batch_size, progress, first_index)
    return [sample_of(policy, *made) for made in zip(prompts, ids, answers, strict=True)]


def check_room(policy: Policy, prompts: Sequence[Prompt], ids: Sequence[Sequence[int]]) -> None:
    """Refuse prompts, with their token ids, that leave no room for an answer.

    Raises:
        DataError: names the first one.
    """
    for prompt, row in zip(prompts, ids, strict=True):
        if len(row) >= policy.context:
            raise DataError(
                f"generate: a prompt has {len(row)} tokens and the model's context is {policy.context}, so there is no "
                f"room for an answer; drop or shorten it: {prompt.text[:60]!r}"
            )


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


def _draw_by_all(
    policy: Policy,
    ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    batch_size: int,
    progress: Progress | None,
    first_index: int,
) -> list[Drawn]:
    """As `draw`; other processes that help read the policy from where it came, and draw a part each."""
    helpers, source = distributed.helpers(), policy.read_from
    if helpers is None or source is None or len(ids) <= helpers.count:
        return draw(policy, ids, sampling, seed, batch_size, progress, first_index)
    world, count = helpers.count + 1, len(ids)
    starts = [count * r // world for r in range(world + 1)]
    parts = [(list(ids[a:b]), sampling, seed, batch_size, first_index + a) for a, b in pairwise(starts)]

    def own() -> list[Drawn]:
        told = None if progress is None else (lambda done, mine: progress(done * count // mine, count))
        return draw(policy, *parts[0][:4], told, first_index)

    found = helpers.call(_draw_part, [(source, policy.device.type, *part) for part in parts[1:]], own)
    return [answer for part in found for answer in part]


_last_read: list[tuple[Any, Policy]] = []
"""The policy that this process has helped with last."""


def _draw_part(
    source: tuple[Any, torch.dtype],
    device: str,
    ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    batch_size: int,
    first_index: int,
) -> list[Drawn]:
    """Draw a part for another process."""
    if not _last_read or _last_read[0][0] != source:
        _last_read[:] = [(source, Policy.load(*source))]
    place = torch.device(device, launched.local_rank()) if device == "cuda" else torch.device(device)
    return draw(_last_read[0][1].to(place), ids, sampling, seed, batch_size, None, first_index)


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


def sample_of(policy: Policy, prompt: Prompt, prompt_ids: Sequence[int], drawn: Drawn) -> Sample:
    """The sample of a prompt, given the tokens of its answer with their log-probabilities."""
    answer, logp = [token for token, _ in drawn], tuple(logp for _, logp in drawn)
    finished = bool(answer) and answer[-1] in policy.stop_ids
    text = decode(policy.tokenizer, answer[:-1] if finished else answer, visible=True)
    return Sample(prompt, tuple(prompt_ids), tuple(answer), text, finished, logp)


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
