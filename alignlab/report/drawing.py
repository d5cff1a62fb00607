"""The pipeline as boxes and arrows. An evaluation is drawn as a line of the box whose model it measured."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from alignlab.report.numbers import Format, duration
from alignlab.report.route import BOX_H, BOX_W, LANE, Place, lanes, path, places
from alignlab.report.run import RunView, StageView
from alignlab.report.svg import tag
from alignlab.sanitize import printable


def drawing(run: RunView, colour: Mapping[str, str]) -> Markup:
    """The whole pipeline as one SVG.

    Args:
        colour: class of each model's colour, by its stage.
    """
    boxes = drawn_stages(run)
    parents = {name: [p for p in dict.fromkeys(s.parents.values()) if p in boxes] for name, s in boxes.items()}
    at = places(parents)
    taken = frozenset(at.values())
    edges = [(at[parent], at[name]) for name, inputs in parents.items() for parent in inputs]
    over = lanes(edges, taken)
    top = LANE * len(over) + 8
    arrows = [tag("path", class_="arrow", d=path(*e, taken, over.get(e)), marker_end="url(#head)") for e in edges]
    drawn = [_box(stage, at[name], run, colour.get(name, "")) for name, stage in boxes.items()]
    width = max(p.right for p in taken) + 4
    height = max(p.top for p in taken) + BOX_H + 4
    return tag(
        "svg", _arrow_head(), tag("g", *arrows, *drawn, transform=f"translate(0 {top})"), class_="pipeline", role="img",
        viewBox=f"0 0 {width:.0f} {height + top:.0f}", width=width, height=height + top,
        aria_label="The pipeline: " + "; ".join(_in_words(stage) for stage in boxes.values()),
    )  # fmt: skip


def drawn_stages(run: RunView) -> dict[str, StageView]:
    """The stages that get a box of their own."""
    folded = {e.name for s in run.stages for e in run.evaluations_of(s)}
    return {name: stage for name, stage in run.stages.items() if name not in folded}


def _in_words(stage: StageView) -> str:
    sources = ", ".join(printable(p) for p in dict.fromkeys(stage.parents.values()))
    return f"{printable(stage.name)} from {sources}" if sources else printable(stage.name)


def _arrow_head() -> Markup:
    head = tag("path", d="M0 0L8 4L0 8z", class_="head")
    marker = tag("marker", head, id="head", markerWidth=8, markerHeight=8, refX=4, refY=4, orient="auto",
                 markerUnits="userSpaceOnUse")  # fmt: skip
    return tag("defs", marker)


def _box(stage: StageView, place: Place, run: RunView, colour: str) -> Markup:
    x, y = place.left, place.top
    texts = [tag("text", _fit(stage.name, 21), class_="name", x=x + 12, y=y + 23)]
    for i, line in enumerate(box_lines(stage, run)):
        texts.append(tag("text", _fit(line, 29), class_="detail", x=x + 12, y=y + 41 + 16 * i))
    frame = tag("rect", class_="box", x=x, y=y, width=BOX_W, height=BOX_H, rx=8)
    edge = tag("rect", class_=f"edge {colour}", x=x, y=y + 10, width=3.5, height=BOX_H - 20, rx=1.5)
    return tag("g", tag("title", f"{printable(stage.name)}: {stage.made_by}"), frame, edge, *texts)


def box_lines(stage: StageView, run: RunView) -> Sequence[str]:
    """Up to three facts of a stage: time and size of the work, its headline number, time of the evaluation."""
    metrics = stage.metrics
    facts = [duration(stage.seconds)] if stage.seconds is not None else []
    if "steps" in metrics:
        facts.append(f"{metrics['steps']:.0f} steps")
    if (pairs := metrics.get("train_pairs", metrics.get("pairs"))) is not None:
        facts.append(f"{pairs:.0f} pairs")
    lines = [" · ".join(facts)] if facts else []
    lines += [f"{Format().text(value)} {column.title}" for column, value in stage.headline[:1]]
    evaluations = run.evaluations_of(stage.name)
    if evaluations:
        lines.append(f"evaluated in {duration(sum(e.seconds or 0.0 for e in evaluations))}")
    return lines


def _fit(text: str, length: int) -> str:
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"
