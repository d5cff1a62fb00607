"""How far raters agree: per cent, Cohen's and Fleiss' kappa, Krippendorff's alpha. Categories are nominal.

None stands where a number is not defined: nothing was judged twice, or everyone always says the same, so that chance
explains all.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations


def observed(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Share of the pairs of judgements of one item that agree.

    Args:
        units: for each item, the categories that it was given.
    """
    pairs = [(sum(n * (n - 1) for n in Counter(unit).values()), len(unit) * (len(unit) - 1)) for unit in units]
    total = sum(count for _, count in pairs)
    return sum(alike for alike, _ in pairs) / total if total else None


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Agreement of two raters beyond chance, (p_o - p_e) / (1 - p_e); chance draws from each rater's own shares.

    Args:
        one: category of each item by one rater.
        other: the same items' by the other.

    Source: Cohen 1960, Educational and Psychological Measurement 20(1).
    """
    size = len(one)
    if len(other) != size:
        raise ValueError(f"cohen_kappa: {size} categories by one rater, {len(other)} by the other; give the same items")
    if not size:
        return None
    mine, theirs = Counter(one), Counter(other)
    alike = sum(a == b for a, b in zip(one, other, strict=True))
    # In whole numbers: p_e = 1 is then found exactly.
    by_chance = sum(count * theirs[category] for category, count in mine.items())
    if by_chance == size * size:
        return None
    return (alike * size - by_chance) / (size * size - by_chance)


def fleiss_kappa(counts: Iterable[Mapping[Hashable, int]]) -> float | None:
    """Agreement of many raters beyond chance, (P - P_e) / (1 - P_e); chance draws from the shares of all judgements.

    P is the mean over items of the share of their pairs of judgements that agree. Items may have different numbers of
    judgements, as in later work; the paper has the same number for all. Items with fewer than two are left out.

    Args:
        counts: for each item, how many raters gave it each category.

    Source: Fleiss 1971, Psychological Bulletin 76(5).
    """
    items = [(c, n) for c in counts if (n := sum(c.values())) > 1]
    total = sum(n for _, n in items)
    shares: Counter[Hashable] = Counter()
    for count, _ in items:
        shares.update(count)
    by_chance = sum((n / total) ** 2 for n in shares.values()) if total else 1.0
    if sum(n > 0 for n in shares.values()) < 2:
        return None
    agreed = sum(sum(k * (k - 1) for k in count.values()) / (n * (n - 1)) for count, n in items) / len(items)
    return (agreed - by_chance) / (1 - by_chance)


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Agreement of any number of raters, 1 - D_o / D_e, nominal; not each of them needs to judge every item.

        D_o = (1/n) sum_u sum_{c != k} n_uc n_uk / (m_u - 1),   D_e = sum_{c != k} n_c n_k / (n (n - 1))

    with m_u judgements of item u, n_uc of them of category c, and n in all; items with fewer than two are left out.

    Args:
        units: for each item, the categories that it was given.

    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability.
    """
    kept = [unit for unit in units if len(unit) > 1]
    counted = [Counter(unit) for unit in kept]
    shares: Counter[Hashable] = Counter()
    for count in counted:
        shares.update(count)
    total = sum(shares.values())
    expected = total * total - sum(n * n for n in shares.values())
    if not expected:
        return None
    sizes = [len(unit) for unit in kept]
    apart = sum((m * m - sum(n * n for n in c.values())) / (m - 1) for c, m in zip(counted, sizes, strict=True))
    return 1 - (total - 1) * apart / expected


def pairs_of_raters(table: Mapping[str, Mapping[str, Hashable]]) -> dict[tuple[str, str], list[tuple[Hashable, ...]]]:
    """For every two raters who judged an item in common, both categories of each such item.

    Args:
        table: for each item, each rater's category.
    """
    found: dict[tuple[str, str], list[tuple[Hashable, ...]]] = {}
    for given in table.values():
        for one, other in combinations(sorted(given), 2):
            found.setdefault((one, other), []).append((given[one], given[other]))
    return dict(sorted(found.items()))
