"""docs/config.md and docs/metrics.md are what docs/reference.py writes, and leave nothing out."""

import re
import runpy
import subprocess
import sys
from typing import Any

import docs_pages
import pytest
import yaml

ROOT = docs_pages.DOCS.parent


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return runpy.run_path(str(docs_pages.DOCS / "reference.py"))


@pytest.mark.parametrize("page", ["config.md", "metrics.md"])
def test_a_generated_page_is_fresh(page: str, reference: dict[str, Any]) -> None:
    assert docs_pages.text(page) == reference["PAGES"][page](), f"{page} is out of date; run python docs/reference.py"


def test_every_option_is_listed_with_its_keys_and_their_meaning(reference: dict[str, Any]) -> None:
    page = docs_pages.text("config.md")
    files = [*ROOT.glob("conf/*/*.yaml"), *ROOT.glob("plugins/*/conf/*/*.yaml")]
    assert len(files) > 40
    for file in files:
        section = page.partition(f"### `{file.parent.name}={file.stem}`\n")[2].partition("\n##")[0]
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert section and content.get("_target_", "") in section, file
        keys = content.keys() - {"_target_", "defaults"} if file.parent.name != "experiment" else set()
        assert all(re.search(rf"^\| `{key}[`.]", section, re.MULTILINE) for key in keys), file
    bare = re.findall(r"^\| (`\S+`) \| .* \|\s*\|$", page, re.MULTILINE)
    assert not bare, f"without a comment in the YAML (or an entry in USUAL of docs/reference.py): {bare}"


def test_every_group_is_introduced(reference: dict[str, Any]) -> None:
    assert reference["options"]().keys() <= reference["GROUPS"].keys()


def test_nothing_of_alignlab_is_imported() -> None:
    code = "import runpy, sys; runpy.run_path('docs/reference.py'); print(sorted(m for m in sys.modules if 'lab' in m))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert not re.search(r"'(alignlab|torch)", done.stdout)


def test_every_metric_is_described_in_full(reference: dict[str, Any]) -> None:
    for section in reference["described"]():
        assert section["of"] and section["metrics"], section["title"]
        for name, about in section["metrics"].items():
            assert {"where", "unit", "text"} <= about.keys() <= {"where", "unit", "text", "better"}, name
            assert about["where"] in reference["WHERE"] and about.get("better", "higher") in ("higher", "lower"), name
