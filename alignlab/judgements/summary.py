"""The statistics of some judgements, as JSON and as a table."""

import statistics
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignlab.judgements.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha, observed, pairs_of_raters
from alignlab.judgements.records import Judgement, by_item
from alignlab.judgements.rulers import RULES, accuracy_of, chosen_by

if TYPE_CHECKING:
    from alignlab.metrics import Estimate

TIE = "tie"
"""The category of a tie; that of a choice is the number of its answer in the item's first judgement."""
LONGEST_NAME = 18
"""Characters of a rater's name in the table."""
Table = dict[str, dict[str, Hashable]]


def categories(judgements: Iterable[Judgement]) -> Table:
    """For each item, each rater's category; where a rater judged an item again, the first time counts."""
    found: Table = {}
    for item, given in by_item(judgements).items():
        order = {answer: number for number, answer in enumerate(given[0].answers)}
        found[item] = {}
        for judgement in given:
            category: Hashable = TIE if judgement.chosen is None else order[judgement.chosen]
            found[item].setdefault(judgement.rater, category)
    return found


def summary(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Everything that `alignlab agreement` prints: counts, agreement, what is chosen, and what trivial rules reach.

    A share is an object of `value`, `low`, `high` (95 %, Wilson; judgements of one item are not taken to be
    independent) and `count`; None stands where nothing can be said.
    """
    table = categories(judgements)
    made = [j for j in judgements if j.made]
    times = [j.time for j in made if j.time is not None]
    return {
        "judgements": len(made),
        "items": len(table),
        "raters": len({j.rater for j in made}),
        "ties": sum(j.tie for j in made),
        "not_made": len(judgements) - len(made),
        "judged_again": len(made) - sum(map(len, table.values())),
        "judgements_per_item": len(made) / len(table) if table else 0.0,
        "median_time": statistics.median(times) if times else None,
        "agreement": agreement(table),
        "chosen": {"longer": _share(chosen_by("longer", made)), "first": _share(chosen_by("first", made))},
        "accuracy": {rule: _share(accuracy_of(rule, made)) for rule in RULES},
    }


def agreement(table: Mapping[str, Mapping[str, Hashable]]) -> dict[str, Any]:
    """All the statistics of agreement, of each item's categories by rater."""
    units = [list(given.values()) for given in table.values()]
    return {
        "items": sum(len(unit) > 1 for unit in units),
        "observed": observed(units),
        "fleiss_kappa": fleiss_kappa(Counter(unit) for unit in units),
        "krippendorff_alpha": krippendorff_alpha(units),
        **_cohen(table),
    }


def _cohen(table: Mapping[str, Mapping[str, Hashable]]) -> dict[str, Any]:
    """Kappa of every two raters, and the mean of those that are defined."""
    found = pairs_of_raters(table)
    kappas = {raters: cohen_kappa(*zip(*both, strict=True)) for raters, both in found.items()}
    pairs = [
        {"raters": [*raters], "items": len(both), "observed": observed(both), "kappa": kappas[raters]}
        for raters, both in found.items()
    ]
    known = [kappa for kappa in kappas.values() if kappa is not None]
    return {"cohen_kappa": sum(known) / len(known) if known else None, "pairs": pairs}


def _share(outcomes: Iterable[tuple[str, float]]) -> dict[str, float] | None:
    from alignlab.metrics import Estimate

    return _plain(Estimate.share(outcomes))


def _plain(estimate: "Estimate | None") -> dict[str, float] | None:
    if estimate is None or estimate.interval is None:
        return None
    low, high = estimate.interval
    return {"value": float(estimate), "low": low, "high": high, "count": estimate.count}


# ---- for the terminal ------------------------------------------------------------------------------------------------
def lines(found: Mapping[str, Any], most_pairs: int = 20) -> list[str]:
    """The summary as lines of at most 80 columns.

    Args:
        found: what `summary` gave.
        most_pairs: pairs of raters that are listed; the others are only counted.
    """
    counts = ("judgements", "items", "raters", "ties", "not_made", "judged_again")
    return [
        *(_line(name, f"{found[name]:d}") for name in counts),
        _line("judgements_per_item", f"{found['judgements_per_item']:.2f}"),
        *([] if found["median_time"] is None else [_line("median_time", f"{found['median_time']:.1f} s")]),
        "",
        *_agreement_lines(found["agreement"], most_pairs),
        "",
        "chosen where one is                share   95 % interval   judgements",
        *(_share_line(name, share) for name, share in found["chosen"].items()),
        "",
        "accuracy of a trivial rule         share   95 % interval   judgements",
        *(_share_line(name, share) for name, share in found["accuracy"].items()),
    ]


def _agreement_lines(found: Mapping[str, Any], most_pairs: int) -> list[str]:
    """The table of agreement, and of pairs of raters where there are several."""
    names = {"observed": "per cent", "cohen_kappa": "Cohen's kappa (mean over pairs)"}
    names |= {"fleiss_kappa": "Fleiss' kappa", "krippendorff_alpha": "Krippendorff's alpha (nominal)"}
    told = [_line(f"agreement: {text}", _number(found[name], name == "observed")) for name, text in names.items()]
    head = [f"agreement on {found['items']} items with two or more judgements"]
    pairs = found["pairs"]
    listed = [
        f"{'  ' + ' and '.join(map(_rater, pair['raters'])):<45} {_number(pair['kappa'])} on {pair['items']} items"
        for pair in pairs[:most_pairs]
    ]
    more = [f"  and {len(pairs) - most_pairs} more pairs (--json lists them)"] if len(pairs) > most_pairs else []
    return [*head, *told, *(["", "Cohen's kappa of two raters", *listed, *more] if len(pairs) > 1 else [])]


def _rater(name: str) -> str:
    """A rater's name on one line, cut where it is long, so that two of them fit into a column."""
    shown = " ".join(name.split())
    return shown if len(shown) <= LONGEST_NAME else f"{shown[: LONGEST_NAME - 1]}…"


def _line(name: str, value: str) -> str:
    return f"{name.replace('_', ' '):<45} {value}"


def _number(value: float | None, per_cent: bool = False) -> str:
    if value is None:
        return "not defined"
    return f"{100 * value:.1f} %" if per_cent else f"{value:.3f}"


def _share_line(name: str, share: Mapping[str, float] | None) -> str:
    told = name.replace("_", " ")
    if share is None:
        return f"  {told:<32} nothing to tell"
    return f"  {told:<32} {share['value']:.3f}   {share['low']:.3f} to {share['high']:.3f}   {share['count']:d}"
