"""Judged pairs: preferences against a judge and trivial rules, win rates as judged and at equal length."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from alignlab_raters import Panel, Rater
from alignlab_reward_model import EnsembleMean

from alignlab.artifact import Artifact
from alignlab.data.files import Files
from alignlab.data.records import Comparison, Prompt
from alignlab.data.source import DataSource, Split
from alignlab.errors import DataError
from alignlab.evaluation import Compare, Estimate, EvaluatePreferences, calibration_error, compare, length_controlled
from alignlab.evaluation.judge import judged
from alignlab.evaluation.preferences import RULES, subset_name
from alignlab.judgements import rulers
from alignlab.metrics import correlation, difference, read_metrics, wilson
from alignlab.metrics.tally import Tally
from alignlab.policy import Sample, Sampling
from alignlab.reward import Choice, Pair, Preference, RewardSource
from alignlab.runtime import Runtime
from alignlab.stage import NullTracker, Stage, StageContext
from alignlab.testing import tiny_policy_artifact

ASK = Prompt.user("what does ana like ?")


class Words(RewardSource):
    """A point for each word."""

    VERSION: ClassVar[str] = "1"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
        return torch.tensor([float(len(a.split())) for a in answers])


class First(Preference):
    """Always what is shown first."""

    VERSION: ClassVar[str] = "1"

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        return [Choice(True, 1.0, "first") for _ in pairs]


@dataclass(frozen=True)
class Pairs(DataSource):
    """The given pairs, all of them held out."""

    VERSION: ClassVar[str] = "1"
    found: tuple[Comparison, ...] = ()

    def comparisons(self, split: Split) -> Sequence[Comparison]:
        return self.found if split == "validation" else ()

    def prompts(self, split: Split) -> Sequence[Prompt]:
        return [Prompt.user(f"what does {n} like ?") for n in ("ana", "bo", "cy")]


def ran(stage: Stage, inputs: dict[str, Artifact], folder: Path) -> dict[str, float]:
    """The metrics that the stage leaves, as they are read again."""
    context = StageContext("judged", folder / "out", folder / "work", Runtime("cpu"), NullTracker())
    for path in (context.folder, context.work):
        path.mkdir(parents=True)
    stage.check_inputs(frozenset(inputs))
    found = dict(stage.run(inputs, context))
    (context.folder / "metrics.json").write_text(json.dumps(found))
    return read_metrics(Artifact(context.folder, "other", ""))


def pairs(*texts: tuple[str, str]) -> tuple[Comparison, ...]:
    return tuple(Comparison(Prompt.user(f"question {i} ?"), *both) for i, both in enumerate(texts))


# ---- verdicts --------------------------------------------------------------------------------------------------------
def test_a_reward_sees_no_order_and_equal_answers_are_tied() -> None:
    reports: list[tuple[int, int]] = []
    given = [Pair(ASK, "one two", "one"), Pair(ASK, "one", "one two three"), Pair(ASK, "a b", "c d"), Pair(ASK, "", "")]
    found = judged(Words(), given, lambda done, total: reports.append((done, total)))
    assert found.shown_first.tolist() == found.shown_second.tolist() == [1.0, 0.0, 0.5, 0.5]
    assert found.probability.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2)), 0.5, 0.5])
    assert reports == [(4, 4)]


def test_a_judge_who_takes_the_first_agrees_with_itself_in_no_pair() -> None:
    found = judged(First(), [Pair(ASK, "a", "b"), Pair(ASK, "a", "a")], lambda *_: None)
    assert found.outcome.tolist() == found.probability.tolist() == [0.5, 0.5]
    assert found.prefers_shown_first.tolist() == [1.0, 0.5] and found.consistent.tolist() == [0.0, 1.0]


class Undecided(First):
    """Calls a tie where the second answer is the longer one, though it would take the first."""

    def compare(self, pairs: Sequence[Pair], index: Sequence[int]) -> list[Choice]:
        return [Choice(True, 0.8, "undecided", tie=len(p.second) > len(p.first), tie_probability=0.5) for p in pairs]


def test_a_raters_tie_is_half_a_win() -> None:
    found = judged(Undecided(), [Pair(ASK, "a", "bb"), Pair(ASK, "bb", "a")], lambda *_: None)
    assert found.shown_first.tolist() == [0.5, 1.0] and found.shown_second.tolist() == [0.0, 0.5]
    assert found.outcome.tolist() == [0.25, 0.75] and found.probability.tolist() == pytest.approx([0.5, 0.5])
    always = Panel({"r": Rater("r", {"empty": 1.0})}, ties=1e12)
    found = judged(always, [Pair(ASK, f"a {i}", f"b {i}") for i in range(20)], lambda *_: None)
    assert found.outcome.tolist() == [0.5] * 20 and found.consistent.tolist() == [1.0] * 20


# ---- preferences -----------------------------------------------------------------------------------------------------
def test_a_judge_of_length_is_as_good_as_the_rule(tmp_path: Path) -> None:
    """Longer in three of four, tied once: (2 + .5) / 4; a list in one of four and a tie elsewhere: (1 + 3 * .5) / 4."""
    data = Pairs(pairs(("a b c", "a"), ("- a b c", "a"), ("a", "a b c"), ("a b", "c d")))
    found = ran(EvaluatePreferences(data=data, reward=Words()), {}, tmp_path)
    expected = {"accuracy": 0.625, "longer": 0.625, "shorter": 0.375, "more_list_lines": 0.625, "pairs": 4.0}
    assert {k: float(found[k]) for k in expected} == expected
    accuracy = found["accuracy"]
    assert isinstance(accuracy, Estimate) and accuracy.interval == pytest.approx(wilson(0.625, 4))
    longer = found["longer"]
    assert isinstance(longer, Estimate) and correlation(accuracy, longer) == pytest.approx(1.0), (
        "right in the same pairs"
    )
    assert found.keys().isdisjoint({"prefers_shown_first", "consistent", "accuracy_of_subsets"})


def test_raters_see_every_pair_in_both_orders(tmp_path: Path) -> None:
    data = Pairs(pairs(("a b c", "a"), ("a", "a b c")))
    found = ran(EvaluatePreferences(data=data, preference=First()), {}, tmp_path)
    expected = {"accuracy": 0.5, "prefers_shown_first": 1.0, "consistent": 0.0}
    assert {k: float(found[k]) for k in expected} == expected


def test_rewardbench_by_subset(tmp_path: Path) -> None:
    """Its columns, with a subset of one pair and one of three; their mean counts both alike: (1 + 1/3) / 2."""
    texts = [("chat/easy", "a b", "a"), ("hard", "a b", "a"), ("hard", "a", "a b"), ("hard", "a", "a b")]
    rows = [
        {
            "prompt": f"q{i}",
            "chosen": c,
            "rejected": r,
            "subset": s,
            "id": i,
            "chosen_model": "m",
            "rejected_model": "n",
        }
        for i, (s, c, r) in enumerate(texts)
    ]
    file = tmp_path / "bench.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Files(preferences=str(file), facts=["subset"], validation_fraction=0.0)
    stage = EvaluatePreferences(data=data, reward=Words(), by="subset", split="all")
    assert not data.unset(stage.data_needs()[0][1])
    found = ran(stage, {}, tmp_path / "run")
    expected = {"accuracy_chat_easy": 1.0, "accuracy_hard": 1 / 3, "longer_hard": 1 / 3, "accuracy_of_subsets": 2 / 3}
    assert {k: float(found[k]) for k in expected} == pytest.approx(expected)


def test_subsets_do_not_hide_other_metrics(tmp_path: Path) -> None:
    """One of two pairs is right, in subsets of one each; the mean is 1/2, whatever they are called."""
    assert [subset_name(s) for s in ("of_subsets", "by_words", "of subsets")] == [
        "of_subsets_",
        "by_words_",
        "of_subsets_",
    ]
    texts = (("by_words", "a b", "a"), ("of_subsets", "a", "a b"))
    data = Pairs(tuple(Comparison(Prompt(Prompt.user(s).messages, (("kind", s),)), *both) for s, *both in texts))
    found = ran(EvaluatePreferences(data=data, reward=Words(), by="kind"), {}, tmp_path)
    assert (float(found["accuracy_of_subsets"]), float(found["accuracy_of_subsets_"])) == (0.5, 0.0)


def test_subsets_do_not_hide_intervals() -> None:
    assert [subset_name(s) for s in ("math-prm", " a b/c ", "low", "x_high", "")] == [
        "math-prm", "a_b_c", "low_", "x_high_", "unnamed"
    ]  # fmt: skip


def test_ties_are_left_out(tmp_path: Path) -> None:
    tied = Comparison(ASK, "a", "b c", notes={"tie": 1.0})
    found = ran(EvaluatePreferences(data=Pairs((tied, *pairs(("a b", "c")))), reward=Words()), {}, tmp_path)
    assert found["pairs"] == 1 and found["accuracy"] == 1
    with pytest.raises(DataError, match="no preferences of the validation part"):
        ran(EvaluatePreferences(data=Pairs((tied,)), reward=Words()), {}, tmp_path / "none")


def test_an_ensemble_scores_with_its_inputs(tmp_path: Path) -> None:
    models = {n: tiny_policy_artifact(tmp_path / n, seed=i, scalar_head=True) for i, n in enumerate(("one", "two"))}
    data = Pairs(pairs(("ana does like tea", "i think not"), ("bo does like rain", "what ?")))
    found = ran(EvaluatePreferences(data=data, reward=EnsembleMean(["one", "two"])), models, tmp_path)
    assert found["pairs"] == 2 and 0 <= found["calibration_error"] <= 1
    alone = {n: ran(EvaluatePreferences(data=data), {"reward": m}, tmp_path / f"{n}_alone") for n, m in models.items()}
    by_member = {n: float(found[f"accuracy_by_{n}"]) for n in models}
    assert by_member == {n: float(each["accuracy"]) for n, each in alone.items()}


def test_a_sure_judge_that_is_right_half_of_the_time(tmp_path: Path) -> None:
    """A gap of log 9 is a probability of .9: right in half of the pairs, the calibration error is .4."""

    class Sure(Words):
        VERSION: ClassVar[str] = "1"

        def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
            return math.log(9) * super().score(prompts, answers)

    texts = [("a b", "a"), ("a", "a b")] * 10
    found = ran(EvaluatePreferences(data=Pairs(pairs(*texts)), reward=Sure()), {}, tmp_path)
    assert float(found["calibration_error"]) == pytest.approx(0.4, abs=1e-6)
    assert isinstance(found["calibration_error"], Estimate) and found["calibration_error"].interval is not None


@pytest.mark.parametrize(
    ("arguments", "names", "message"),
    [
        ({}, (), "nothing scores the answers"),
        ({"preference": First(), "reward": Words()}, (), "preference and reward would both judge"),
        ({"preference": First()}, ("reward",), r"preference and inputs\.reward would both judge"),
        ({"reward": Words(), "data": None}, (), "has no preferences"),
        ({"reward": EnsembleMean(["a", "b"])}, ("a",), r"set inputs\.b"),
        ({"reward": Words()}, ("other",), r"nothing reads inputs\.other"),
    ],
)
def test_what_cannot_judge_is_refused(arguments: dict[str, Any], names: tuple[str, ...], message: str) -> None:
    stage = EvaluatePreferences(**{"data": Pairs(), **arguments})
    with pytest.raises(ValueError, match=message):
        stage.check_inputs(frozenset(names))


def test_the_rules_are_those_of_agreement_that_see_no_order() -> None:
    assert RULES.keys() == rulers.RULES.keys() - {"first"}
    assert rulers.list_lines("- one\n  2) two\n* three\n3rd line\n-dash\n2024 was") == 3


# ---- win rates -------------------------------------------------------------------------------------------------------
def compared(tmp_path: Path, seeds: tuple[int, int], **arguments: Any) -> dict[str, float]:
    inputs = {
        name: tiny_policy_artifact(tmp_path / name, seed=s)
        for name, s in zip(("policy", "baseline"), seeds, strict=True)
    }
    stage = Compare(data=Pairs(), sampling=Sampling(max_new_tokens=8), samples_per_prompt=8, **arguments)
    return ran(stage, inputs, tmp_path)


def test_a_model_against_itself_wins_half_in_both_orders(tmp_path: Path) -> None:
    found = compared(tmp_path, (0, 0), preference=First())
    halves = ("win_rate", "length_controlled_win_rate", "win_rate_shown_first", "win_rate_shown_second", "longer")
    assert {k: float(found[k]) for k in halves} == dict.fromkeys(halves, 0.5)
    assert found["same_answer"] == 1 and found["length_gap"] == 0


def test_a_judge_of_length_gives_a_win_rate_that_is_the_share_of_longer_answers(tmp_path: Path) -> None:
    found = compared(tmp_path, (0, 1), reward=Words())
    assert float(found["win_rate"]) == float(found["longer"])
    assert "consistent" not in found and "win_rate_shown_first" not in found
    controlled = found["length_controlled_win_rate"]
    assert isinstance(controlled, Estimate) and controlled.interval is not None
    assert controlled.interval[0] <= 0.5 <= controlled.interval[1]


def test_a_panel_judges_both_orders(tmp_path: Path) -> None:
    panel = Panel({"looks": Rater("looks", {"words": 1.0})}, position_bias=50.0)
    found = compared(tmp_path, (0, 1), preference=panel)
    assert float(found["win_rate_shown_first"]) > 0.9 and float(found["win_rate_shown_second"]) < 0.1 + float(
        found["same_answer"]
    )


@pytest.mark.parametrize(
    ("limit", "gap", "why"),
    [(1, 0, "there is one prompt only"), (None, 2, "one policy always gives the longer answer")],
)
def test_why_there_is_no_win_rate_at_equal_length_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, gap: int, why: str
) -> None:
    told: list[str] = []
    monkeypatch.setattr(NullTracker, "say", lambda self, text: told.append(text))
    calls = iter(("b" + " b" * gap, "a"))

    def answers(policy: Any, prompts: Sequence[Prompt], *_: Any, **__: Any) -> list[Sample]:
        text = next(calls)
        return [Sample(p, (0,), (0,), text, True, (0.0,)) for p in prompts]

    monkeypatch.setattr(compare, "generate", answers)
    found = compared(tmp_path, (0, 0), reward=Words(), limit=limit)
    assert "length_controlled_win_rate" not in found and told == [f"{why}: there is no win rate at equal length"]


# ---- at equal length -------------------------------------------------------------------------------------------------
NAMES = [f"p{i:03d}" for i in range(400)]


def controlled(prompts: Sequence[str], wins: Any, gaps: Any) -> Estimate | None:
    return length_controlled(prompts, np.asarray(wins).tolist(), np.asarray(gaps).tolist())


def drawn(mean: float, theta: float, phi: float, seed: int, size: int = 400) -> tuple[Any, Any]:
    """Gaps in length, and who wins by the model itself."""
    draws = np.random.default_rng(seed)
    gaps = np.round(draws.normal(mean, 4, size))
    odds = theta + phi * np.tanh(gaps / gaps.std())
    return (draws.random(size) < 1 / (1 + np.exp(-odds))).astype(float), gaps


@pytest.mark.parametrize("mean", [0.0, 3.0, 6.0])
def test_a_judge_who_reads_length_alone_finds_no_winner_at_equal_length(mean: float) -> None:
    """Whether by chance or without fail; the plain win rate is that of the longer answers."""
    gaps = drawn(mean, 0.0, 0.0, 1)[1]
    for wins in (0.5 + 0.5 * np.sign(gaps), drawn(mean, 0.0, 2.0, 1)[0]):
        found = controlled(NAMES, wins, gaps)
        assert found is not None and found.interval is not None and found.interval[0] <= 0.5 <= found.interval[1]


def test_the_interval_covers_the_truth() -> None:
    """95 % of it, of 200 draws: within three standard deviations of a share."""
    truth, hits = 1 / (1 + math.exp(-0.7)), 0
    for seed in range(200):
        found = controlled(NAMES, *drawn(3.0, 0.7, 1.5, seed))
        assert found is not None and found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / 200 <= 1


def test_without_gaps_it_is_the_win_rate() -> None:
    wins = [1.0] * 280 + [0.0] * 120
    found = controlled(NAMES, wins, [0.0] * 400)
    assert found is not None and float(found) == pytest.approx(0.7, abs=1e-3), "but for the prior"
    assert found.interval == pytest.approx(wilson(0.7, 400), abs=2e-3)


def test_where_one_is_always_longer_it_is_not_known() -> None:
    assert controlled(NAMES, [1.0] * 400, np.arange(1, 401)) is None
    assert controlled(NAMES, [1.0] * 400, np.arange(-400, 0)) is None
    assert controlled(["p"] * 400, *drawn(0.0, 0.0, 0.0, 0)) is None, "one prompt says nothing of others"


def test_answers_to_one_prompt_are_not_independent() -> None:
    wins, gaps = drawn(0.0, 0.5, 1.0, 0, size=100)
    one = controlled(NAMES[:100], wins, gaps)
    many = controlled([n for n in NAMES[:100] for _ in range(8)], wins.repeat(8), gaps.repeat(8))
    assert one is not None and many is not None
    assert many.interval == pytest.approx(one.interval, abs=0.02)


def test_a_sure_winner_has_finite_odds() -> None:
    found = controlled(NAMES, [1.0] * 400, drawn(0.0, 0.0, 0.0, 0)[1])
    assert found is not None and found.low is not None and 0.95 < found.low < float(found) < 1


def test_two_models_are_compared_on_their_prompts() -> None:
    wins, gaps = drawn(0.0, 0.5, 1.0, 0)
    one, same = (controlled(NAMES, wins, gaps) for _ in range(2))
    assert one is not None and same is not None
    assert correlation(one, same) == pytest.approx(1.0) and difference(one, same) == pytest.approx((0, 0), abs=0.01)
    (tally,) = one.tallies
    assert isinstance(tally, Tally) and len(tally.keys) == 400


# ---- calibration -----------------------------------------------------------------------------------------------------
def test_all_answers_to_a_prompt_are_drawn_together() -> None:
    """a has the places 1 and 4, b 0 and 2, c 3: whatever is drawn, each is there as often as its prompt's others."""
    seen: list[list[int]] = []

    def noted(places: Any) -> float:
        seen.append(np.bincount(places, minlength=5).tolist())
        return float(places.sum())

    Estimate.statistic(list("babca"), noted)
    assert all(n[1] == n[4] and n[0] == n[2] and n[1] + n[0] + n[3] in (2, 3) for n in seen)
    assert [1, 1, 1, 1, 1] in seen and [0, 1, 0, 1, 1] in seen, "all of them, and all but b"


def test_thousands_of_prompts_take_a_second() -> None:
    """The places of a resample are found without a loop over prompts, which took 7 s of these."""
    start = time.process_time()
    assert Estimate.statistic([f"p{i}" for i in range(6000)], lambda places: float(places[0])) is not None
    assert time.process_time() - start < 3


def test_calibration_error_by_hand() -> None:
    always = calibration_error(np.full(10, 0.9), np.array([1.0, 0.0] * 5), 10)
    assert always == pytest.approx(0.4)
    perfect = calibration_error(np.array([0.25] * 4 + [0.5] * 2 + [1.0]), np.array([1, 0, 0, 0, 1, 0, 1.0]), 10)
    assert perfect == pytest.approx(0.0, abs=1e-12)
    apart = calibration_error(np.array([0.2, 0.8]), np.array([1.0, 0.0]), 10)
    assert apart == pytest.approx(0.8), "errors of two bins do not cancel"
    assert calibration_error(np.array([0.2, 0.8]), np.array([1.0, 0.0]), 1) == pytest.approx(0.0), "those of one do"


@pytest.mark.parametrize("bins", [3, 10, 20])
def test_a_border_belongs_to_the_lower_bin(bins: int) -> None:
    """Just above it begins the next one: the errors, of opposite signs, cancel in one bin only."""
    for k in range(1, bins):
        at, above = k / bins, k / bins + 1e-4
        apart = calibration_error(np.array([at, above]), np.array([1.0, 0.0]), bins)
        assert apart == pytest.approx(((1 - at) + above) / 2)
