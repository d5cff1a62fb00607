"""Checks of an advantage: a pure function of the whole rollout buffer, of its response tokens alone."""

from dataclasses import fields, replace

import torch
from torch import Tensor

from alignlab.advantage import credited, last_response_token
from alignlab.batch import Batch
from alignlab.testing import rules
from alignlab.testing.advantage.subject import EACH, GROUPS, AdvantageSubject
from alignlab.testing.apply import DoesNotApply
from alignlab.testing.batches import longer_prompts
from alignlab.testing.compare import close, same_bits

SIGNAL = 1e-2
"""Largest advantage that rounding may give to equal rewards; real advantages are about 1."""


def version_is_a_literal(subject: AdvantageSubject) -> None:
    """The class states its own VERSION."""
    rules.check_version(subject.make())


def arguments_are_attributes(subject: AdvantageSubject) -> None:
    """Constructor arguments are attributes that cannot be changed afterwards."""
    rules.check_arguments(subject.make())


def declares_what_it_reads(subject: AdvantageSubject) -> None:
    """`reads` names every extra that it takes from the buffer."""
    try:
        subject.make()(subject.buffer())
    except KeyError as error:
        raise AssertionError(f"{subject.name}: {error.args[0]}") from error


def keeps_the_buffer(subject: AdvantageSubject) -> None:
    """The result is the same buffer with a finite `advantage` per token: everything else keeps its bits."""
    batch = subject.buffer()
    try:
        found = credited(subject.make(), batch)
    except ValueError as error:
        raise AssertionError(str(error)) from error
    advantage = found.advantage
    assert advantage.shape == (batch.num_tokens,) and advantage.is_floating_point(), (
        f"{subject.name}: advantage must be one floating-point number per token, got {advantage.dtype} of shape "
        f"{tuple(advantage.shape)}"
    )
    for name, value in _tensors(batch).items():
        assert name in _tensors(found), f"{subject.name}: dropped {name} from the buffer"
        same_bits(subject.name, _tensors(found)[name], value, f"{name}, before and after")


def same_input_gives_the_same_bits(subject: AdvantageSubject) -> None:
    """Pure: no randomness, no memory of earlier buffers, no input changed in place."""
    advantage, batch, other = subject.make(), subject.buffer(), subject.buffer(seed=5)
    before = {name: value.clone() for name, value in _tensors(batch).items()}
    with rules.no_randomness(subject.name, seed=1):
        first = advantage(batch).advantage
    after_another = advantage(other).advantage
    with rules.no_randomness(subject.name, seed=2):
        second = advantage(batch).advantage
    same_bits(subject.name, second, first, "the advantages of the same buffer, called twice")
    same_bits(subject.name, after_another, subject.of(other), "advantages after another buffer against a new object's")
    for name, value in before.items():
        same_bits(subject.name, _tensors(batch)[name], value, f"{name}, before and after a call")


def is_zero_outside_the_response_mask(subject: AdvantageSubject) -> None:
    """Tokens that the policy did not choose get no credit."""
    batch = subject.buffer()
    masked = subject.of(batch)[~batch.response_mask]
    assert not masked.any(), (
        f"{subject.name}: {int(masked.count_nonzero())} tokens outside the response mask have an advantage; use "
        f"batch.scored(...)"
    )


def masked_values_change_nothing(subject: AdvantageSubject) -> None:
    """100 and NaN in every masked value change no advantage, to the bit."""
    batch = subject.buffer()
    clean = subject.of(batch)
    for value in (100.0, float("nan")):
        numbers = {k: v for k, v in batch.per_token.items() if v.is_floating_point() and v.ndim == 1}
        poisoned = batch.with_tokens(**{k: v.masked_fill(~batch.response_mask, value) for k, v in numbers.items()})
        same_bits(subject.name, subject.of(poisoned), clean, f"advantages with {value} in every masked value")


def prompt_length_changes_nothing(subject: AdvantageSubject) -> None:
    """The same responses after longer prompts get the same advantages."""
    batch = subject.buffer()
    longer = longer_prompts(batch)
    found, expected = subject.of(longer)[longer.response_mask], subject.of(batch)[batch.response_mask]
    close(subject.name, found, expected, "an advantage with longer prompts against shorter ones")


def order_changes_nothing(subject: AdvantageSubject) -> None:
    """Prompts in another order, and the samples of each, get the same advantages."""
    batch = subject.buffer()
    order = [g * EACH + k for g in reversed(range(GROUPS)) for k in reversed(range(EACH))]
    found = subject.make()(batch.select_units(order)).select_units(order)  # the order is its own inverse
    close(subject.name, found.advantage, subject.of(batch), "an advantage in another order of samples against in order")


def advantages_are_finite(subject: AdvantageSubject) -> None:
    """Equal, large and single rewards, and an answer without tokens, give numbers or are refused with a ValueError."""
    batch = subject.buffer()
    empty = replace(batch, response_mask=batch.response_mask & (batch.sequence_id > 0))
    cases = {"an answer without response tokens": empty, "groups of one sample": subject.buffer(each=1)}
    if "reward" in subject.reads:
        reward = batch.sequence("reward")
        cases |= {
            "equal rewards": batch.with_sequences(reward=torch.ones_like(reward)),
            "rewards of 10000": batch.with_sequences(reward=1e4 * reward),
        }
    for what, changed in cases.items():
        try:
            found = subject.of(changed)
        except ValueError:
            continue
        assert bool(torch.isfinite(found).all()), f"{subject.name}: {what} give advantages that are not finite"


def equal_rewards_give_no_advantage(subject: AdvantageSubject) -> None:
    """Where samples of one prompt are compared, a prompt whose rewards differ by rounding alone teaches nothing."""
    if not {"group", "reward"} <= subject.reads:
        raise DoesNotApply("does not compare samples of one prompt: `reads` lacks `group`")
    index = torch.arange(GROUPS * EACH)
    reward = 0.7 + index // EACH
    reward = reward * (1 + (index % 3 - 1) * torch.finfo(torch.float32).eps)
    found = float(subject.of(subject.plain_buffer(reward)).abs().max())
    assert found <= SIGNAL, (
        f"{subject.name}: groups whose rewards differ by rounding alone get advantages up to {found:.3g}, not 0; where "
        f"the deviation is within rounding of the rewards, return 0 (a larger epsilon helps as well)"
    )


def better_answers_get_more(subject: AdvantageSubject) -> None:
    """The best sample of a prompt gets a larger advantage at its last token than the worst one."""
    if "reward" not in subject.reads:
        raise DoesNotApply("does not read `reward`")
    reward = ((torch.arange(GROUPS * EACH) * 7) % 16).double() / 16
    batch = subject.plain_buffer(reward)
    last = subject.of(batch)[last_response_token(batch)].reshape(GROUPS, EACH)
    groups = reward.reshape(GROUPS, EACH)
    best = last.gather(1, groups.argmax(1, keepdim=True))
    worst = last.gather(1, groups.argmin(1, keepdim=True))
    wrong = int((best <= worst).sum())
    assert not wrong, (
        f"{subject.name}: in {wrong} of {GROUPS} groups the best sample gets no more than the worst; is a sign "
        f"swapped, or does the reward reach another sample?"
    )


def _tensors(batch: Batch) -> dict[str, Tensor]:
    own = {f.name: getattr(batch, f.name) for f in fields(batch)}
    plain = {k: v for k, v in own.items() if isinstance(v, Tensor)}
    return {**plain, **batch.per_token, **batch.per_sequence, **batch.per_unit}
