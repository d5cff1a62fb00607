"""Agreement: the worked examples of the papers, libraries where they are installed, and the command."""

import json
import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest

from alignlab.cli.app import main
from alignlab.errors import DataError
from alignlab.judgements.agreement import (
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    observed,
    pairs_of_raters,
)
from alignlab.judgements.records import Judgement, check_items, parse, read
from alignlab.judgements.rulers import list_lines, preferred
from alignlab.judgements.summary import categories, lines, summary

COHEN = ((88, 14, 18), (10, 40, 10), (2, 6, 12))
"""Table 2 of Cohen 1960: 200 cases in three categories by two judges."""
FLEISS = """
0 0 0 6 0 / 0 3 0 0 3 / 0 1 4 0 1 / 0 0 0 0 6 / 0 3 0 3 0 / 2 0 4 0 0 / 0 0 4 0 2 / 2 0 3 1 0 / 2 0 0 4 0 / 0 0 0 0 6
1 0 0 5 0 / 1 1 0 4 0 / 0 3 3 0 0 / 1 0 0 5 0 / 0 2 0 3 1 / 0 0 5 0 1 / 3 0 0 1 2 / 5 1 0 0 0 / 0 2 0 4 0 / 1 0 2 0 3
0 0 0 0 6 / 0 1 0 5 0 / 0 2 0 1 3 / 2 0 0 4 0 / 1 0 0 4 1 / 0 5 0 1 0 / 4 0 0 0 2 / 0 2 0 4 0 / 1 0 5 0 0 / 0 0 0 0 6
"""
"""Table 1 of Fleiss 1971: 30 patients, six psychiatrists each, five diagnoses."""
KRIPPENDORFF = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
"""Krippendorff 2011, section C: four observers, twelve units."""


def cohens_judges() -> tuple[list[int], list[int]]:
    pairs = [(i, j) for i, row in enumerate(COHEN) for j, n in enumerate(row) for _ in range(n)]
    return [i for i, _ in pairs], [j for _, j in pairs]


def fleiss_counts() -> list[Counter[Hashable]]:
    rows = [row.split() for row in FLEISS.replace("\n", "/").split("/") if row.strip()]
    return [Counter({category: int(n) for category, n in enumerate(row)}) for row in rows]


def krippendorff_units() -> list[list[str]]:
    return [[v for v in unit if v != "."] for unit in zip(*(row.split() for row in KRIPPENDORFF), strict=True)]


def crowd(seed: int, raters: int, missing: float = 0.0, categories: int = 3) -> list[list[int | None]]:
    """For each of 60 items, every rater's category; they tend to agree."""
    draws = random.Random(seed)
    truth = [draws.randrange(categories) for _ in range(60)]

    def one(true: int) -> int | None:
        said = true if draws.random() < 0.6 else draws.randrange(categories)
        return None if draws.random() < missing else said

    return [[one(true) for _ in range(raters)] for true in truth]


# ---- the papers ------------------------------------------------------------------------------------------------------
def test_cohens_own_example() -> None:
    kappa = cohen_kappa(*cohens_judges())
    assert kappa == pytest.approx((0.70 - 0.41) / (1 - 0.41), abs=1e-12)
    assert kappa is not None and round(kappa, 3) == 0.492


def test_fleiss_own_example() -> None:
    counts = fleiss_counts()
    assert [sum(c[k] for c in counts) for k in range(5)] == [26, 26, 30, 55, 43]
    assert fleiss_kappa(counts) == pytest.approx(0.430245, abs=1e-6)


def test_krippendorffs_own_example() -> None:
    """40 values can be paired; 26 in the diagonal of the coincidences, of the shares 9, 13, 10, 5, 3."""
    by_chance = sum(n * (n - 1) for n in (9, 13, 10, 5, 3))
    expected = (39 * (7 + 10 + 8 + 4 + 3) - by_chance) / (40 * 39 - by_chance)
    assert krippendorff_alpha(krippendorff_units()) == pytest.approx(expected, abs=1e-12)
    assert round(expected, 3) == 0.743


# ---- on paper --------------------------------------------------------------------------------------------------------
def test_agreement_on_paper() -> None:
    assert observed([["a", "a", "b"], ["a"], ["b", "b"]]) == pytest.approx((2 + 2) / (6 + 2))
    assert cohen_kappa("aabb", "abab") == 0
    assert cohen_kappa("aabb", "aabb") == 1
    assert cohen_kappa("ab", "ba") == -1
    assert fleiss_kappa([Counter("aa"), Counter("bb")]) == 1
    assert krippendorff_alpha(["aa", "bb"]) == 1
    assert krippendorff_alpha(["ab", "ab"]) == pytest.approx(1 - 3 * 4 / 8)


def test_fleiss_of_two_raters_is_scotts_pi_and_alpha_corrects_it_for_size() -> None:
    """alpha = pi + (1 - pi) / n, n judgements in all."""
    one, other = cohens_judges()
    units = list(zip(one, other, strict=True))
    pi = fleiss_kappa(map(Counter, units))
    assert pi is not None
    assert krippendorff_alpha(units) == pytest.approx(pi + (1 - pi) / 400, abs=1e-12)


@pytest.mark.parametrize("units", [[], ["a", "b"], ["aa", "aa"]])
def test_what_is_not_defined_is_none(units: Sequence[str]) -> None:
    assert krippendorff_alpha(units) is None
    assert fleiss_kappa(map(Counter, units)) is None
    assert cohen_kappa("aa", "aa") is cohen_kappa("", "") is None
    assert observed(["a", "b"]) is None


def test_two_raters_need_the_same_items() -> None:
    with pytest.raises(ValueError, match="1 categories by one rater, 2 by the other"):
        cohen_kappa("a", "ab")


# ---- libraries -------------------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(5))
def test_cohen_is_scikit_learns(seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed; the papers' examples hold")
    one, other = zip(*crowd(seed, 2), strict=True)
    assert cohen_kappa(one, other) == pytest.approx(sklearn.cohen_kappa_score(one, other), abs=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(5))
def test_fleiss_is_statsmodels(seed: int) -> None:
    rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not installed")
    table = crowd(seed, 4)
    counts, _ = rater.aggregate_raters(table)
    assert fleiss_kappa(map(Counter, table)) == pytest.approx(rater.fleiss_kappa(counts), abs=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(5))
def test_alpha_is_krippendorffs(seed: int) -> None:
    krippendorff = pytest.importorskip("krippendorff", reason="krippendorff is not installed")
    table = crowd(seed, 4, missing=0.4)
    data = [[float("nan") if v is None else v for v in row] for row in zip(*table, strict=True)]
    units = [[v for v in item if v is not None] for item in table]
    theirs = krippendorff.alpha(data, level_of_measurement="nominal")
    assert krippendorff_alpha(units) == pytest.approx(theirs, abs=1e-6)


# ---- judgements ------------------------------------------------------------------------------------------------------
def judgement(
    item: str, rater: str, choice: int | None, answers: Sequence[str] = ("a", "b b"), **more: Any
) -> Judgement:
    return Judgement(item, "which ?", tuple(answers), rater, choice, **more)


def test_categories_are_of_answers_and_not_of_places() -> None:
    given = [judgement("1", "x", 0), judgement("1", "y", 1, ["b b", "a"]), judgement("1", "z", None, tie=True)]
    assert categories(given) == {"1": {"x": 0, "y": 0, "z": "tie"}}


def test_a_rater_counts_once_on_an_item_and_what_was_not_made_is_left_out() -> None:
    given = [judgement("1", "x", 0), judgement("1", "x", 1), judgement("1", "y", None), judgement("1", "z", 0)]
    found = summary(given)
    assert categories(given) == {"1": {"x": 0, "z": 0}}
    assert (found["judgements"], found["judged_again"], found["not_made"]) == (3, 1, 1)


def test_pairs_of_raters_have_the_items_that_both_judged() -> None:
    table = {"1": {"x": 0, "y": 1}, "2": {"x": 1}, "3": {"y": 0, "x": 0, "z": 1}}
    assert pairs_of_raters(table) == {("x", "y"): [(0, 1), (0, 0)], ("x", "z"): [(0, 1)], ("y", "z"): [(0, 1)]}


def test_rules_on_paper() -> None:
    both = judgement("1", "x", 0, ["- one\n- two", "three four five"])
    assert [preferred(rule, both.answers) for rule in ("longer", "shorter", "first", "more_list_lines")] == [0, 1, 0, 0]
    assert preferred("longer", ["a", "b"]) is None
    assert [list_lines(t) for t in ("1. a\n2) b\n* c", "a - b", "5.5 is a number", "")] == [3, 0, 0, 0]


def test_leanings_and_rulers_on_paper() -> None:
    """Longer is chosen in 3 of 4 where lengths differ; of all five, the rule finds 3 and half of the other."""
    given = [judgement(str(i), "x", int(i < 3)) for i in range(4)] + [judgement("4", "x", 0, ["a", "b"])]
    found = summary([*given, judgement("5", "x", None, tie=True)])
    assert found["ties"] == 1
    assert (found["chosen"]["longer"]["value"], found["chosen"]["longer"]["count"]) == (0.75, 4)
    assert found["accuracy"]["longer"]["value"] == pytest.approx(3.5 / 5)
    assert found["accuracy"]["shorter"]["value"] == pytest.approx(1.5 / 5)
    assert found["accuracy"]["first"] == found["chosen"]["first"]
    assert found["accuracy"]["more_list_lines"]["value"] == 0.5
    low, high = found["chosen"]["longer"]["low"], found["chosen"]["longer"]["high"]
    assert (low, high) == pytest.approx((0.3006, 0.9544), abs=1e-4), "Wilson, 3 of 4"


def test_judgements_of_one_item_are_not_independent() -> None:
    once = [judgement(str(i), "x", i % 2) for i in range(40)]
    copied = [judgement(j.id, rater, j.choice) for j in once for rater in ("x", "y", "z")]
    one, three = (summary(given)["chosen"]["first"] for given in (once, copied))
    assert (three["low"], three["high"]) == pytest.approx((one["low"], one["high"]), abs=1e-9)


# ---- files -----------------------------------------------------------------------------------------------------------
LINE: dict[str, Any] = {"id": "1", "prompt": "p", "answers": ["a", "b"], "rater": "r", "choice": 0, "tie": False}


def written(folder: Path, *rows: object) -> Path:
    file = folder / "judgements.jsonl"
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return file


def test_a_judgement_is_read_as_it_was_written(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "p"}]
    given = [
        Judgement("1", "p", ("a", "b"), "r", 0, time=1.5),
        Judgement("2", messages, ("a", "b", "c"), "r", 2, ranking=(2, 0, 1), split="train", facts={"answer": "c"}),
        Judgement("3", "p", ("a", "b"), "r", None, tie=True),
    ]
    file = written(tmp_path, *(g.to_json() for g in given))
    assert read(file) == read(tmp_path) == given


def test_what_is_usual_is_accepted() -> None:
    found = parse({**LINE, "id": 7, "choice": None, "ranking": [1, 0], "mood": "good"})
    assert (found.id, found.choice, found.made) == ("7", 1, True)
    assert not parse({**LINE, "choice": None}).made
    one, other = parse(LINE), parse({**LINE, "prompt": [{"role": "user", "content": "p"}], "answers": ["b", "a"]})
    assert len(check_items([one, other])) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "Expecting"),
        ([1], "a JSON object, found list"),
        ({"id": "1", "rater": "r"}, "missing: prompt, answers, choice"),
        ({**LINE, "id": None}, "id must be a text"),
        ({**LINE, "rater": " "}, "rater must be a text"),
        ({**LINE, "prompt": []}, "prompt must be a text or a list of messages"),
        ({**LINE, "answers": ["a"]}, "two or more texts"),
        ({**LINE, "answers": ["a", 1]}, "two or more texts"),
        ({**LINE, "answers": ["a", "a"]}, "answers must differ"),
        ({**LINE, "choice": 2}, "the number of an answer, 0 to 1, found 2"),
        ({**LINE, "choice": True}, "the number of an answer"),
        ({**LINE, "choice": "a"}, "the number of an answer"),
        ({**LINE, "rater": "\ud800"}, "which is half of a character"),
        ({**LINE, "answers": ["a", "\ud800"]}, "which is half of a character"),
        ({**LINE, "prompt": [{"role": "user", "content": "\ud800"}]}, "which is half of a character"),
        ({**LINE, "tie": 1}, "tie must be true or false"),
        ({**LINE, "tie": True}, "choice must be null, and ranking missing, where tie is true"),
        ({**LINE, "ranking": [0, 0]}, "ranking must hold each of 0 to 1 once"),
        ({**LINE, "ranking": [1, 0]}, "choice is 0, but the ranking's best is 1"),
        ({**LINE, "time": -1}, "time must be a number of seconds"),
        ({**LINE, "time": 10**400}, "time must be a number of seconds"),
        ({**LINE, "time": math.nan}, "time must be a number of seconds"),
        ({**LINE, "time": math.inf}, "time must be a number of seconds"),
        ({**LINE, "split": "test"}, "split must be train or validation"),
        ({**LINE, "facts": [1]}, "facts must be an object of texts"),
        ({**LINE, "answers": ["a", "c"]}, "the answers of id '1' differ from those of .*judgements.jsonl:1"),
        ({**LINE, "prompt": "q"}, "the messages of the prompt of id '1' differ from those of .*judgements.jsonl:1"),
        ({**LINE, "split": "train"}, "the splits of id '1' differ from those of .*judgements.jsonl:1"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: object, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, LINE, row)
    with pytest.raises(DataError, match=f"judgements.jsonl:2: .*{message}"):
        read(file)
    assert main(["agreement", str(file)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"alignlab: {file}:2: ") and "Traceback" not in told and told.count("\n") == 1


def test_no_file_and_no_judgement_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no judgement"):
        read(written(tmp_path))


# ---- the command -----------------------------------------------------------------------------------------------------
def fleiss_file(folder: Path) -> Path:
    """Fleiss' patients as a file of judgements."""
    answers = ["depression", "personality", "schizophrenia", "neurosis", "other"]
    rows = [
        {**LINE, "id": i, "answers": answers, "rater": f"r{place}", "choice": said}
        for i, count in enumerate(fleiss_counts())
        for place, said in enumerate(count.elements())
    ]
    return written(folder, *rows)


def test_the_command_prints_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = fleiss_file(tmp_path)
    assert main(["agreement", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["judgements"], found["items"], found["raters"]) == (180, 30, 6)
    assert found["agreement"]["fleiss_kappa"] == pytest.approx(0.430245, abs=1e-6)
    assert len(found["agreement"]["pairs"]) == 15
    assert found == json.loads(json.dumps(summary(read(file))))
    assert main(["agreement", str(file)]) == 0
    told = capsys.readouterr().out
    assert "0.430" in told and "Krippendorff" in told and "r0 and r1" in told
    assert max(map(len, told.splitlines()[1:])) <= 80


def test_long_lists_of_pairs_are_cut_and_nothing_is_no_number() -> None:
    given = [judgement("1", f"r{i:02}", 0) for i in range(10)]
    told = "\n".join(lines(summary(given)))
    assert "and 25 more pairs" in told and "not defined" in told
    broken = lines(summary([judgement("1", name, 0) for name in ("one\ntwo", "three\tfour", "five")]))
    assert any("one two and three four" in line for line in broken) and not {"\n", "\t"} & set("".join(broken))
    named = lines(summary([judgement("1", name, 0) for name in ("a" * 99, "b" * 99, "rater_1", "rater 1")]))
    assert any(f"{'a' * 17}… and {'b' * 17}…" in line for line in named) and max(map(len, named)) <= 80
    assert any("rater 1 and rater_1" in line for line in named), "a name is shown as it is"
    assert "nothing to tell" in "\n".join(lines(summary([judgement("1", "x", None, tie=True)])))
    assert "nothing to tell" in "\n".join(lines(summary([judgement("1", "x", None)])))
    assert "median time" in "\n".join(lines(summary([judgement("1", "x", 0, time=3.0)])))


def test_the_command_does_not_import_torch(tmp_path: Path) -> None:
    file = fleiss_file(tmp_path)
    code = f"import sys\nfrom alignlab.cli import main\nassert main(['agreement', {str(file)!r}]) == 0\n"
    code += "assert not {'torch', 'transformers', 'pytorch_lightning'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)
