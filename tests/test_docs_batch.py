"""docs/batches-and-statistics.md: its block runs, and the drawing shows that very batch."""

import math
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import docs_pages
import pytest
import torch
from alignlab_dpo import DPO

from alignlab import TokenStats
from alignlab.training.step import backward, whole_step

PAGE = "batches-and-statistics.md"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """The names of the page's block."""
    names: dict[str, Any] = {}
    exec(docs_pages.files(PAGE)["flat_batch.py"], names)
    return names


@pytest.fixture(scope="module")
def drawing() -> ElementTree.Element:
    return ElementTree.parse(docs_pages.DOCS / "images" / "flat-batch.svg").getroot()


def texts(drawing: ElementTree.Element, row: str) -> list[str]:
    """What a row of the drawing says, from left to right."""
    (group,) = [g for g in drawing.iter(f"{SVG}g") if g.get("id") == row]
    found = [(float(t.get("x", "nan")), str(t.text)) for t in group.iter(f"{SVG}text")]
    assert found == sorted(found, key=lambda item: item[0]), row
    return [text for _, text in found]


def numbers(drawing: ElementTree.Element, row: str) -> list[float]:
    return [float(text.replace("−", "-")) for text in texts(drawing, row)]


def test_the_drawing_is_of_the_batch(shown: dict[str, Any], drawing: ElementTree.Element) -> None:
    batch = shown["batch"]
    assert texts(drawing, "tokens") == [shown["vocabulary"][t] for t in batch.tokens.tolist()]
    for row in ("sequence_id", "position", "unit", "weight"):
        assert numbers(drawing, row) == getattr(batch, row).tolist(), row
    (mask,) = [g for g in drawing.iter(f"{SVG}g") if g.get("id") == "response_mask"]
    assert ["off" not in str(dot.get("class")) for dot in mask.iter(f"{SVG}circle")] == batch.response_mask.tolist()
    assert texts(drawing, "sides") == ["chosen", "rejected"] * 2


def test_the_drawings_sums_and_margins_are_right(shown: dict[str, Any], drawing: ElementTree.Element) -> None:
    assert numbers(drawing, "stats.logp") == pytest.approx(shown["stats"].logp.tolist())
    assert numbers(drawing, "sum_by_sequence") == pytest.approx(shown["answer_logp"].tolist())
    assert numbers(drawing, "margin") == pytest.approx(shown["margin"].tolist()) == [2.6, 2.0]


def test_the_cut_lies_between_the_units(shown: dict[str, Any], drawing: ElementTree.Element) -> None:
    sizes = [
        f"{n} micro-batch: {p.num_tokens} tokens" for n, p in zip(("first", "second"), shown["parts"], strict=True)
    ]
    assert texts(drawing, "parts") == sizes
    (line,) = [p for p in drawing.iter(f"{SVG}path") if p.get("class") == "cut"]
    x = float(str(line.get("d"))[1:].split()[0])
    cells = [c for c in drawing.iter(f"{SVG}rect") if str(c.get("class")).startswith("cell")]
    assert len(cells) == 16 + 4 + 2
    for cell in cells:  # nothing is torn apart
        left = float(str(cell.get("x")))
        assert not left <= x <= left + float(str(cell.get("width")))


def test_each_micro_batch_contributes_what_the_page_says(shown: dict[str, Any]) -> None:
    objective, beta = DPO(beta=0.1), 0.1
    batch = shown["batch"].with_tokens(reference_logp=torch.zeros(16), logp=shown["stats"].logp)
    logp = batch.token("logp").requires_grad_()

    def stats(part: Any) -> TokenStats:
        return TokenStats({"logp": part.token("logp")})

    whole = whole_step(objective, batch.with_tokens(logp=logp), stats, max_tokens=10)
    scalars: list[float] = []

    def differentiate(scalar: torch.Tensor) -> None:
        scalars.append(float(scalar.detach()))
        scalar.backward()

    loss, _ = backward(objective, whole, stats, differentiate)
    expected = [math.log1p(math.exp(-beta * margin)) / 2 for margin in (2.6, 2.0)]
    assert scalars == pytest.approx(expected) and float(loss.value()) == pytest.approx(sum(expected))


def test_every_statistic_stands_in_the_table() -> None:
    section = docs_pages.text(PAGE).partition("## Statistics")[2].partition("\n## ")[0]
    named = {
        name for cell in re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE) for name in re.findall(r"\w+", cell)
    }
    assert named == {name for name, value in vars(TokenStats).items() if isinstance(value, property)}
