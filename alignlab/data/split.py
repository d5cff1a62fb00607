"""The held-out part of some records: a function of their prompt (or text) alone, so that adding some moves no other."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence


def held_out(keys: Iterable[str], fraction: float, seed: int = 0) -> set[str]:
    """Keys of the validation part; where the hashes leave one part empty, the key nearest to it is moved over.

    Args:
        keys: identities of prompts (texts); two different ones or more.
        fraction: of them, to hold out; above 0.
        seed: another one holds out others.
    """
    place = {key: place_of(key, seed) for key in keys}
    is_held_out = parted(place.values(), fraction)
    return {key for key in place if is_held_out(place[key])}


def place_of(key: str, seed: int = 0) -> int:
    """A number from 0 to 2**64 - 1 that depends on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{key}".encode()).digest()[:8], "big")


def falls_out(place: int, fraction: float) -> bool:
    """Whether a place is below the fraction of all places."""
    return place / 2**64 < fraction


def parted(places: Collection[int], fraction: float) -> Callable[[int], bool]:
    """Whether the records of a place are held out, given the places of all records.

    Args:
        places: two different ones or more.
        fraction: to hold out; 0 holds out nothing.
    """
    if fraction == 0:
        return lambda place: False
    first, last = min(places), max(places)
    moved = not falls_out(first, fraction)
    return lambda place: place != last and (falls_out(place, fraction) or (moved and place == first))


def in_both(train: Sequence[int], validation: Sequence[int], fraction: float) -> list[int]:
    """Places of records of one role's part to learn from and of another role's held-out part.

    Only a place that was moved over, because its part would have been empty, can be in both.
    """
    moved = {p for p in validation if not falls_out(p, fraction)} | {p for p in train if falls_out(p, fraction)}
    return [p for p in dict.fromkeys(validation) if p in moved and p in train] if moved else []
