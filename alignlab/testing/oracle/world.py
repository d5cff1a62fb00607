"""The enumerable world: every answer of at most three tokens to each of four prompts.

Vocabulary: two words and the stop token, then one token for each prompt. The answers are the 15 sequences that end with
their first stop token or after three tokens; what precedes a token is its *state*.

Axes: P prompts, Y answers, K states of a prompt, V words (the stop token included).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.batch import Batch, LabelledBatch, PreferenceBatch, RolloutBatch, TokenBatch
from alignlab.objective.ties import davidson_probabilities
from alignlab.optimum import Tables

B = TypeVar("B", bound=Batch)

WORDS = 3
STOP = 2
LONGEST = 3


@dataclass(frozen=True)
class World:
    """Answers, a reference, rewards, a teacher and data, all drawn from a seed.

    Args:
        prompts: how many.
        seed: of all tables.
        scale: spread of the rewards, reward units.
    """

    prompts: int = 4
    seed: int = 0
    scale: float = 1.0

    @cached_property
    def answers(self) -> tuple[tuple[int, ...], ...]:
        """Every answer, as token ids."""
        found: list[tuple[int, ...]] = []

        def extend(answer: tuple[int, ...]) -> None:
            if answer and (answer[-1] == STOP or len(answer) == LONGEST):
                found.append(answer)
                return
            for word in range(WORDS):
                extend((*answer, word))

        extend(())
        return tuple(found)

    @cached_property
    def states(self) -> tuple[tuple[int, ...], ...]:
        """Every beginning of an answer that a token follows."""
        return tuple(sorted({a[:i] for a in self.answers for i in range(len(a))}))

    def _draw(self, stream: int, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1000 + stream)
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    @cached_property
    def reference(self) -> Float[Tensor, "P K V"]:
        """Logits of the reference by state."""
        return 0.7 * self._draw(1, self.prompts, len(self.states), WORDS)

    @cached_property
    def teacher(self) -> Float[Tensor, "P K V"]:
        """Logits of the teacher by state."""
        return self._draw(2, self.prompts, len(self.states), WORDS)

    @cached_property
    def data(self) -> Float[Tensor, "P K V"]:
        """Logits, by state, of what given answers are drawn from."""
        return self._draw(3, self.prompts, len(self.states), WORDS)

    @cached_property
    def reward(self) -> Float[Tensor, "P Y"]:
        """The raters' utility, reward units."""
        return self.scale * self._draw(4, self.prompts, len(self.answers))

    @cached_property
    def tables(self) -> Tables:
        """The numbers that closed forms are made of."""
        return Tables(
            answers=self.answers,
            finished=torch.tensor([float(a[-1] == STOP) for a in self.answers], dtype=torch.float64),
            reference=self.of_answers(self.reference),
            reward=self.reward,
            preference=torch.sigmoid(self.reward[:, :, None] - self.reward[:, None, :]),
            teacher=self.of_answers(self.teacher),
            data=self.of_answers(self.data),
        )

    @cached_property
    def _index(self) -> tuple[Tensor, Tensor, Tensor]:
        """State and word of every token of every answer, padded, and where there is one."""
        number = {state: k for k, state in enumerate(self.states)}
        state = torch.zeros(len(self.answers), LONGEST, dtype=torch.long)
        word, there = torch.zeros_like(state), torch.zeros(len(self.answers), LONGEST, dtype=torch.bool)
        for y, answer in enumerate(self.answers):
            for t, token in enumerate(answer):
                state[y, t], word[y, t], there[y, t] = number[answer[:t]], token, True
        return state, word, there

    def of_answers(self, logits: Float[Tensor, "P K V"]) -> Float[Tensor, "P Y"]:
        """Log-probability of every answer, nats."""
        state, word, there = self._index
        logp = logits.log_softmax(-1)[:, state, word]
        return torch.where(there, logp, 0.0).sum(-1)

    def logits_of(self, logp: Float[Tensor, "P Y"]) -> Float[Tensor, "P K V"]:
        """Logits by state of the policy that gives these log-probabilities to the answers, nats."""
        found = []
        for state in self.states:
            after = [
                [y for y, a in enumerate(self.answers) if a[: len(state) + 1] == (*state, w)] for w in range(WORDS)
            ]
            found.append(torch.stack([logp[:, one].logsumexp(-1) for one in after], -1))
        return torch.stack(found, 1).log_softmax(-1)

    def values(self, logp: Float[Tensor, "P Y"], reward: Float[Tensor, "P Y"], beta: float) -> Float[Tensor, "P K"]:
        """Expected payment from each state on, reward units: the reward less beta KL."""
        reference, found = self.tables.reference, []
        for state in self.states:
            after = [y for y, answer in enumerate(self.answers) if answer[: len(state)] == state]
            policy, frozen = logp[:, after].log_softmax(-1), reference[:, after].log_softmax(-1)
            found.append((policy.exp() * (reward[:, after] - beta * (policy - frozen))).sum(-1))
        return torch.stack(found, -1)

    # ---- batches --------------------------------------------------------------------------------------------------
    def rows(self, asked: Sequence[tuple[int, int]]) -> tuple[list[list[int]], list[list[bool]], Tensor, Tensor]:
        """Token rows and masks of (prompt, answer), the state that each token follows, and the answer's number."""
        state, _, _ = self._index
        rows = [[WORDS + p, *self.answers[y]] for p, y in asked]
        masks = [[False] + [True] * len(self.answers[y]) for _, y in asked]
        size = len(self.states)
        states = [[0, *(p * size + state[y, : len(self.answers[y])]).tolist()] for p, y in asked]
        answer = torch.tensor([p * len(self.answers) + y for p, y in asked])
        return rows, masks, torch.tensor([k for row in states for k in row]), answer

    def texts(self) -> TokenBatch:
        """Every answer once, weighted by its probability in the data."""
        asked = [(p, y) for p in range(self.prompts) for y in range(len(self.answers))]
        rows, masks, state, answer = self.rows(asked)
        batch = TokenBatch.of(rows, masks).with_tokens(state=state).with_sequences(answer=answer)
        return _weighted(batch, self.tables.data.exp().flatten()).with_units(ratings=self.reward.flatten()[:, None])

    def pairs(self, flips: float = 0.0, ties: float = 0.0) -> PreferenceBatch:
        """Every ordered pair, weighted by how often the reference draws it and raters so choose.

        Args:
            flips: share of the choices that are turned round.
            ties: how readily raters call a tie (Davidson's nu); above 0, every pair is there once more as a tie.
        """
        count = len(self.answers)
        asked = [(p, y) for p in range(self.prompts) for a in range(count) for b in range(count) for y in (a, b)]
        asked *= 2 if ties else 1
        rows, masks, state, answer = self.rows(asked)
        batch = PreferenceBatch.of(rows, masks).with_tokens(state=state).with_sequences(answer=answer)
        drawn = self.tables.reference.exp()
        true, tied = davidson_probabilities(self._difference, ties)
        # A tie is one of two ordered pairs, as the order of its answers means nothing.
        outcomes = [(1 - flips) * true + flips * true.mT, *([tied / 2] if ties else [])]
        weight = torch.stack([drawn[:, :, None] * drawn[:, None, :] * outcome for outcome in outcomes]).flatten()
        noted = {
            "probability": true,
            "agreement": torch.maximum(true, true.mT),
            "margin": self._difference.abs(),
        }
        batch = _weighted(batch, weight).with_units(**{k: v.flatten().repeat(len(outcomes)) for k, v in noted.items()})
        return batch.with_units(tie=torch.arange(len(outcomes)).repeat_interleave(true.numel()).to(weight.dtype))

    def lists(self, size: int = 3) -> PreferenceBatch:
        """Every ranking of `size` answers that follow each other in `answers`, weighted by how often raters so rank.

        Raters rank as Plackett and Luce have it: the best answer is chosen by utility, then the best of the others. Not
        every set of answers is there, but their comparisons connect all answers, so that the utilities follow.
        """
        count = len(self.answers)
        sets = [[(start + i) % count for i in range(size)] for start in range(count)]
        ranked = torch.tensor([list(order) for one in sets for order in itertools.permutations(one)])
        asked = [(p, y) for p in range(self.prompts) for order in ranked.tolist() for y in order]
        rows, masks, state, answer = self.rows(asked)
        batch = PreferenceBatch.of(rows, masks, unit=[i // size for i in range(len(asked))])
        batch = batch.with_tokens(state=state).with_sequences(answer=answer)
        utility = self.reward[:, ranked]
        chance = sum((utility[..., k] - utility[..., k:].logsumexp(-1) for k in range(size)), utility.new_zeros(()))
        return _weighted(batch, (chance + self.tables.reference[:, ranked].sum(-1)).exp().flatten())

    @property
    def _difference(self) -> Float[Tensor, "P Y Y"]:
        """By how much the first reward of every ordered pair is larger, reward units."""
        return self.reward[:, :, None] - self.reward[:, None, :]

    def labelled(self, is_mismatched: bool = True) -> LabelledBatch:
        """Every answer, called good and called bad, weighted by how often.

        Args:
            is_mismatched: with each answer that the reference gives to another prompt next to it.
        """
        count = len(self.answers)
        drawn, often = self.tables.reference.exp(), torch.sigmoid(self.reward)
        others = range(count) if is_mismatched else [None]
        asked, weight, good = [], [], []
        for p, y, z, label in itertools.product(range(self.prompts), range(count), others, (1.0, 0.0)):
            share = drawn[p, y] * (often[p, y] if label else 1 - often[p, y])
            asked += [(p, y)] if z is None else [(p, y), (p, z)]
            weight.append(float(share if z is None else share * drawn[(p + 1) % self.prompts, z]))
            good.append(label)
        rows, masks, state, answer = self.rows(asked)
        unit = [i // (len(asked) // len(weight)) for i in range(len(asked))]
        batch = LabelledBatch.of(rows, masks, unit=unit).with_tokens(state=state).with_sequences(answer=answer)
        desirable = torch.tensor(good, dtype=torch.float64)
        return _weighted(batch, torch.tensor(weight, dtype=torch.float64)).with_units(desirable=desirable)

    def rollouts(self, grouped: bool) -> RolloutBatch:
        """Every answer once per prompt; or every group of two answers, for what compares the answers of a group."""
        count = len(self.answers)
        each = [(y,) for y in range(count)] if not grouped else [(a, b) for a in range(count) for b in range(count)]
        asked = [(p, y) for p in range(self.prompts) for group in each for y in group]
        rows, masks, state, answer = self.rows(asked)
        size = 2 if grouped else 1
        finished = self.tables.finished[[y for _, y in asked]]
        batch = RolloutBatch.of(rows, masks).with_tokens(state=state)
        batch = _weighted(batch, torch.ones(len(asked), dtype=torch.float64))
        group = torch.arange(len(asked)) // size
        return batch.with_sequences(answer=answer, reward=self.reward.flatten()[answer], finished=finished, group=group)


def _weighted(batch: B, weight: Tensor) -> B:
    return replace(batch, weight=weight)
