"""StyleOfAnswers: closed forms on answers made by hand, and the same features as in a model's answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from alignlab_raters import StyleEvaluation, StyleOfAnswers

from alignlab.artifact import Artifact
from alignlab.data import answers
from alignlab.data.records import Example, Prompt
from alignlab.data.source import DataSource, Part, Split
from alignlab.errors import DataError
from alignlab.runtime import Runtime
from alignlab.stage import StageContext

GIVEN = [("tea ?", "perhaps tea"), ("tea ?", "- tea\n- rain"), ("rain ?", "certainly , rain !"), ("sun ?", "no")]


class Written(DataSource):
    """Answers to three questions; the last one is held out."""

    VERSION: ClassVar[str] = "1"

    def instructions(self, split: Split) -> Sequence[Example]:
        examples = [Example(Prompt.user(prompt), answer) for prompt, answer in GIVEN]
        return examples[:3] if split == "train" else examples[3:]


def measured(folder: Path, inputs: dict[str, Artifact] | None = None, **settings: Any) -> dict[str, float]:
    stage = StyleOfAnswers(**{"data": Written(), **settings})
    context = StageContext("style", folder, folder, Runtime("cpu"))
    return dict(stage.run(inputs or {}, context))


def test_shares_and_means_by_hand(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert found["profile_words"] == pytest.approx((2 + 4 + 4 + 1) / 4), "dashes and marks stand alone"
    assert found["profile_hedge"] == found["profile_list"] == found["profile_confident"] == 1 / 4
    assert found["profile_exclamations"] == 1 / 4
    assert found["profile_hedge_low"] < 1 / 4 < found["profile_hedge_high"]


def test_diversity_is_that_of_prompts_with_several_answers(tmp_path: Path) -> None:
    assert measured(tmp_path)["profile_different"] == 1.0
    (tmp_path / "held_out").mkdir()
    assert "profile_different" not in measured(tmp_path / "held_out", split="validation")


@pytest.mark.parametrize(("split", "words"), [("train", 10 / 3), ("validation", 1.0)])
def test_the_part_and_the_limit(split: Part, words: float, tmp_path: Path) -> None:
    assert measured(tmp_path, split=split)["profile_words"] == pytest.approx(words)
    (tmp_path / "first").mkdir()
    first = measured(tmp_path / "first", limit=1, name="mine")
    assert first["mine_hedge"] == 1.0 and not any(key.startswith("profile") for key in first)


def test_a_stages_answers_take_the_place_of_the_datas(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    answers.write(made, [answers.row(Example(Prompt.user("a"), "b c d e f"), "train")])
    (tmp_path / "out").mkdir()
    found = measured(tmp_path / "out", {"answers": Artifact.open(made)})
    assert found["profile_words"] == 5.0


def test_every_metric_is_one_of_a_models_answers(tmp_path: Path) -> None:
    known = {column.metric: column for column in StyleEvaluation(Written()).columns}
    ends = ("_low", "_high")
    assert {key for key in measured(tmp_path) if not key.endswith(ends)} <= known.keys()


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there are no answers; set data, or inputs\.answers"):
        StyleOfAnswers().check_inputs(frozenset())
    made = tmp_path / "made"
    made.mkdir()
    answers.write(made, [answers.row(Example(Prompt.user("a"), "b"), "train")])
    with pytest.raises(DataError, match="style: there are no answers of the validation part to read"):
        measured(tmp_path, {"answers": Artifact.open(made)}, split="validation")


@pytest.mark.parametrize(("key", "least"), [("limit", 1), ("table_rows", 0)])
def test_settings_that_mean_nothing_are_refused(key: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"{key} must be >= {least}, got {least - 1}"):
        StyleOfAnswers(data=Written(), **{key: least - 1})
