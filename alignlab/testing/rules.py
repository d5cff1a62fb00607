"""Checks that hold for objectives, rewards and everything else that is built from plain constructor arguments."""

import dataclasses
import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def check_version(thing: object) -> None:
    """The class itself states a `VERSION`, a literal string: it is part of every fingerprint."""
    owner = type(thing)
    version = vars(owner).get("VERSION")
    assert isinstance(version, str) and version, (
        f'{owner.__name__}: must state VERSION: ClassVar[str] = "1" itself (found {version!r}); raise it when the same '
        f"arguments begin to mean something else"
    )


def check_arguments(thing: object) -> None:
    """Every constructor argument is an attribute of its own name, and cannot be changed afterwards."""
    owner = type(thing)
    parameters = inspect.signature(owner).parameters.values()
    names = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    missing = [name for name in names if not hasattr(thing, name)]
    assert not missing, f"{owner.__name__}: the constructor takes {missing}, but there is no attribute of that name"
    if not dataclasses.is_dataclass(thing):
        return
    for name in names:
        try:
            setattr(thing, name, getattr(thing, name))
        except dataclasses.FrozenInstanceError:
            continue
        raise AssertionError(f"{owner.__name__}: {name} can be changed after construction; use @dataclass(frozen=True)")


@contextmanager
def no_randomness(owner: str, seed: int) -> Iterator[None]:
    """Start from another global random state, and insist that nobody drew from it."""
    kept = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    before = _fingerprint_of_global_state()
    try:
        yield
        after = _fingerprint_of_global_state()
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        torch.random.set_rng_state(kept[2])
    drew = [name for name, state in before.items() if state != after[name]]
    assert not drew, f"{owner}: draws from the global random state of {drew}; the same input must give the same result"


def _fingerprint_of_global_state() -> dict[str, str | bytes]:
    # Python's own generator is left out: beartype, under which tests run, draws from it to choose what to look at.
    return {"numpy": str(np.random.get_state()), "torch": torch.random.get_rng_state().numpy().tobytes()}
