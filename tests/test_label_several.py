"""Several judgements of a pair: what is written, one label out of them, and people's judgements in their place."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from alignlab_raters import Panel, Rater

from alignlab.artifact import Artifact
from alignlab.cli.app import main
from alignlab.data import preferences
from alignlab.data.records import Prompt
from alignlab.data.source import DataSource, Split
from alignlab.errors import DataError
from alignlab.judgements.aggregation import CrowdBradleyTerry, DawidSkene, Majority, Soft, votes
from alignlab.judgements.records import read
from alignlab.judgements.summary import summary
from alignlab.policy import Sample, Sampling
from alignlab.preferences import ImportJudgements, Label, sampled
from alignlab.preferences.judging import Judged, write_judgements
from alignlab.reward import Choice, Pair, Preference
from alignlab.runtime import Runtime
from alignlab.stage import StageContext
from alignlab.testing import tiny_policy_artifact

AGGREGATES = [Majority(), Soft(), DawidSkene(), CrowdBradleyTerry()]


class Questions(DataSource):
    """Thirty prompts for training, ten for validation."""

    VERSION: ClassVar[str] = "1"

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Different ones in each split, with a fact."""
        return [
            Prompt(Prompt.user(f"{split} {i}").messages, (("answer", "b"),))
            for i in range(30 if split == "train" else 10)
        ]


def panel(**more: Any) -> Panel:
    """Three raters of different minds."""
    weights = {"long": 0.5, "short": -0.5, "eager": 1.5}
    return Panel({name: Rater(name, {"words": weight}) for name, weight in weights.items()}, **more)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return tiny_policy_artifact(tmp_path_factory.mktemp("made") / "policy")


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy answers with one to five words."""

    def generate(policy: object, prompts: Sequence[Prompt], *_: Any, **__: Any) -> list[Sample]:
        texts = [" ".join(["word"] * (1 + i * 7 % 5)) + f" {i % 2}" for i in range(len(prompts))]
        return [Sample(p, (0,), (0,), text, True) for p, text in zip(prompts, texts, strict=True)]

    monkeypatch.setattr(sampled, "generate", generate)


def label(policy: Artifact, folder: Path, preference: Preference, **more: Any) -> dict[str, float]:
    folder.mkdir()
    sampling = Sampling(max_new_tokens=4)
    stage = Label(data=Questions(), preference=preference, sampling=sampling, pairs=60, validation_pairs=20, **more)
    return dict(stage.run({"policy": policy}, StageContext("label", folder, folder, Runtime(accelerator="cpu"))))


def imported(folder: Path, **more: Any) -> dict[str, float]:
    folder.mkdir()
    return dict(ImportJudgements(**more).run({}, StageContext("import", folder, folder, Runtime(accelerator="cpu"))))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]


def test_every_judgement_is_in_both_files(policy: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = label(policy, tmp_path / "l", panel(ties=0.2), judgements_per_pair=3)
    given, table = read(tmp_path / "l"), pq.read_table(tmp_path / "l" / "judgements.parquet").to_pylist()
    assert len(given) == len(table) == 240
    for one, logged in zip(given, table, strict=True):
        assert (one.id, one.rater, one.answers) == (logged["id"], logged["rater"], (logged["first"], logged["second"]))
        assert one.choice == (None if logged["tie"] else int(not logged["first_preferred"]))
        assert logged["first_preferred"] == (logged["draw"] < logged["probability"])
        assert logged["first_words"] == len(logged["first"].split())
        assert logged["tie_probability"] > 0 and one.facts == {"answer": "b"}
        assert all(f"weight_{name}" in logged for name in ("words", "position")) and logged["flip"] == 0.0
    assert [row["number"] for row in table] == list(range(240))
    assert main(["agreement", str(tmp_path / "l"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["raters"], found["items"], found["judgements"]) == (3, 80, 240)
    assert found["agreement"]["observed"] == pytest.approx(metrics["raters_agree"])
    assert found["agreement"]["krippendorff_alpha"] == pytest.approx(metrics["krippendorff_alpha"])
    assert found["ties"] == sum(row["tie"] for row in table) > 0
    assert "accuracy_ceiling_known_rater" not in metrics


def test_every_second_judgement_sees_the_other_order(policy: Artifact, tmp_path: Path) -> None:
    label(policy, tmp_path / "l", panel(), judgements_per_pair=2)
    given = read(tmp_path / "l")
    assert all(a.answers == b.answers[::-1] for a, b in zip(given[::2], given[1::2], strict=True))


@pytest.mark.parametrize(
    "aggregate", [Majority(), Soft(), DawidSkene(), CrowdBradleyTerry()], ids=lambda a: type(a).__name__
)
def test_people_and_raters_are_interchangeable(policy: Artifact, tmp_path: Path, aggregate: Any) -> None:
    """What a label stage wrote, imported as if people had judged, gives the same preferences."""
    label(policy, tmp_path / "l", panel(ties=0.2), judgements_per_pair=3, aggregate=aggregate)
    imported(tmp_path / "i", files=str(tmp_path / "l"), aggregate=aggregate)
    names = ("prompt", "facts", "chosen", "rejected", "split", "notes", "judgements")
    ours, theirs = ([{name: row[name] for name in names} for row in lines(tmp_path / f)] for f in ("l", "i"))
    assert ours == theirs
    assert summary(read(tmp_path / "l")) == summary(read(tmp_path / "i"))
    agreed = aggregate(votes(read(tmp_path / "l")))
    for row, consensus in zip(ours, agreed, strict=True):
        assert row["notes"]["probability"] == max(consensus.first, 1 - consensus.first)
        assert row["notes"]["tie"] == float(consensus.tied) and 0 <= row["notes"]["agreement"] <= 1
    (pair, *_) = preferences.read(Artifact(tmp_path / "i", "preferences", "x"), "train")
    assert pair.prompt.fact("answer") == "b" and pair.notes.keys() == {"probability", "agreement", "tie"}


def test_one_judgement_with_a_tie_is_noted(policy: Artifact, tmp_path: Path) -> None:
    metrics = label(policy, tmp_path / "l", panel(ties=1.0))
    ties = [row for row in lines(tmp_path / "l") if row["notes"].get("tie")]
    assert 0 < len(ties) < 80 and metrics["tied"] == len(ties) / 80
    assert all(row["notes"]["probability"] > 0 for row in ties)


# ---- imports ---------------------------------------------------------------------------------------------------------
PEOPLE = Path(__file__).parent / "judgements" / "people.jsonl"


def test_people_are_imported_and_prompts_split(tmp_path: Path) -> None:
    metrics = imported(tmp_path / "i", files=[str(PEOPLE)], validation_fraction=0.4)
    rows = lines(tmp_path / "i")
    assert metrics["pairs"] == len(rows) == 6 and metrics["judgements"] == 18 and metrics["raters"] == 3
    parts: dict[str, set[str]] = {}
    for row in rows:
        parts.setdefault(row["prompt"][0]["content"], set()).add(row["split"])
    assert all(len(part) == 1 for part in parts.values()) and len(set.union(*parts.values())) == 2


def judged(folder: Path, *rows: dict[str, Any]) -> str:
    file = folder / "some.jsonl"
    whole = [{"id": str(i), "prompt": f"p {i}", "rater": "r", "choice": None, **row} for i, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in whole))
    return str(file)


def test_a_ranking_becomes_its_pairs(tmp_path: Path) -> None:
    file = judged(tmp_path, {"answers": ["a", "b", "c"], "ranking": [2, 0, 1]}, {"answers": ["a", "b"], "choice": 0})
    imported(tmp_path / "i", files=file)
    found = [(row["chosen"], row["rejected"], row["rater"]) for row in lines(tmp_path / "i")]
    assert found == [("a", "b", "r"), ("c", "a", "r"), ("c", "b", "r"), ("a", "b", "r")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"answers": ["a", "b"]}], "no judgement was made"),
        ([{"answers": ["a", "b"], "choice": 0}], "all items are in one split"),
        (
            [{"answers": ["a", "b"], "choice": 0, "prompt": "p", "split": s} for s in ("train", "validation")],
            "its prompt is in both splits",
        ),
        (
            [{"answers": ["a", "b"], "choice": 0, "prompt": [{"role": "assistant", "content": "x"}]}],
            r"some.jsonl:1: the last message of a prompt must be the user's, found assistant",
        ),
        ([{"answers": ["a", "b"], "choice": 0, "prompt": [{"role": "x", "content": "x"}]}], r"some.jsonl:1: prompt: "),
    ],
)
def test_what_cannot_be_imported_is_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    file = judged(tmp_path, *rows)
    with pytest.raises(DataError, match=message):
        imported(tmp_path / "i", files=file)
    with pytest.raises(DataError, match=message):
        ImportJudgements(files=file).content_digest()


def test_contents_are_part_of_the_identity_and_are_read_at_once(tmp_path: Path) -> None:
    one = ImportJudgements(files=str(PEOPLE)).content_digest()
    assert one == ImportJudgements(files=[str(PEOPLE)]).content_digest()
    others = [{"answers": ["a", "b"], "choice": 0}] * 2
    assert one != ImportJudgements(files=judged(tmp_path, *others)).content_digest()
    with pytest.raises(DataError, match="no such file"):
        ImportJudgements(files=str(tmp_path / "none")).content_digest()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="ImportJudgements: validation_fraction must be above 0 and below 1, got 0"):
        ImportJudgements(files="x", validation_fraction=0)
    with pytest.raises(ValueError, match="Label: judgements_per_pair must be >= 1, got 0"):
        Label(data=Questions(), preference=panel(), sampling=Sampling(max_new_tokens=4), judgements_per_pair=0)


def test_the_preference_is_asked_for_pairs_in_the_order_shown() -> None:
    pair = Pair(Prompt.user("p"), "a", "b b")
    flat = panel(seed=3).compare_each([[pair, Pair(pair.prompt, "b b", "a")]], [5])
    assert flat[0][0].seen["words"] == (1.0, 2.0) and flat[0][1].seen["words"] == (2.0, 1.0)


def test_columns_of_the_log_are_those_of_all_raters(tmp_path: Path) -> None:
    """The first rater sees fewer features than the second."""
    pair = Pair(Prompt.user("p"), "a", "b")
    choices = [Choice(True, 0.5, "one", seen={"x": (1.0, 0.0)}), Choice(True, 0.5, "two", seen={"y": (0.0, 1.0)})]
    write_judgements(tmp_path, [Judged(0, k, "train", pair, choice) for k, choice in enumerate(choices)])
    rows = pq.read_table(tmp_path / "judgements.parquet").to_pylist()
    assert [(row["first_x"], row["second_y"]) for row in rows] == [(1.0, None), (None, 1.0)]
