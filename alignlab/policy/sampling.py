"""Sampled answers to prompts, and continuations of texts: `drawing` draws their tokens, on every process that helps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from alignlab import distributed, launched
from alignlab.data.chat import decode, encode_document, encode_prompt
from alignlab.data.records import Prompt
from alignlab.errors import DataError
from alignlab.policy.choice import Sampling
from alignlab.policy.drawing import Drawn, Progress, draw
from alignlab.policy.policy import Policy


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


def sample_of(policy: Policy, prompt: Prompt, prompt_ids: Sequence[int], drawn: Drawn) -> Sample:
    """The sample of a prompt, given the tokens of its answer with their log-probabilities."""
    answer, logp = [token for token, _ in drawn], tuple(logp for _, logp in drawn)
    finished = bool(answer) and answer[-1] in policy.stop_ids
    text = decode(policy.tokenizer, answer[:-1] if finished else answer, visible=True)
    return Sample(prompt, tuple(prompt_ids), tuple(answer), text, finished, logp)
