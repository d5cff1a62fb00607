"""docs/verified.md lists the installed methods, each with the end that it declares; the README links to its rows."""

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import docs_pages
import pytest

from alignlab.cli.verify import Asked, installed
from alignlab.config.compose import session
from alignlab.optimum import NoneKnown
from alignlab.testing.oracle.verdict import described

ROOT = docs_pages.DOCS.parent
VERDICTS: list[dict[str, Any]] = json.loads(docs_pages.text("verified.json"))
ALONE = {v["method"]: v for v in VERDICTS if " " not in v["method"]}
TOGETHER = {v["method"]: v for v in VERDICTS if " " in v["method"]}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(docs_pages.DOCS / "verified.py"))


@pytest.fixture(scope="module")
def methods() -> Iterator[dict[str, Asked]]:
    with session([], []) as hydra:
        yield {method.name: method for method in installed(hydra)}


def test_the_page_is_what_the_script_writes(script: dict[str, Any]) -> None:
    assert docs_pages.text("verified.md") == script["page"](), "out of date; run python docs/verified.py"


def test_it_lists_exactly_the_installed_methods(methods: dict[str, Asked]) -> None:
    assert list(ALONE) == list(methods), "run make verified"
    rows = re.findall(r'^\| <a id="([^"]+)"></a>`([^`]+)` \|', docs_pages.text("verified.md"), re.MULTILINE)
    assert [name for _, name in rows] == [*ALONE, *TOGETHER]


def test_each_row_states_the_end_that_is_declared_today(methods: dict[str, Asked]) -> None:
    for name, asked in methods.items():
        declared, stated = asked.build().declared, ALONE[name]
        if isinstance(declared, NoneKnown):
            assert (stated["declared"], stated["reason"]) == ("none known", declared.reason), name
            assert stated["reached"] is None and stated["distance"] is None, name
        else:
            assert stated["declared"] == described(declared), name
            assert stated["tolerance"] == declared.tolerance, name


def test_what_declares_an_end_reached_it() -> None:
    known = [v for v in VERDICTS if v["declared"] != "none known"]
    assert len(known) > 20 and all(v["declared"] != "failed" for v in VERDICTS)
    for verdict in known:
        assert verdict["reached"] is True and verdict["distance"] <= verdict["tolerance"] < verdict["start"], verdict
    assert all(v["reached"] for v in TOGETHER.values())


def test_the_readme_links_every_method_to_its_row(script: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"docs/verified\.md#([\w-]+)", readme))
    alike = {name.partition(" ")[0] for name in TOGETHER}
    missing = [name for name in ALONE if script["anchor"](name) not in linked and name not in alike]
    assert not missing and {script["anchor"](name) for name in TOGETHER} <= linked
    assert linked <= {script["anchor"](name) for name in (*ALONE, *TOGETHER)}


def test_a_missed_end_is_marked(script: dict[str, Any]) -> None:
    missed = {**ALONE["objective=dpo"], "reached": False, "distance": 0.3}
    assert "**missed**" in script["_row"](missed)[2] and script["_row"](missed)[3] == "3.0e-01"
