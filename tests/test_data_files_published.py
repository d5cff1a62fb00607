"""Files as others published them: every shape that the lab accepts, in the wild. Skipped where they are absent."""

from pathlib import Path

import pytest

from alignlab.data.files import Files

PUBLISHED = Path(__file__).parents[2] / "shared" / "data"


def published(name: str) -> str:
    if not (PUBLISHED / name).is_file():
        pytest.skip(f"{name} is not in shared/data beside the repository")
    return str(PUBLISHED / name)


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("instructions_1100.json", "alpaca", 1100),
        ("preferences_1100.json", "alpaca", 1100),
        ("gsm8k_test.jsonl", "question_answer", 1319),
        ("self_instruct_seed_tasks.jsonl", "self_instruct", 175),
        ("self_instruct_user_oriented.jsonl", "self_instruct", 252),
        ("hh_harmless_1500.jsonl.gz", "transcripts", 1496),
    ],
)
def test_instructions(name: str, shape: str, count: int) -> None:
    files = Files(instructions=published(name))
    assert len(files.instructions("train")) + len(files.instructions("validation")) == count
    assert f"as {shape} (" in files.notes()[0]


@pytest.mark.parametrize(
    ("name", "shape", "count", "left_out"),
    [
        ("preferences_1100.json", "alpaca_chosen_rejected", 1094, "6 left out, chosen and rejected are the same"),
        ("hh_harmless_1500.jsonl.gz", "transcripts", 1496, "4 left out, empty answer"),
    ],
)
def test_preferences(name: str, shape: str, count: int, left_out: str) -> None:
    files = Files(preferences=published(name))
    pairs = [*files.comparisons("train"), *files.comparisons("validation")]
    assert len(pairs) == count
    assert all(p.prompt.messages[-1].role == "user" for p in pairs)
    # Turn markers that were left in a text would be a transcript cut in the wrong place.
    assert not any("\n\nAssistant:" in text for p in pairs for text in (p.chosen, p.rejected, p.prompt.text))
    assert f"as {shape} (" in files.notes()[0] and left_out in files.notes()[1]


def test_a_prompt_held_out_of_the_instructions_is_held_out_of_the_preferences() -> None:
    files = Files(instructions=published("instructions_1100.json"), preferences=published("preferences_1100.json"))
    trained = {e.prompt for e in files.instructions("train")}
    assert not trained & {c.prompt for c in files.comparisons("validation")}


def test_plain_text() -> None:
    files = Files(corpus=published("tinyshakespeare.txt"))
    documents = [*files.documents("train"), *files.documents("validation")]
    assert len(documents) == 499
    assert sum(len(d.text) for d in documents) > 0.99 * Path(published("tinyshakespeare.txt")).stat().st_size


def test_prompts_without_answers_fit_no_shape() -> None:
    with pytest.raises(ValueError, match=r"\(id, prompt, type, label, focus, note\) fit no shape of instructions"):
        Files(instructions=published("xstest_prompts.csv")).instructions("train")
