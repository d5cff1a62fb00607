"""The page that compares runs: its numbers are those on paper, its text is text, and what is not done is named."""

import datetime
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_run import HOSTILE
from sweep_runs import beta, make
from test_report import Tags

from alignlab.artifact import write_json
from alignlab.errors import DataError
from alignlab.metrics import Column, Estimate, Panel, Profile, write_columns, write_panels
from alignlab.report.design import Design
from alignlab.report.panel_drawing import Axis
from alignlab.report.panels import LIMIT, Panels
from alignlab.report.profiles import profiles
from alignlab.report.seeds import OverSeeds, beyond
from alignlab.report.sweep import Runs, render
from alignlab.report.trial import Trial, parsed

NOW = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


def read(*folders: Path, status: str = "completed") -> list[Trial]:
    return [Trial.read(folder, "/".join(folder.parts[-2:]), status) for folder in folders]


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))


def trial(overrides: dict[str, str], seed: str = "0", **metrics: float) -> Trial:
    """A run that exists in memory alone."""
    folder = Path("nowhere")
    return Trial(folder, "run", "completed", seed=seed, overrides=overrides, kinds={"m": "policy"},
                 metrics={f"m/{k}": v for k, v in metrics.items()})  # fmt: skip


# ---- numbers ---------------------------------------------------------------------------------------------------------
def test_means_errors_and_intervals_are_those_on_paper() -> None:
    three = OverSeeds([1.0, 2.0, 3.0])
    assert (three.mean, three.error, three.count) == (2.0, pytest.approx(1 / 3**0.5), 3)
    assert three.interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))  # t(2) = 4.3027
    two = OverSeeds([0.0, 1.0])
    assert two.interval == pytest.approx((0.5 - 12.7062 / 2, 0.5 + 12.7062 / 2))  # s = 0.7071, SE = 0.5
    assert OverSeeds([Estimate(0.5, 0.4, 0.7)]).interval == (0.4, 0.7) and OverSeeds([0.5]).interval is None
    assert OverSeeds([0.5]).error is None


def test_a_distance_is_measured_in_the_ends_that_face_each_other() -> None:
    low, high = OverSeeds([Estimate(0.0, -9.0, 3.0)]), OverSeeds([Estimate(10.0, 6.0, 90.0)])
    assert beyond(low, high) == beyond(high, low) == pytest.approx(10 / 5)  # hypot(3, 4)
    assert beyond(low, OverSeeds([7.0])) == 0.0, "nothing is known of the noise"


def test_the_page_has_the_means_of_three_runs(tmp_path: Path) -> None:
    page = render(
        read(beta(tmp_path, "0.1", 0, 0.5), beta(tmp_path, "0.1", 1, 0.7), beta(tmp_path, "0.30", 0, 0.9)), NOW
    )
    text = words(page)
    assert "made_up over beta 2026-01-02 03:04 UTC · 3 runs · 2 settings · 2 seeds" in text
    assert "dpo.beta 0.1, 0.3 horizontal axis" in text and "store_dir" not in text and "seed=" not in text
    numbers = text.partition(" Numbers ")[2].partition(" Runs ")[0]
    assert "dpo 0.60 ± 0.10 n 2 0.90 n 1" in numbers  # (0.5 + 0.7) / 2; s = 0.1414, over the root of 2
    assert "sft 0.25 ± 0.00 n 2 0.25 n 1" in numbers, "the model that it started from"
    (panel,) = [a for a in Tags(page).named("svg") if a.get("role") == "img"]
    assert panel["aria-label"] == "recall over beta: sft 0.25 at 0.1; sft 0.25 at 0.3; dpo 0.60 at 0.1; dpo 0.90 at 0.3"
    assert page.count('class="seed"') == 4 and page.count('class="mean"') == 4, "a seed by itself is the mean"


def test_the_latest_run_of_a_setting_and_seed_counts(tmp_path: Path) -> None:
    first, again = beta(tmp_path / "a", "0.1", 0, 0.5), beta(tmp_path / "b", "0.1", 0, 0.7)
    about = json.loads((again / "manifest.json").read_text())
    write_json(again / "manifest.json", {**about, "created": "2026-01-05T00:00:00"})
    runs = Runs.of(read(first, again, beta(tmp_path / "a", "0.2", 0, 0.6)))
    assert [t.folder for t in runs.repeated] == [first] and len(runs.compared) == 2


# ---- which settings --------------------------------------------------------------------------------------------------
def test_overrides_are_read_as_hydra_reads_them() -> None:
    found = parsed(["+a.b=1e-3", "a.b=0.10", "c='x y'", "~d", "objective=dpo", "e=a=b"])
    assert found == {"a.b": "0.1", "c": "x y", "d": "(removed)", "objective": "dpo", "e": "a=b"}


def test_a_value_that_was_not_typed_is_looked_up(tmp_path: Path) -> None:
    default, typed = make(tmp_path / "a", [], {"m/x": 1.0}), make(tmp_path / "b", ["dpo.beta=0.1"], {"m/x": 2.0})
    (default / "config.yaml").write_text("dpo: {beta: 0.1}\n")
    assert Design.of(read(default, typed)).axis is None, "0.1 is the default, too"
    (default / "config.yaml").write_text("dpo: {beta: 0.5}\n")
    axis = Design.of(read(default, typed)).axis
    assert axis is not None and axis.values == ["0.1", "0.5"]


def test_runs_of_an_edited_file_are_not_averaged_with_those_before(tmp_path: Path) -> None:
    """Nothing that was typed tells them apart; the configuration does, or the code of a stage."""
    runs = [
        make(tmp_path / str(seed), ["experiment=mine", f"seed={seed}"], {"dpo/recall": 0.5}, seed) for seed in range(4)
    ]
    for seed, run in enumerate(runs):
        steps = 10 if seed < 2 else 20
        (run / "config.yaml").write_text(
            f"name: mine\nseed: {seed}\npipeline:\n  dpo: {{seed: {seed}, steps: {steps}}}\n"
        )
        about = json.loads((run / "manifest.json").read_text())
        about["stages"]["dpo"]["reads"] = {"code": "old" if seed < 3 else "new"}
        (run / "manifest.json").write_text(json.dumps(about))
    design = Design.of(trials := [Trial.read(run, run.name, "completed") for run in runs])
    assert [(key.key, key.values) for key in design.swept] == [
        ("pipeline.dpo.steps", ["10", "20"]),
        ("code of dpo", ["old", "new"]),
    ]
    assert len({design.setting(trial) for trial in trials}) == 3


@pytest.mark.parametrize(
    ("values", "connects", "is_log"),
    [
        (["1", "2", "20"], True, False),
        (["1", "2", "21"], True, True),
        (["0", "50"], True, False),
        (["1", "x"], False, False),
    ],
)
def test_the_axis_is_numeric_where_it_can_be_and_logarithmic_where_it_should(
    values: list[str], connects: bool, is_log: bool
) -> None:
    axis = Axis.of(Design.of([trial({"k": v}, x=1.0) for v in values]))
    assert (axis.connects, axis.is_log) == (connects, is_log)
    places = list(axis.at.values())
    if is_log:  # log 2 / log 21 of the way
        assert (places[1] - places[0]) / (places[2] - places[0]) == pytest.approx(0.22767, abs=1e-4)


def test_of_keys_that_change_together_the_one_that_no_run_lacks_is_named() -> None:
    """`objective` is typed for one method alone, `stage` for both; the other order of keys gives the same."""
    both = [{"stage@pipeline.method": "dpo", "objective@pipeline.method.objective": "ipo"},
            {"stage@pipeline.method": "grpo"}]  # fmt: skip
    for runs in ([trial(dict(o), x=1.0) for o in both], [trial(dict(reversed(o.items())), x=1.0) for o in both]):
        (swept,) = Design.of(runs).swept
        assert swept.key == "stage@pipeline.method" and list(swept.values) == ["dpo", "grpo"]
        assert list(swept.along) == ["objective@pipeline.method.objective"]


def test_keys_that_change_together_are_one_and_the_second_is_a_colour() -> None:
    runs = [
        trial({"group@m": o, "also": o, "beta": b}, x=i)
        for i, (o, b) in enumerate([("a", "1"), ("b", "1"), ("a", "2")])
    ]
    design = Design.of(runs)
    assert design.axis is not None and design.axis.key == "beta"
    assert [(s.key, s.along) for s in design.others] == [("group@m", ("also",))]
    assert [design.line(t) for t in runs] == ["a", "b", "a"]


def test_many_keys_have_a_place_for_each_setting() -> None:
    runs = [trial({"a": str(i), "b": str(i * i % 7), "c": "p" if i % 2 else "q"}, x=i) for i in range(14)]
    design = Design.of(runs)
    assert design.is_joint and len({design.place(t) for t in runs}) == 14
    assert "a 3, b 2, c p" in {design.place(t) for t in runs}
    assert "in 14 settings" in words(render(runs, NOW))


def test_nothing_that_differs_is_said_and_the_seeds_are_shown() -> None:
    page = render([trial({"seed": "0"}, "0", x=1.0), trial({"seed": "1"}, "1", x=3.0)], NOW)
    assert "Nothing differs but the seed and folders" in page and page.count('class="seed"') == 2
    assert "2.00 ± 1.00 n 2" in words(page) or "2 ± 1 n 2" in words(page)


# ---- which metrics ---------------------------------------------------------------------------------------------------
def test_what_moved_most_comes_first_and_the_rest_is_counted() -> None:
    def run(value: float) -> Trial:
        numbers = {f"n{i:02}": Estimate(1 + i * value, i * value, 2 + i * value) for i in range(20)}
        return trial({"k": str(value)}, steps=value, same=1.0, **numbers, **({"own": 1.0} if value else {}))

    runs = [replace(r, kinds={**r.kinds, "page": "report"}) for r in (run(0.0), run(1.0))]
    runs = [replace(r, metrics={**r.metrics, "page/bytes": i}) for i, r in enumerate(runs)]
    panels = Panels.of(runs, Design.of(runs))
    assert [p.metric for p in panels.shown] == [f"n{i:02}" for i in range(19, 19 - LIMIT, -1)]
    assert (panels.more, panels.same) == (19 - LIMIT, 2)  # n00 and `same`
    text = words(render(runs, NOW))
    assert "7 more metrics differ and are left out here" in text
    assert "1 metric that only some of the runs have is not compared" in text


def test_headline_columns_come_first_where_the_stages_are_there(tmp_path: Path) -> None:
    folders = [
        beta(tmp_path, b, 0, r, **{"dpo/tone": r / 100, "dpo/kl": k}) for b, r, k in (("1", 0.1, 1), ("2", 0.9, 9))
    ]
    for folder in folders:
        stage = folder / "stages" / "dpo"
        stage.mkdir(parents=True)
        write_columns(stage, [Column("tone", "how it sounds", unit="points", better=1, headline=True)])
    page = render(read(*folders), NOW)
    titles = [title.strip() for title in re.findall(r"<figcaption>([\w ]+)", page)]
    assert titles == ["tone", "recall", "kl"]
    assert "how it sounds" in page and "in points" in page and "more is better" in page


def test_runs_without_a_common_metric_are_refused() -> None:
    with pytest.raises(DataError, match="no metric in common"):
        render([trial({"k": "1"}, x=1.0), trial({"k": "2"}, y=1.0)], NOW)


# ---- the page --------------------------------------------------------------------------------------------------------
def test_runs_that_have_not_completed_are_listed_and_not_counted(tmp_path: Path) -> None:
    done = read(beta(tmp_path, "0.1", 0, 0.5), beta(tmp_path, "0.3", 0, 0.9))
    page = render([*done, *read(beta(tmp_path, "0.3", 1, 0.1), status="preempted")], NOW)
    text = words(page)
    assert "1 not completed" in text and "2 runs" in text
    assert "0.3/1 preempted 1 0.3" in text and "0.90 n 1" in text
    with pytest.raises(DataError, match=r"no run has completed: .* preempted"):
        render(read(beta(tmp_path, "0.5", 1, 0.1), status="preempted"), NOW)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    folders = [
        make(
            tmp_path / str(i),
            [f"x={HOSTILE}{i}", f"{HOSTILE}={i % 2}", f"z={i}"],
            {f"{HOSTILE}/a": i, "m/<b>\x1b": i},
        )
        for i in range(9)
    ]
    about = json.loads((folders[0] / "manifest.json").read_text())
    write_json(folders[0] / "manifest.json", {**about, "name": HOSTILE, "stages": {HOSTILE: {"kind": "policy"}}})
    for chosen in (folders[:1], folders[:2], folders):
        page = render([Trial.read(f, HOSTILE, "completed") for f in chosen], NOW)
        assert not {"script", "img", "b"} & {name for name, _ in Tags(page).found}
        assert "&lt;script&gt;document.title" in page
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_the_page_needs_nothing_else_and_runs_no_script(tmp_path: Path) -> None:
    page = render(read(beta(tmp_path, "0.1", 0, 0.5), beta(tmp_path, "0.3", 0, 0.9)), NOW)
    tags = Tags(page)
    assert not {"script", "img", "link", "iframe", "object"} & {name for name, _ in tags.found}
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {"http://www.w3.org/2000/svg"} and "url(" not in page
    policy = next(a["content"] for a in tags.named("meta") if a.get("http-equiv"))
    assert "default-src 'none'; style-src 'sha256-" in str(policy) and "script-src" not in str(policy)
    assert not [a for _, a in tags.found if "style" in a or any(k.startswith("on") for k in a)]
    ids = [a["id"] for _, a in tags.found if "id" in a]
    assert len(ids) == len(set(ids)) and {a["href"] for a in tags.named("a")} <= {f"#{i}" for i in ids}


@pytest.mark.slow
def test_a_large_sweep_stays_under_three_megabytes() -> None:
    runs = [trial({"k": str(i), "o": o}, str(s), **{f"n{j}": i + s + j / 7 for j in range(40)})
            for i in range(40) for o in "abcdefgh" for s in range(3)]  # fmt: skip
    assert len(render(runs, NOW).encode()) < 3_000_000


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a/x": 1, "a/x_low": 2, "a/x_high": 3}'])
def test_a_damaged_file_of_a_completed_run_is_one_error(tmp_path: Path, content: str) -> None:
    folder = beta(tmp_path, "0.1", 0, 0.5)
    (folder / "metrics.json").write_text(content)
    with pytest.raises(DataError, match=r"metrics\.json"):
        read(folder)
    (folder / "metrics.json").unlink()
    with pytest.raises(DataError, match="is missing, although the run has completed"):
        read(folder)
    assert read(folder, status="failed")[0].metrics == {}


# ---- profiles --------------------------------------------------------------------------------------------------------
def with_profile(root: Path, rater: str, seed: int, lists: float, title: str = "Style") -> Path:
    """A run of a sweep over raters whose evaluation of DPO's model is still there, with a profile of two shares."""
    shares = {"dpo/style_list": lists, "dpo/style_ask": 0.5, "dpo/style_polite": 0.0}
    folder = make(root / rater / str(seed), [f"reward@rater={rater}", f"seed={seed}"], shares, seed)
    about = json.loads((folder / "manifest.json").read_text())
    about["stages"]["evaluate"] = {"order": 2, "kind": "evaluation", "inputs": {"policy": "dpo"}}
    write_json(folder / "manifest.json", about)
    stage = folder / "stages" / "evaluate"
    stage.mkdir(parents=True)
    names = [name.partition("/")[2] for name in shares]
    write_columns(stage, [Column(name, "m", share=True) for name in names], "style")
    write_panels(stage, [Panel(title, Profile(names), "how they answer")], "style")
    return folder


def test_a_sweep_shows_the_profile_of_each_setting(tmp_path: Path) -> None:
    made = [("lister", 0, 0.8), ("lister", 1, 0.6), ("terse", 0, 0.1)]
    trials = read(*(with_profile(tmp_path, *args) for args in made))
    (profile,) = profiles(trials, Design.of(trials))
    assert (profile.stage, profile.title, profile.names) == ("dpo", "Style", ["lister", "terse"])
    assert [(r.title, dict(r.values)) for r in profile.rows] == [
        ("style list", {"lister": pytest.approx(0.7), "terse": 0.1}), ("style ask", {"lister": 0.5, "terse": 0.5}),
    ]  # fmt: skip
    page = render(trials, NOW)
    section = page.partition('id="profiles"')[2].partition("</section>")[0]
    assert "how they answer" in section and section.count('class="dot-row"') == 2
    assert any(a.get("aria-label") == "lister 0.70, terse 0.10" for a in Tags(section).named("svg"))


def test_a_profile_that_is_the_same_everywhere_is_left_out(tmp_path: Path) -> None:
    trials = read(with_profile(tmp_path, "a", 0, 0.5), with_profile(tmp_path, "b", 0, 0.5))
    assert profiles(trials, Design.of(trials)) == []


def test_more_settings_than_colours_have_no_profile(tmp_path: Path) -> None:
    trials = read(*(with_profile(tmp_path, f"r{i}", 0, i / 10) for i in range(9)))
    assert profiles(trials, Design.of(trials)) == []


def test_hostile_profiles_stay_text(tmp_path: Path) -> None:
    trials = read(with_profile(tmp_path, "a", 0, 0.1, HOSTILE), with_profile(tmp_path, "b", 0, 0.9, HOSTILE))
    page = render(trials, NOW)
    assert 'id="profiles"' in page and not {"script", "img"} & {name for name, _ in Tags(page).found}
