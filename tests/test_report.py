"""The report is one file that needs nothing else, says what the artifacts say, and trusts no model's text."""

import base64
import datetime
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup
from report_run import HOSTILE, INPUTS, MODELS, changed, make_run

from alignlab.artifact import Artifact
from alignlab.metrics import wilson
from alignlab.report import Report
from alignlab.report.answers import difference, side_by_side
from alignlab.report.chart import charts, ticks
from alignlab.report.drawing import drawing
from alignlab.report.page import render, struck
from alignlab.report.raters import FEATURES, labelling
from alignlab.report.route import BOX_H, lanes, path, places
from alignlab.report.run import RunView, StageView
from alignlab.report.svg import tag
from alignlab.sanitize import printable
from alignlab.stage import StageContext

NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunView:
    return RunView.of(make_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def page(run: RunView) -> str:
    return render(run, "lifecycle", NOW)


# ---- reading the run -------------------------------------------------------------------------------------------------
def test_the_graph_is_read_from_fingerprints(run: RunView) -> None:
    assert {name: dict(stage.parents) for name, stage in run.stages.items()} == INPUTS
    assert [m.name for m in run.models] == list(MODELS)
    assert [e.name for e in run.evaluations_of("dpo")] == ["evaluate_dpo"]


def test_a_models_numbers_are_its_stages_and_its_evaluations(run: RunView) -> None:
    dpo = next(m for m in run.models if m.name == "dpo")
    assert dpo.metrics["steps"] == 250 and dpo.metrics["confident_when_wrong"] == 0.06
    assert "confident_when_wrong_low" not in dpo.metrics, "the end of an interval is not a metric"
    assert [c.metric for c in dpo.columns][-2:] == ["true_taste", "politeness"]


def test_stages_stand_after_their_inputs_whatever_the_order(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    names = list(RunView.of({name: made[name] for name in reversed(list(made))}).stages)
    assert all(names.index(parent) < names.index(name) for name, taken in INPUTS.items() for parent in taken.values())


def test_curves_leave_gaps_out(run: RunView) -> None:
    steps = [step for step, _ in run.stages["ppo"].curves()["train/kl"]]
    assert 50 not in steps and len(steps) == 49


# ---- differences -----------------------------------------------------------------------------------------------------
def test_difference_is_word_by_word() -> None:
    assert difference("oslo is big .", "oslo is very big .") == (
        ("same", "oslo is"), ("added", " very"), ("same", " big ."),
    )  # fmt: skip
    assert difference("i think it is oslo", "certainly it is oslo") == (
        ("dropped", "i think"), ("added", "certainly"), ("same", " it is oslo"),
    )  # fmt: skip


@pytest.mark.parametrize(("old", "new"), [("", "a b"), ("a b", ""), ("a  b\n c", " a\tb d \n"), ("x", "x ")])
def test_difference_keeps_the_new_text(old: str, new: str) -> None:
    assert "".join(words for op, words in difference(old, new) if op != "dropped") == new


def test_unlike_answers_are_not_marked() -> None:
    assert difference("a b c d e f", "u v w x y z") == (("same", "u v w x y z"),)
    assert difference("why " * 500 + "a", "why " * 500 + "b") == (("same", "why " * 500 + "b"),)


def test_answers_are_compared_with_the_model_that_training_started_from(run: RunView) -> None:
    first = side_by_side([m for m in run.models if m.samples])[0]
    assert list(first.answers) == list(MODELS)
    ppo = first.answers["ppo"]
    assert ppo is not None and ppo.changed and ("added", " want more ?") in ppo.text
    base = first.answers["pretrain"]
    assert base is not None and not base.changed and (base.verdict, base.tone) == ("does not stop", "bad")


def test_answers_are_found_by_their_verdict_and_by_what_training_made_of_it(run: RunView) -> None:
    """Even questions: base never stops (bad), the others are right. Odd ones: bad, bad, bad, and no opinion of PPO."""
    asked = side_by_side([m for m in run.models if m.samples])
    assert asked[0].verdicts == ["bad", "better", "good"]
    assert [a.move for a in asked[0].answers.values() if a] == ["", "better", "", ""]
    assert asked[1].verdicts == ["bad", "better"] and asked[1].answers["ppo"] is not None
    assert asked[1].answers["ppo"].move == "better", "from wrong to saying that it does not know"


# ---- raters ----------------------------------------------------------------------------------------------------------
def test_raters_are_measured_by_what_they_prefer(run: RunView) -> None:
    (view,) = labelling(list(run.stages.values()))
    everyone = view.raters[0]
    assert [r.name for r in view.raters] == ["all judgements", "cautious", "honest", "lister"]
    assert everyone.judgements == 400
    lists = next(lean.share for lean in everyone.leans if lean.feature == "a list")
    low, high = lists.interval or (1.0, 0.0)
    assert low < 0.8 < high and 200 < lists.count < 400
    # p is 0.8 or 0.3, so a repeated choice agrees in 0.68 or 0.58 of the cases
    assert everyone.repeatable is not None and 0.58 < everyone.repeatable < 0.68


@pytest.mark.parametrize(
    ("feature", "yes", "no"),
    [
        ("says it does not know", "I don\u2019t know.", "I know."),
        ("says it does not know", "i do not know .", "do i not know ?"),
        ("a list", "Two things:\n1. rain\n2. wind", "The result: 5. Then it rains."),
        ("a list", "- city oslo - job baker", "a well-known baker"),
        ("asks back", "Want more?\u201d", "Want more? No."),
    ],
)
def test_features_are_seen_as_a_reader_sees_them(feature: str, yes: str, no: str) -> None:
    assert FEATURES[feature](yes) and not FEATURES[feature](no)


def test_several_judgements_of_one_prompt_are_not_taken_for_independent(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i // 10}", "chosen": "a b", "rejected": "a", "split": "train"} for i in range(200)]
    rows = [{**r, "chosen": r["rejected"], "rejected": r["chosen"]} if i % 20 < 10 else r for i, r in enumerate(rows)]
    (tmp_path / "preferences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = StageView("label", Artifact(tmp_path, "preferences", "x"), {}, {}, {})
    (longer,) = labelling([stage])[0].raters[0].leans
    assert (longer.share, longer.share.count) == (0.5, 200)
    assert longer.share.interval == pytest.approx(wilson(0.5, 20)), "twenty prompts, each of one mind"


# ---- drawings --------------------------------------------------------------------------------------------------------
def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert ticks(-3.0, 250.0) == pytest.approx([0.0, 100.0, 200.0])


def test_training_and_validation_share_a_chart_and_the_loss_comes_first() -> None:
    curves = {"train/lr": [(1, 0.1)], "validation/loss": [(2, 1.0)], "train/loss": [(1, 2.0), (2, 1.5)]}
    found = charts(curves | {"validation/nll": [(2, 1.0)], "train/nll": [(1, 2.0), (2, 1.5)]})  # the same again
    assert [c.title for c in found] == ["loss", "lr"]
    assert dict(found[0].lines) == {"validation": [(2, 1.0)], "train": [(1, 2.0), (2, 1.5)]}


def test_the_model_that_training_started_from_is_a_line_of_the_same_chart(run: RunView) -> None:
    reward = charts(run.stages["ppo"].curves())[0]
    assert reward.title == "reward" and list(reward.lines) == ["train", "validation", "reference"]
    assert 'class="line reference"' in reward.svg and 'class="point reference"' not in reward.svg


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    points = [(step, float(step)) for step in range(1, 10_001)]
    (line,) = charts({"train/loss": points})[0].lines.values()
    assert len(line) == 300 and line[0] == points[0] and line[-1] == points[-1]


def test_a_flat_curve_can_be_drawn() -> None:
    assert 'd="M' in charts({"train/loss": [(1, 0.0), (2, 0.0)]})[0].svg


def test_drawing_has_a_box_a_stage_and_an_arrow_an_input(run: RunView) -> None:
    svg = drawing(run, {"sft": "m1"})
    boxes = [name for name in INPUTS if not name.startswith("evaluate")]
    assert svg.count('class="box"') == len(boxes)
    assert svg.count('class="arrow"') == sum(len(INPUTS[name]) for name in boxes)
    assert "reward_model from sft, label" in svg


def bezier(ends: list[tuple[float, float]], t: float) -> tuple[float, float]:
    """A point of a cubic curve."""
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
    x, y = (sum(w * end[axis] for w, end in zip(weights, ends, strict=True)) for axis in (0, 1))
    return x, y


def corners(path: str) -> set[tuple[float, float]]:
    """Points along a path of straight lines and rounded corners, ten pixels apart at most."""
    x = y = 0.0
    found: set[tuple[float, float]] = set()
    for letter, numbers in re.findall(r"([MHVQC])([^A-Z]*)", path):
        values = [float(n) for n in numbers.split()]
        new_x = values[-2] if letter in "MQC" else values[0] if letter == "H" else x
        new_y = values[-1] if letter in "MQCV" else y
        if letter == "C":
            ends = [(x, y), *zip(values[::2], values[1::2], strict=True)]
            found |= {bezier(ends, i / 100) for i in range(101)}
        if letter in "HV":
            found |= {(x + (new_x - x) * i / 100, y + (new_y - y) * i / 100) for i in range(101)}
        x, y = new_x, new_y
    return found


GRAPHS: tuple[dict[str, dict[str, str]], ...] = (
    INPUTS,
    {"a": {}, "b": {"p": "a"}, "c": {"p": "b"}, "d": {"p": "b", "q": "own"}, "own": {},
     "e": {"p": "d", "q": "own", "r": "a"}},
    {**INPUTS, "best": {"policy": "sft", "reward": "reward_model"}},
    {"a": {}, "b": {"p": "a"}, "c": {"p": "b"}, "d": {"p": "a"}, "e": {"p": "d", "q": "c"},
     "f": {"p": "d", "q": "e"}, "g": {"p": "a", "q": "e"}, "h": {"p": "b", "q": "f"}},
)  # fmt: skip
"""Pipelines whose arrows have to pass other boxes."""


@pytest.mark.parametrize("sources", GRAPHS)
def test_arrows_keep_clear_of_boxes(sources: dict[str, dict[str, str]]) -> None:
    names = [n for n in sources if not n.startswith("evaluate")]
    order = sorted(names, key=lambda n: len(sources[n]))
    done: list[str] = []
    while len(done) < len(order):
        done += [n for n in order if n not in done and all(p in done for p in sources[n].values())]
    parents = {n: list(dict.fromkeys(sources[n].values())) for n in done}
    at = places(parents)
    assert len(set(at.values())) == len(at)
    edges = [(at[p], at[n]) for n, inputs in parents.items() for p in inputs]
    over = lanes(edges, frozenset(at.values()))
    for start, end in edges:
        assert start.column < end.column
        for x, y in corners(path(start, end, frozenset(at.values()), over.get((start, end)))):
            inside = [p for p in at.values() if p.left + 1 < x < p.right - 1 and p.top + 1 < y < p.top + BOX_H - 1]
            assert not inside


def test_what_has_no_input_stands_next_to_what_it_feeds() -> None:
    at = places({"pretrain": [], "preferences": [], "sft": ["pretrain"], "dpo": ["sft", "preferences"]})
    assert {n: (p.column, p.row) for n, p in at.items()} == {
        "pretrain": (0, 0), "sft": (1, 0), "preferences": (1, 1), "dpo": (2, 0),
    }  # fmt: skip


def test_elements_are_escaped() -> None:
    assert tag("text", "<b>", class_='"x"', text_anchor="end", y=1.0) == Markup(
        '<text class="&#34;x&#34;" text-anchor="end" y="1">&lt;b&gt;</text>'
    )


# ---- the page --------------------------------------------------------------------------------------------------------
class Tags(HTMLParser):
    """Collects start tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attrs)))

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == name]


def test_page_needs_nothing_else(page: str) -> None:
    tags = Tags(page)
    assert not {"img", "link", "iframe", "object", "embed", "base"} & {name for name, _ in tags.found}
    carriers = ("src", "href", "xlink:href", "action", "srcset", "poster", "data")
    addresses = [v for _, a in tags.found for k, v in a.items() if k in carriers]
    assert addresses and all(v is not None and v.startswith("#") for v in addresses)
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "url(" not in page.replace("url(#head)", "") and "@import" not in page


def test_policy_allows_the_pages_own_style_and_script_alone(page: str) -> None:
    policy = next(a["content"] for a in Tags(page).named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    for name in ("style", "script"):
        (text,) = re.findall(rf"<{name}>(.*?)</{name}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in str(policy)
    assert "default-src 'none'" in str(policy) and "unsafe" not in str(policy)
    assert not [a for _, a in Tags(page).found if "style" in a or any(k.startswith("on") for k in a)]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    text = render(RunView.of(make_run(tmp_path, hostile=True)), HOSTILE, NOW)
    assert len(Tags(text).named("script")) == 1 and not Tags(text).named("img")
    assert text.count("&lt;script&gt;document.title") >= 5  # title, heading, prompt, answers, judgements
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "\ufffd[31mred" in text


def test_page_says_what_the_artifacts_say(page: str) -> None:
    texts = re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", page, flags=re.DOTALL)
    words = re.sub(r"\s+", " ", texts)
    for expected in ("lifecycle", "2026-01-02 03:04 UTC", "10 stages", "4 models", "instruction following", "beta: 0.1",
                     "mean reward of the answers to questions, by TrueTaste of honest (right +2)",
                     "0.83 agreement with reference (0.78 to 0.87)", "0.79 accuracy of reward_model (0.73 to 0.84)",
                     "9 of 9 prompts", "where does mokoba live ?", "wrong and confident truth: lima"):  # fmt: skip
        assert expected in words, expected
    assert "0.06 −0.27 0.03–0.10" in words  # dpo, confident when wrong, from 0.33
    assert "true taste −1.40 pretrain → 2.20 dpo 2.40 ppo also sft 0.90" in words
    assert "following repeat 0.00 pretrain → 0.95 dpo 0.15 ppo" in words, "what moved most is on a card"
    assert "Not measured alike" not in words
    assert "published: the last step (validation was best at step 200)" in words  # ppo
    assert words.count("published: step 200, where validation was best") == 4


def test_a_page_says_what_was_not_measured_alike(tmp_path: Path) -> None:
    text = render(RunView.of(make_run(tmp_path, settings={"ppo": changed(3.0)})), "", NOW)
    assert "rewards.true_taste.raters.honest.taste.right is 3.0 and not 2.0; true_taste cannot be compared" in text


def test_differences_are_coloured_beyond_noise_alone(page: str) -> None:
    found = re.findall(r'<span class="delta ([a-z]*)"[^>]*>([^<]+)</span>', page.partition('id="metrics"')[0])
    assert {("good", "+0.97"), ("bad", "−0.79"), ("sure", "+0.52"), ("", "−0.01")} <= set(found)
    assert all(not tone for tone, text in found if text in ("−0.01", "+0.01"))


def test_truth_stands_next_to_an_answer_that_is_wrong(run: RunView) -> None:
    asked = side_by_side([m for m in run.models if m.samples])
    second = asked[1].answers
    assert {name: (a.verdict, a.truth) for name, a in second.items() if a} == {
        "pretrain": ("does not stop", ""), "sft": ("wrong and confident", "lima"), "dpo": ("wrong but hedged", "lima"),
        "ppo": ("says it does not know", "lima"),
    }  # fmt: skip
    assert asked[0].answers["sft"] is not None and asked[0].answers["sft"].truth == "", "it is right"


def test_every_metric_of_the_run_is_explained(page: str, run: RunView) -> None:
    explained = set(re.findall(r'<tr><th scope="row"><code>(\w+)</code>', page))
    measured = {name for m in run.models for e in m.evaluations for name in e.metrics}
    assert explained == measured


def test_metrics_that_a_stage_declares_are_explained_in_the_record(page: str) -> None:
    record = page.partition('id="record"')[2]
    assert re.search(r">accuracy<span class=.meaning.>held-out pairs in the right order</span>", record)


def test_bullets_are_not_struck_out(page: str) -> None:
    assert struck("- city <oslo> - job baker") == "- <s>city &lt;oslo&gt;</s> - <s>job baker</s>"
    assert struck("well-known") == "<s>well-known</s>" and struck("-") == "-"
    assert "<del><s>" in page


def test_tables_and_drawings_are_labelled(page: str) -> None:
    tags = Tags(page)
    assert all(a.get("scope") in ("col", "row") for a in tags.named("th"))
    drawn = [a for a in tags.named("svg") if a.get("aria-hidden") != "true"]
    assert drawn and all(a.get("role") == "img" and a.get("aria-label") for a in drawn)
    ids = [a["id"] for _, a in tags.found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for a in tags.named("a")} <= {f"#{i}" for i in ids}


def test_page_of_a_run_without_raters_samples_and_curves(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    for file in [*tmp_path.rglob("*.jsonl")]:
        file.unlink()
    text = render(RunView.of({"sft": made["sft"]}), "", NOW)
    ids = {a.get("id") for a in Tags(text).named("section")}
    assert ids == {"pipeline", "models", "record"}


def test_a_large_run_stays_under_three_megabytes(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    for model in MODELS:
        rows = [{"prompt": f"{i} {'why ' * 50}", "answer": "because " * 2000, "kind": str(i % 9)} for i in range(900)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"evaluate_{model}" / "samples.jsonl").write_text(lines)
        curve = [{"step": s, **{f"train/{k}": s * 0.123456789 for k in "abcdefgh"}} for s in range(1, 5001, 5)]
        (tmp_path / model / "curves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
    assert len(render(RunView.of(made), "large", NOW).encode()) < 3_000_000


def test_report_is_a_stage_that_takes_all(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run")
    folder = tmp_path / "report"
    folder.mkdir()
    metrics = Report(experiment="lifecycle").run(made, StageContext("report", folder, tmp_path))
    assert Report.TAKES_ALL and Report.PRODUCES == "report"
    assert metrics == {"bytes": float((folder / "report.html").stat().st_size), "models": 4.0}


def test_printable_marks_what_it_hides() -> None:
    assert printable("a\tb\nc\x1b[0m\u202e\u200b\x9b") == "a\tb\nc\ufffd[0m\ufffd\ufffd\ufffd"
    assert printable("x" * 10, limit=4) == "xxxx…"
