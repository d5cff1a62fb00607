"""HarnessEvaluation: its numbers, its errors, and, where the harness is installed, the harness itself."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import docs_pages
import pytest

from alignlab.errors import ConfigError
from alignlab.evaluation import HarnessEvaluation
from alignlab.evaluation.harness import measured, metric_of, rows_of
from alignlab.metrics import Estimate
from alignlab.policy import Sampling
from alignlab.testing import Check, conforms_evaluation, tiny_policy

IS_HERE = importlib.util.find_spec("lm_eval") is not None
with_harness = pytest.mark.skipif(not IS_HERE, reason="lm-eval is not installed: pip install alignlab[lm-eval]")


def documents(values: list[float], name: str = "acc", chosen: str = "none") -> list[dict[str, Any]]:
    return [{"doc_id": i, "filter": chosen, name: value} for i, value in enumerate(values)]


# ---- numbers ---------------------------------------------------------------------------------------------------------
def test_a_mean_over_documents_has_an_interval() -> None:
    samples = documents([1.0, 0.0, 1.0, 1.0])
    found = measured("facts", "acc", {"acc,none": 0.75, "acc_stderr,none": 0.2, "alias": "facts"}, samples)
    assert isinstance(found, Estimate) and float(found) == 0.75 and found.count == 4
    low, high = found.interval or (0.0, 0.0)
    assert 0.0 <= low < 0.75 < high <= 1.0


def test_a_number_that_is_not_the_mean_of_its_documents_has_none() -> None:
    found = measured("translate", "bleu", {"bleu,none": 31.5}, documents([1.0, 2.0], "bleu"))
    assert found == 31.5 and not isinstance(found, Estimate)
    assert not isinstance(measured("mmlu", "acc", {"acc,none": 0.25}, []), Estimate)


def test_the_filter_chooses_among_readings_of_the_same_answers() -> None:
    results = {"exact_match,strict-match": 0.5, "exact_match,flexible-extract": 1.0}
    samples = documents([1.0, 0.0], "exact_match", "strict-match") + documents(
        [1.0, 1.0], "exact_match", "flexible-extract"
    )
    assert measured("gsm8k", "exact_match,strict-match", results, samples) == 0.5
    assert measured("gsm8k", "exact_match,flexible-extract", results, samples) == 1.0
    with pytest.raises(ConfigError, match=r"gsm8k has several exact_match; write one of exact_match,strict-match, e"):
        measured("gsm8k", "exact_match", results, samples)


def test_a_metric_that_a_task_has_not_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(ConfigError, match="facts has no metric accuracy; write one of acc,none, acc_norm,none"):
        measured("facts", "accuracy", {"acc,none": 0.5, "acc_norm,none": 0.5, "acc_stderr,none": 0.1}, [])


def test_a_row_shows_the_text_or_the_likeliest_choice() -> None:
    generated = {"arguments": [("2 + 2 =", {})], "filtered_resps": ["4"], "target": 4}
    chosen = {
        "arguments": [("who ?", " a"), ("who ?", " b")],
        "filtered_resps": [(-3.0, False), (-1.0, True)],
        "target": 1,
    }
    rows = rows_of("task", [generated, chosen])
    assert [(row["prompt"], row["answer"], row["truth"]) for row in rows] == [
        ("2 + 2 =", "4", "4"),
        ("who ?", " b", "1"),
    ]


def test_a_metric_has_its_task_in_its_name_and_neither_comma_nor_slash() -> None:
    assert metric_of("a/gsm8k", "exact_match,strict-match") == "a_gsm8k_exact_match_strict-match"


# ---- errors ----------------------------------------------------------------------------------------------------------
@pytest.mark.skipif(IS_HERE, reason="lm-eval is installed")
def test_without_the_harness_the_configuration_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"not installed; install alignlab\[lm-eval\]"):
        HarnessEvaluation({"ifeval": ["prompt_level_strict_acc"]})


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the harness were installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": {}}, "must name the metrics of at least one task"),
        ({"tasks": {"ifeval": []}}, "must name the metrics of at least one task"),
        ({"limit": 0}, "limit must be >= 1, got 0"),
        ({"shots": -1}, "shots must be >= 0, got -1"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"folder": "nowhere"}, "there is no folder nowhere"),
    ],
)
@pytest.mark.usefixtures("present")
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HarnessEvaluation(**{"tasks": {"facts": ["acc"]}, **settings})


@pytest.mark.usefixtures("present")
def test_columns_are_those_that_tasks_names() -> None:
    evaluation = HarnessEvaluation({"facts": ["acc", "acc_norm"], "ifeval": ["inst_level_strict_acc"]})
    names = [column.metric for column in evaluation.columns]
    assert names == ["facts_acc", "facts_acc_norm", "ifeval_inst_level_strict_acc"]


# ---- the harness itself ----------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's own task, below the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, text in docs_pages.files("lm-eval.md").items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    return "tasks"


def own_tasks() -> HarnessEvaluation:
    """The page's own task, where a test begins; a check runs in another folder."""
    os.makedirs("tasks", exist_ok=True)
    for name, text in docs_pages.files("lm-eval.md").items():
        Path(name).write_text(text, encoding="utf-8")
    return HarnessEvaluation({"facts": ["acc"]}, folder="tasks")


@with_harness
@pytest.mark.usefixtures("folder")
@conforms_evaluation(own_tasks)
def test_conforms(check: Check) -> None:
    check()


@with_harness
def test_a_task_of_ones_own_is_measured(folder: str) -> None:
    result = HarnessEvaluation({"facts": ["acc"]}, folder=folder)(tiny_policy(), Sampling(), seed=0)
    assert result.metrics["facts_acc"] in (0.0, 0.5, 1.0) and len(result.samples) == 2


@with_harness
def test_an_unknown_task_is_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no task fact in tasks \(there are facts\)"):
        HarnessEvaluation({"fact": ["acc"]}, folder=folder)(tiny_policy(), Sampling(), seed=0)
