"""Diversity of texts: n-grams that occur once, and how well each text is made of the others.

A text is its words, split at blanks.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

ORDER: Final = 4
"""Longest n-grams of BLEU."""
UNMATCHED: Final = 0.1
"""Number of matches that stands for none, in orders above 1 ("method 1" of Chen and Cherry 2014)."""


def ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    """The runs of n words of a text, with their numbers."""
    words = text.split()
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Different n-grams over all n-grams of some texts, 0 to 1; None where there is no n-gram.

    It falls with the number of texts and with their length: compare like with like.

    Source: Li et al. 2016, arXiv:1510.03055, section 5 (distinct-1 and distinct-2).
    """
    found: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        found += ngrams(text, n)
    return len(found) / found.total() if found else None


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU-4 of each of two or more texts, with the others as its references: 1 where they are all the same.

    Source: Zhu et al. 2018 (Texygen), arXiv:1802.01886, section 3.
    """
    return sum(bleu(text, [*texts[:i], *texts[i + 1 :]]) for i, text in enumerate(texts)) / len(texts)


def bleu(text: str, references: Sequence[str]) -> float:
    """BLEU-4 of one text, 0 to 1.

        BLEU = min(1, exp(1 - r / c)) * (product of p_n over n = 1 .. min(4, c)) ^ (1 / min(4, c))

    with the clipped precisions p_n of its n-grams, its words c, and the words r of the reference that is closest in
    length. A text of fewer than 4 words has fewer orders: else it would not be 1 for one that is its own reference.

    Source: Papineni et al. 2002, ACL, section 2; smoothed by Chen and Cherry 2014, WMT, method 1.
    """
    size = len(text.split())
    if not size:
        return float(any(not r.split() for r in references))
    orders, total = min(ORDER, size), 0.0
    for n in range(1, orders + 1):
        own, best = ngrams(text, n), Counter[tuple[str, ...]]()
        for reference in references:
            best |= ngrams(reference, n)
        matched = (own & best).total()
        if n == 1 and not matched:
            return 0.0
        total += math.log((matched or UNMATCHED) / own.total())
    closest = min((len(r.split()) for r in references), key=lambda length: (abs(length - size), length))
    return math.exp(min(0.0, 1 - closest / size) + total / orders)
