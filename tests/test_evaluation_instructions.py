"""InstructionsEvaluation: what a policy that says known things must score."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import DataError
from alignlab.evaluation import InstructionsEvaluation
from alignlab.evaluation import instructions as module
from alignlab.metrics import Estimate, wilson
from alignlab.policy import Sample, Sampling
from alignlab.testing import Check, check_evaluation, conforms_evaluation, tiny_policy

NO_COMMA: dict[str, Any] = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
TWO = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {"letter": None}]}
ASKED = [{"key": i, "prompt": f"what does {n} like ?", **NO_COMMA} for i, n in enumerate(("ana", "bo", "cy"))]


def written(folder: Path, rows: list[dict[str, Any]]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(folder / "prompts.jsonl")


FILE = Path(__file__).parent / "prompts_with_instructions.jsonl"


@conforms_evaluation(lambda: InstructionsEvaluation(str(FILE)))
def test_conforms(check: Check) -> None:
    check()


def test_the_kit_prints_no_failure(tmp_path: Path) -> None:
    assert check_evaluation(InstructionsEvaluation(written(tmp_path, ASKED), limit=2))


def test_shares_by_level_and_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"a": '"yes"', "b": 'well\n"yes"', "c": "yes, no", "d": ""}

    def generate(policy: Any, prompts: Any, *_: Any, **__: Any) -> list[Sample]:
        return [Sample(p, (1,), (2,), said[p.text], True) for p in prompts]

    monkeypatch.setattr(module, "generate", generate)
    rows = [{"prompt": name, **(NO_COMMA if name == "d" else TWO)} for name in said]
    result = InstructionsEvaluation(written(tmp_path, rows))(tiny_policy(), Sampling(), seed=0)
    found = {name: float(value) for name, value in result.metrics.items()}
    assert found == {
        "prompts_followed": 1 / 4,
        "prompts_followed_loosely": 2 / 4,
        "instructions_followed": 3 / 7,
        "instructions_followed_loosely": 4 / 7,
        "followed_punctuation_no_comma": 2 / 4,
        "followed_startend_quotation": 1 / 3,
        "instructions_finished": 1.0,
    }
    share = result.metrics["prompts_followed"]
    assert isinstance(share, Estimate) and share.interval == wilson(1 / 4, 4)
    assert [(row["followed"], row["tone"]) for row in result.samples] == [
        (2, "good"),
        (1, "bad"),
        (0, "bad"),
        (0, "bad"),
    ]
    assert result.samples[1]["verdict"] == "not followed: startend:quotation"


def test_the_file_is_checked_at_once_and_its_content_is_its_identity(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prompts\.jsonl:1: kwargs must be a list"):
        InstructionsEvaluation(written(tmp_path, [{**ASKED[0], "kwargs": None}]))
    with pytest.raises(ValueError, match="limit must be >= 1 or null, got 0"):
        InstructionsEvaluation(written(tmp_path, ASKED), limit=0)
    here, there = (InstructionsEvaluation(written(tmp_path / name, ASKED)) for name in ("here", "there"))
    assert here.content_digest() == there.content_digest()
    assert here.content_digest() != InstructionsEvaluation(written(tmp_path, ASKED[:2])).content_digest()
