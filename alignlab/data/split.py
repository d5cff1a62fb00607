"""The held-out part of some records: a function of their prompt (or text) alone, so that adding some moves no other."""

import hashlib
from collections.abc import Iterable


def held_out(keys: Iterable[str], fraction: float, seed: int = 0) -> set[str]:
    """Keys of the validation part; where the hashes leave one part empty, the key nearest to it is moved over.

    Args:
        keys: identities of prompts (texts); two different ones or more.
        fraction: of them, to hold out; above 0.
        seed: another one holds out others.
    """
    place = {key: _uniform(key, seed) for key in keys}
    ranked = sorted(place, key=lambda key: place[key])
    held = {key for key in ranked if place[key] < fraction} or {ranked[0]}
    return held - {ranked[-1]}


def _uniform(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing else."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
