"""Estimates and their intervals: closed forms, published examples, and coverage by simulation."""

import copy
import json
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from alignlab.artifact import Artifact
from alignlab.errors import ConfigError
from alignlab.metrics import (
    Column,
    Estimate,
    correlation,
    difference,
    read_columns,
    read_metrics,
    wilson,
    with_intervals,
    write_columns,
    write_outcomes,
)
from alignlab.metrics.intervals import bootstrap, effective_size, student

Draws = np.random.Generator


def share(*flags: tuple[str, float]) -> Estimate:
    found = Estimate.share(flags)
    assert found is not None
    return found


def mean(*values: tuple[str, float]) -> Estimate:
    found = Estimate.mean(values)
    assert found is not None
    return found


def ends(estimate: float) -> tuple[float, float]:
    assert isinstance(estimate, Estimate) and estimate.interval is not None
    return estimate.interval


# ---- shares --------------------------------------------------------------------------------------------------------
def test_wilson_interval_is_the_published_one() -> None:
    """Newcombe 1998, Statistics in Medicine 17(8), table I, method 3."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_wilson_interval_holds_the_share_and_stays_inside(share: float) -> None:
    for size in (1.0, 7.5, 1e6):
        low, high = wilson(share, size)
        assert 0 <= low <= share <= high <= 1 and low < high


def test_one_answer_per_prompt_is_plain_wilson() -> None:
    found = share(*((f"p{i}", i < 13) for i in range(40)))
    assert found == 13 / 40 and found.count == 40
    assert ends(found) == pytest.approx(wilson(13 / 40, 40))


def test_effective_size_by_hand() -> None:
    """Three prompts of 2 answers, 2 + 1 + 0 of them true: p = 1/2, v = 3/2 * (1 + 0 + 1) / 36 = 1/12, n = 1/4 / v."""
    sums, counts = np.array([2.0, 1.0, 0.0]), np.array([2.0, 2.0, 2.0])
    assert effective_size(sums, counts) == pytest.approx(3.0)
    alike = np.array([3.0, 0.0, 3.0, 0.0])
    assert effective_size(alike, np.full(4, 3.0)) == pytest.approx(4.0), "never less than answers that are all alike"
    even = np.array([1.0, 1.0, 1.0, 1.0])
    assert effective_size(even, np.full(4, 2.0)) == pytest.approx(8.0), "no more than there are answers"
    spread = np.array([1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 2.0, 1.0])
    assert effective_size(spread, np.full(8, 3.0)) == pytest.approx(24.0)
    every = np.array([4.0, 1.0])
    assert effective_size(every, every) == pytest.approx(25 / 17), "all true: as if those of a prompt were one"


def test_answers_to_one_prompt_that_agree_widen_the_interval() -> None:
    alike = share(*((f"p{i}", i % 2) for i in range(20) for _ in range(5)))
    apart = share(*((f"p{i}", (i * 5 + k) % 2) for i in range(20) for k in range(5)))
    assert alike == apart == 0.5
    assert ends(alike) == pytest.approx(wilson(0.5, 20)) and ends(apart) == pytest.approx(wilson(0.5, 100))


def test_a_share_may_hold_halves_and_nothing_outside_of_0_to_1() -> None:
    assert share(("a", 0.5), ("b", 1), ("c", False)) == 0.5
    assert Estimate.share([]) is None
    with pytest.raises(ValueError, match=r"outside of 0 to 1; use Estimate\.mean"):
        Estimate.share([("a", 2)])
    with pytest.raises(ValueError, match="outside of 0 to 1"):
        Estimate.share([("a", -0.5)])


def test_an_average_of_shares_weighs_each_the_same() -> None:
    many, few = share(*((f"m{i}", True) for i in range(90))), share(*((f"f{i}", i < 5) for i in range(10)))
    found = Estimate.average([many, None, few])
    assert found is not None and found == pytest.approx(0.75) and found.count == 100
    low = 0.75 - math.hypot(1 - wilson(1.0, 90)[0], 0.5 - wilson(0.5, 10)[0]) / 2
    high = 0.75 + math.hypot(0.0, wilson(0.5, 10)[1] - 0.5) / 2
    assert ends(found) == pytest.approx((low, high))
    alone = Estimate.average([few])
    assert alone is not None and (*ends(alone), alone) == pytest.approx((*ends(few), few))
    assert Estimate.average([None]) is None
    with pytest.raises(ValueError, match="has no interval"):
        Estimate.average([Estimate(0.5)])


# ---- means ---------------------------------------------------------------------------------------------------------
def test_bootstrap_of_many_numbers_is_the_textbook_interval() -> None:
    values = np.random.default_rng(5).normal(3.0, 2.0, 2000)
    found = bootstrap(values, np.ones(2000))
    half = 1.96 * values.std(ddof=1) / math.sqrt(2000)
    assert found == pytest.approx((values.mean() - half, values.mean() + half), abs=0.06 * half)


def test_bootstrap_is_over_prompts_and_not_over_answers() -> None:
    few = mean(*((f"p{i}", float(i % 2)) for i in range(30) for _ in range(10)))
    each = mean(*((f"p{i}", float(i % 2)) for i in range(30)))
    assert ends(few) == pytest.approx(ends(each))


def test_bootstrap_of_equal_numbers_is_a_point_and_of_one_prompt_nothing() -> None:
    assert ends(mean(("a", 2), ("b", 2), ("c", 2))) == (2.0, 2.0)
    assert mean(("a", 1), ("a", 5)).interval is None
    assert Estimate.mean([]) is None


def test_the_same_outcomes_give_the_same_interval_in_any_order() -> None:
    outcomes = [(f"p{i % 17}", float(i * i % 23)) for i in range(100)]
    assert ends(mean(*outcomes)) == ends(mean(*outcomes)) == pytest.approx(ends(mean(*reversed(outcomes))))


def test_a_skewed_mean_has_a_lopsided_interval() -> None:
    values = np.random.default_rng(1).exponential(1.0, 60)
    low, high = bootstrap(values, np.ones(60)) or (0.0, 0.0)
    assert high - values.mean() > 1.15 * (values.mean() - low)


def test_ratio_divides_sums_by_counts() -> None:
    found = Estimate.ratio([("a", 6.0, 2), ("b", 1.0, 8), ("c", 5.0, 0)])
    assert found is not None and found == pytest.approx(0.7) and found.count == 10


def test_a_loss_in_other_units_keeps_its_interval_and_outcomes() -> None:
    loss = Estimate.ratio([(f"d{i}", 2.0 + i % 3, 1) for i in range(30)])
    assert loss is not None
    low, high = ends(loss)
    bits = loss.scaled(0.5)
    assert (float(bits), *ends(bits)) == pytest.approx((loss / 2, low / 2, high / 2))
    assert bits.influences() == pytest.approx({k: v / 2 for k, v in loss.influences().items()})
    perplexity = loss.mapped(math.exp)
    assert (float(perplexity), *ends(perplexity)) == pytest.approx((math.exp(loss), math.exp(low), math.exp(high)))


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (9, 2.2622), (29, 2.0452), (159, 1.9749)],
)
def test_students_quantile(freedom: int, quantile: float) -> None:
    assert student(freedom) == pytest.approx(quantile, rel=2e-3)


# ---- differences ---------------------------------------------------------------------------------------------------
def test_difference_of_unrelated_shares_is_the_published_one() -> None:
    """Newcombe 1998, Statistics in Medicine 17(8), comparison (a), method 10: 56/70 - 48/80."""
    a = Estimate(56 / 70, *wilson(56 / 70, 70))
    b = Estimate(48 / 80, *wilson(48 / 80, 80))
    assert difference(a, b) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert correlation(a, b) == 0.0


def test_what_the_prompts_have_in_common_cancels() -> None:
    """40 prompts, half of them hard: the second model gains six of the hard ones and loses none."""
    old = share(*((f"p{i}", i < 20) for i in range(40)))
    new = share(*((f"p{i}", i < 26) for i in range(40)))
    elsewhere = share(*((f"q{i}", i < 26) for i in range(40)))
    paired, apart = difference(new, old), difference(elsewhere, old)
    assert paired is not None and apart is not None
    assert paired[0] > 0 > apart[0], "on the same prompts it is more than noise, on others it may be noise"
    # p q of both tables and their covariance, by hand: phi = (20 - 40 * .5 * .65) / sqrt(40 * .25 * 40 * .2275)
    assert correlation(new, old) == pytest.approx((20 - 13) / math.sqrt(10 * 9.1))


def test_difference_on_the_same_prompts_by_hand() -> None:
    """Nine prompts, two true of both, three of the new one alone, four of neither: phi = (8 - 9/2) / sqrt(5 4 2 7)."""
    old, new = share(*((f"p{i}", i < 2) for i in range(9))), share(*((f"p{i}", i < 5) for i in range(9)))
    phi = 3.5 / math.sqrt(280)
    (low, high), (old_low, old_high) = ends(new), ends(old)
    down = math.sqrt((5 / 9 - low) ** 2 + (old_high - 2 / 9) ** 2 - 2 * phi * (5 / 9 - low) * (old_high - 2 / 9))
    up = math.sqrt((high - 5 / 9) ** 2 + (2 / 9 - old_low) ** 2 - 2 * phi * (high - 5 / 9) * (2 / 9 - old_low))
    found = difference(new, old)
    assert found == pytest.approx((3 / 9 - down, 3 / 9 + up), abs=0.01), "n - 1 for n in the variances"
    assert found is not None and found[0] < 0 < found[1], "three of nine prompts may be noise"


def test_equal_outcomes_of_many_prompts_differ_by_little() -> None:
    one = share(*((f"p{i}", i % 2 == 0) for i in range(400)))
    assert correlation(one, copy.deepcopy(one)) == pytest.approx(1.0)
    low, high = difference(one, copy.deepcopy(one)) or (1.0, 1.0)
    assert -0.006 < low < 0 < high < 0.006


def test_one_lost_prompt_of_many_is_noise_and_a_collapse_is_not() -> None:
    whole = share(*((f"p{i}", True) for i in range(50)))
    less = share(*((f"p{i}", i > 0) for i in range(50)))
    gone = share(*((f"p{i}", i < 23) for i in range(50)))
    lost, collapsed = difference(less, whole), difference(gone, whole)
    assert lost is not None and collapsed is not None
    assert lost[0] < 0 < lost[1] and collapsed[1] < 0


def test_a_plain_number_is_compared_without_an_interval() -> None:
    assert difference(1.0, share(("a", 1))) is None
    assert difference(Estimate(1.0), Estimate(1.0, 0.5, 1.5)) is None


# ---- coverage ------------------------------------------------------------------------------------------------------
def answers(draws: Draws, prompts: int, each: int, p: float, alike: float) -> Iterator[tuple[str, float]]:
    """Outcomes whose probability varies from prompt to prompt: `alike` is the correlation within one."""
    scale = (1 - alike) / max(alike, 1e-9)
    chances = draws.beta(p * scale, (1 - p) * scale, prompts) if alike else np.full(prompts, p)
    return ((f"p{i}", float(draws.random() < q)) for i, q in enumerate(chances) for _ in range(each))


def covers(make: Callable[[Draws], tuple[float, float]], truth: float, times: int = 300) -> float:
    draws = np.random.default_rng(11)
    found = [make(draws) for _ in range(times)]
    return sum(low <= truth <= high for low, high in found) / times


@pytest.mark.parametrize(("prompts", "each"), [(20, 3), (60, 1), (60, 6)])
@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("alike", [0.0, 0.4])
def test_a_shares_interval_covers(prompts: int, each: int, p: float, alike: float) -> None:
    assert covers(lambda d: ends(share(*answers(d, prompts, each, p, alike))), p) >= 0.91


def test_without_the_effective_size_it_would_not_cover() -> None:
    """What the correction is for: six answers per prompt, taken for independent, cover half as often as they miss."""

    def naive(draws: Draws) -> tuple[float, float]:
        return wilson(float(np.mean([flag for _, flag in answers(draws, 60, 6, 0.5, 0.4)])), 360)

    assert covers(naive, 0.5) < 0.8


@pytest.mark.parametrize("prompts", [15, 60])
@pytest.mark.parametrize("name", ["normal", "exponential"])
def test_a_means_interval_covers(prompts: int, name: str) -> None:
    def made(draws: Draws) -> tuple[float, float]:
        values = draws.normal(1, 1, prompts) if name == "normal" else draws.exponential(1, prompts)
        return ends(mean(*((f"p{i}", v) for i, v in enumerate(values.tolist()))))

    assert covers(made, 1.0, times=300) >= 0.9


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize(("old", "new"), [(0.5, 0.5), (0.9, 0.95), (0.3, 0.6)])
def test_a_paired_differences_interval_covers(each: int, old: float, new: float) -> None:
    def made(draws: Draws) -> tuple[float, float]:
        hardness = draws.random(40)
        before, after = (0.5 * p + 0.5 * (hardness < p) for p in (old, new))
        a = share(*((f"p{i}", float(draws.random() < q)) for i, q in enumerate(after) for _ in range(each)))
        b = share(*((f"p{i}", float(draws.random() < q)) for i, q in enumerate(before) for _ in range(each)))
        return difference(a, b) or (0.0, 0.0)

    assert covers(made, new - old) >= 0.92


def test_a_paired_difference_of_means_covers_and_is_narrower() -> None:
    def made(draws: Draws, shared: float) -> tuple[float, float]:
        level = draws.exponential(1, 40)
        own = [draws.normal(0, 0.2, 40) for _ in range(2)]
        other = draws.exponential(1, 40)
        a = mean(*((f"p{i}", v) for i, v in enumerate((level + own[0] + 0.3).tolist())))
        b = mean(*((f"p{i}", v) for i, v in enumerate((shared * level + (1 - shared) * other + own[1]).tolist())))
        return difference(a, b) or (0.0, 0.0)

    assert covers(lambda d: made(d, 1.0), 0.3, times=200) >= 0.92
    draws = np.random.default_rng(3)
    paired, apart = made(draws, 1.0), made(draws, 0.0)
    assert paired[1] - paired[0] < 0.5 * (apart[1] - apart[0])


# ---- as a number ---------------------------------------------------------------------------------------------------
def test_an_estimate_is_a_number_with_ends() -> None:
    found = Estimate(0.5, 0.25, 0.75, 12)
    assert found == 0.5 and found + 1 == 1.5 and json.dumps({"x": found}) == '{"x": 0.5}'
    assert repr(found) == "Estimate(0.5, 0.25, 0.75, count=12)"
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.interval, again.count, again.method) == (0.5, (0.25, 0.75), 12, "given")


@pytest.mark.parametrize(
    ("arguments", "message"), [((0.5, 0.6, 0.7), "outside of its interval"), ((0.5, 0.1, None), "both ends")]
)
def test_an_interval_that_cannot_be_is_refused(arguments: tuple[float, float, float | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Estimate(*arguments)


# ---- columns and files ---------------------------------------------------------------------------------------------
def test_a_column_is_called_by_its_name_unless_it_says_otherwise() -> None:
    assert (Column("fact_recall", "x").title, Column("fact_recall", "x").long) == ("fact recall", "fact recall")
    titled = Column("x", "y", title="short", long="longer")
    assert (titled.title, titled.long) == ("short", "longer")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "a/b", "meaning": "x"}, "not the name of a metric"),
        ({"metric": "", "meaning": "x"}, "not the name of a metric"),
        ({"metric": "a", "meaning": ""}, "Column a: meaning is empty"),
        ({"metric": "a", "meaning": "x", "better": 2}, "better must be 1, -1 or 0, got 2"),
    ],
)
def test_a_column_that_says_nothing_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Column(**arguments)  # type: ignore[arg-type]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    metrics: dict[str, float] = {
        "right": share(*((f"p{i}", i % 3 == 0) for i in range(9))),
        "words": mean(("a", 1), ("b", 4), (" long" * 40, 7)),
        "plain": 3.0,
        "alone": mean(("a", 2)),
    }
    (tmp_path / "metrics.json").write_text(json.dumps(with_intervals(metrics)))
    write_outcomes(tmp_path, metrics)
    write_columns(tmp_path, [Column("right", "first", better=1)], "world")
    write_columns(tmp_path, [Column("plain", "second")])
    artifact = Artifact(tmp_path, "evaluation", "x")
    assert {k: [c.metric for c in v] for k, v in read_columns(artifact).items()} == {
        "world": ["right"], "": ["plain"],
    }  # fmt: skip
    found = read_metrics(artifact)
    assert found.keys() == metrics.keys(), "the ends of an interval are not metrics of their own"
    for name in ("right", "words"):
        estimate, known = found[name], metrics[name]
        assert isinstance(estimate, Estimate) and isinstance(known, Estimate)
        assert (estimate, estimate.interval, estimate.count) == (known, known.interval, known.count)
        assert estimate.influences() == known.influences()
    assert correlation(found["right"], metrics["right"]) == pytest.approx(1.0)
    assert not isinstance(found["plain"], Estimate)


def test_intervals_follow_their_numbers() -> None:
    found = with_intervals({"a": Estimate(0.5, 0.25, 0.75), "b": 2, "c": Estimate(1.0)})
    assert found == {"a": 0.5, "a_low": 0.25, "a_high": 0.75, "b": 2.0, "c": 1.0}
    assert all(type(v) is float for v in found.values())


def test_a_file_that_describes_no_metric_is_named(tmp_path: Path) -> None:
    (tmp_path / "columns.json").write_text('[{"metric": "a", "evaluation": "x"}]')
    with pytest.raises(ConfigError, match=r"columns\.json: .* describes no metric"):
        read_columns(Artifact(tmp_path, "evaluation", "x"))


# ---- any statistic ---------------------------------------------------------------------------------------------------
def test_a_mean_as_a_statistic_is_the_mean() -> None:
    """One estimate either way, but for the order of the resamples' sums; two measured so are compared as means are."""
    values = np.random.default_rng(3).normal(size=(2, 40))
    prompts = [f"p{i:02d}" for i in range(40)]
    for row in values:
        plain = Estimate.mean(zip(prompts, row.tolist(), strict=True))
        found = Estimate.statistic(prompts, lambda places, row=row: float(row[places].mean()))
        assert plain is not None and found is not None and found.count == plain.count == 40
        assert float(found) == pytest.approx(float(plain)) and ends(found) == pytest.approx(ends(plain))
        assert found.influences() == pytest.approx(plain.influences())


def test_answers_of_one_prompt_stay_together_in_a_statistic() -> None:
    """Ten copies of each prompt tell no more than one."""
    values = np.random.default_rng(1).normal(size=20)
    names = [f"p{i:02d}" for i in range(20)]
    one = Estimate.statistic(names, lambda places: float(np.median(values[places])))
    many = Estimate.statistic([n for n in names for _ in range(10)], lambda p: float(np.median(values[p // 10])))
    assert one is not None and many is not None
    assert ends(one) == pytest.approx(ends(many)) and many.count == 200


def test_a_statistic_of_nothing_or_of_one_prompt() -> None:
    assert Estimate.statistic([], lambda places: 0.0) is None
    single = Estimate.statistic(["p", "p"], lambda places: float(len(places)))
    assert single is not None and float(single) == 2 and single.interval is None
