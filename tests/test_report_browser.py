"""The report in a real browser: it renders, the filters work, nothing sticks out, hostile text stays text."""

import base64
import datetime
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from report_run import HOSTILE, make_run
from sweep_runs import make
from test_report_frontier import drift
from test_report_panels import PANELS, hostile_panels
from test_report_raters import write_judgements, write_log

from alignlab.metrics import write_panels
from alignlab.report import Report
from alignlab.report.sweep import render
from alignlab.report.trial import Trial
from alignlab.stage import StageContext

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--window-size=1400,1000", "--virtual-time-budget=5000",
)  # fmt: skip

# Runs inside the report, allowed by its own hash, so that the report's policy stays in force while it is tested.
DRIVER = """
const byId = (id) => document.getElementById(id);
const shown = () => Array.from(byId("asked").tBodies[0].rows).filter((row) => row.offsetHeight > 0).length;
const set = (id, value, event) => {
  if (typeof value === "boolean") byId(id).checked = value; else byId(id).value = value;
  byId(id).dispatchEvent(new Event(event));
  return [shown(), byId("count").textContent, byId("empty").offsetHeight > 0];
};
const found = {};
found.all = shown();
found.search = set("search", "SUDAMU facts", "input");
found.nothing = set("search", "no such words", "input");
found.again = set("search", "", "input");
found.kind = set("kind", "list", "change");
found.everything = set("kind", "", "change");
found.verdict = set("verdict", "worse", "change");
found.good = set("verdict", "good", "change");
set("verdict", "", "change");
const controls = Array.from(byId("filters").querySelectorAll("select, input"));
found.keyboard = controls.map((control) => { control.focus(); return document.activeElement === control; });
found.changed = set("changed", true, "change");
set("changed", false, "change");
const dropped = document.querySelector("#asked del");
found.marked = getComputedStyle(dropped).display;
set("marks", false, "change");
found.unmarked = getComputedStyle(dropped).display;
found.width = [document.documentElement.scrollWidth, innerWidth];
found.narrow = getComputedStyle(document.querySelector(".steps")).display !== "none";
found.wide = document.querySelector("svg.pipeline").getBoundingClientRect().width > 0;
const headline = document.querySelector(".headline");
found.table = [headline.scrollWidth, headline.parentElement.clientWidth];
found.folded = byId("metrics").open;
location.hash = "#metrics";
dispatchEvent(new HashChangeEvent("hashchange"));
found.unfolded = byId("metrics").open;
const chart = document.querySelector("svg.chart"), box = chart.getBoundingClientRect();
chart.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width, clientY: box.top + 5}));
found.readout = chart.closest("figure").querySelector(".readout").textContent;
const style = getComputedStyle(document.body);
found.colours = [style.color, style.backgroundColor];
found.title = document.title;
found.images = document.images.length;
found.sections = Array.from(document.querySelectorAll("section[id]"), (s) => [s.id, s.offsetHeight > 40]);
found.plots = Array.from(document.querySelectorAll("svg.plot"), (p) => p.getBoundingClientRect().width > 200);
parent.postMessage(JSON.stringify(found), "*");
"""
FRAME = """<!doctype html><body style="margin:0"><iframe src="{source}" width="{width}" height="900" style="border:0">
</iframe><pre id="found"></pre><script>
addEventListener("message", (event) => {{ document.getElementById("found").textContent = event.data; }});
</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    made = make_run(root / "run", hostile=True)
    for policy, kl in (("sft", 0.0), ("dpo", 4.0)):
        drift(made, root / "run", policy, kl=kl, proxy_reward=kl, true_taste=1.0)
        write_panels(made[f"evaluate_{policy}"].path, (*PANELS, *hostile_panels("x" * 60)), "manners")
    folder = made["label"].path
    write_judgements(folder, [(str(i), f"{rater} {HOSTILE}", i % 2) for i in range(20) for rater in ("ana", "bo")])
    write_log(folder)
    Report(experiment="lifecycle").run(made, StageContext("report", root, root))
    text = (root / "report.html").read_text(encoding="utf-8")
    (root / "driven.html").write_text(driven(text, DRIVER, "script-src ", "script-src {} "), encoding="utf-8")
    return root / "driven.html"


def drive(report: Path, width: int, profile: Path, *flags: str) -> dict[str, Any]:
    """What the driver found in a frame of some width."""
    frame = profile / "frame.html"
    frame.write_text(FRAME.format(source=report.as_uri(), width=width), encoding="utf-8")
    command = [str(BROWSER), *FLAGS, *flags, f"--user-data-dir={profile / 'profile'}", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None and found.group(1), f"the report's own script did not run: {done.stderr[-2000:]}"
    content: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return content


def test_filters_marks_and_charts_work(report: Path, tmp_path: Path) -> None:
    found = drive(report, 1280, tmp_path)
    assert found["all"] == 10  # nine questions and a hostile one
    assert found["search"] == [1, "1 of 10 prompts", False]
    assert found["nothing"] == [0, "0 of 10 prompts", True]
    assert found["again"][0] == 10
    assert found["kind"] == [3, "3 of 10 prompts", False]
    assert found["everything"][0] == 10
    assert found["changed"][0] == 9
    assert (found["verdict"][0], found["good"][0]) == (0, 5), "five of nine are right; nothing became worse"
    assert len(found["keyboard"]) >= 5 and all(found["keyboard"]), "every control can be reached without a mouse"
    assert (found["marked"], found["unmarked"]) == ("inline", "none")
    assert re.fullmatch(r"step 250: .*train [\d.]+.*", found["readout"])
    assert (found["folded"], found["unfolded"]) == (False, True)
    assert found["title"] == "lifecycle · alignlab" and found["images"] == 0


@pytest.mark.parametrize("width", [1280, 420])
def test_every_panel_is_drawn(report: Path, tmp_path: Path, width: int) -> None:
    found = drive(report, width, tmp_path)
    names = ["pipeline", "models", "answers", "frontier", "panels", "raters", "curves", "record"]
    assert found["sections"] == [[name, True] for name in names]
    assert len(found["plots"]) == 2 + 2 + 2 and all(found["plots"]), "two judges; two panels of two models"


@pytest.mark.parametrize(("width", "narrow"), [(1280, False), (420, True)])
def test_nothing_sticks_out(report: Path, tmp_path: Path, width: int, narrow: bool) -> None:
    found = drive(report, width, tmp_path)
    scroll, inner = found["width"]
    assert inner == width and scroll <= inner
    assert found["table"][0] <= found["table"][1], "four models fit without scrolling"
    assert found["narrow"] is narrow and found["wide"] is not narrow


SWEEP_DRIVER = """
const style = getComputedStyle(document.body);
const boxes = Array.from(document.querySelectorAll("svg.chart circle"), (c) => c.getBoundingClientRect());
parent.postMessage(JSON.stringify({
  width: [document.documentElement.scrollWidth, innerWidth], colours: [style.color, style.backgroundColor],
  dots: boxes.length, outside: boxes.filter((b) => b.left < 0 || b.right > innerWidth || b.width <= 0).length,
  title: document.title,
}), "*");
"""


def driven(text: str, driver: str, policy: str, allowed: str) -> str:
    """A page with a script of ours, allowed by its own hash."""
    digest = base64.b64encode(hashlib.sha256(driver.encode()).digest()).decode()
    text = text.replace(policy, allowed.format(f"&#39;sha256-{digest}&#39;"), 1)
    return text.replace("</body>", f"<script>{driver}</script></body>")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (420, True)])
def test_a_sweep_fits_and_has_contrast(tmp_path: Path, width: int, dark: bool) -> None:
    long = f"{HOSTILE} {'very' * 30}"
    runs = [(o, b, s) for o in ("dpo", long) for b in ("0.01", "0.1", "1") for s in range(2)]
    folders = [
        make(
            tmp_path / str(i),
            [f"objective={o}", f"pipeline.{'long.' * 9}beta={b}", f"seed={s}"],
            {"dpo/kl": float(b) + s, "dpo/recall": float(b) - s},
            s,
        )
        for i, (o, b, s) in enumerate(runs)
    ]
    page = render([Trial.read(f, f.name, "completed") for f in folders], datetime.datetime.now(datetime.UTC))
    file = tmp_path / "sweep.html"
    file.write_text(driven(page, SWEEP_DRIVER, "base-uri ", "script-src {}; base-uri "), encoding="utf-8")
    flags = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    found = drive(file, width, tmp_path, *flags)
    assert found["width"][1] == width and found["width"][0] <= width
    assert (found["dots"], found["outside"]) == (2 * 6 * 3, 0)  # two panels, six settings, two seeds and a mean
    ink, paper = (luminance(c) for c in found["colours"])
    assert (ink > paper) is dark and (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7
    assert found["title"].endswith("compared · alignlab")


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_have_contrast(report: Path, tmp_path: Path, dark: bool) -> None:
    flags = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    ink, paper = (luminance(c) for c in drive(report, 1280, tmp_path, *flags)["colours"])
    assert (ink > paper) is dark
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7
