"""Random numbers that are functions of what they are for, not of when they were drawn."""

import hashlib
import math
from statistics import NormalDist

_STANDARD = NormalDist()


def uniform(*what: object) -> float:
    """A number in (0, 1) that depends on `what` alone, the same on every machine and in every process."""
    # The lengths keep ("ab", "c") and ("a", "bc") apart.
    text = "".join(f"{len(part)}:{part}" for part in map(str, what))
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
    return ((number >> 11) + 0.5) / 2**53


def gumbel(*what: object) -> float:
    """A standard Gumbel number that depends on `what` alone."""
    return -math.log(-math.log(uniform(*what)))


def normal(*what: object) -> float:
    """A standard normal number that depends on `what` alone."""
    return _STANDARD.inv_cdf(uniform(*what))
