"""docs/report.md: its commands are configurations that pass the check, and its sections are those of the page."""

import re
from pathlib import Path

import docs_pages
import pytest

from alignlab.config import compose
from alignlab.config.experiment import check

TEMPLATE = Path(__file__).parents[1] / "alignlab" / "report" / "templates" / "report.html.j2"
COMMANDS = [words for words in docs_pages.commands("report.md") if words[0] != "report"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: str(c[1]))
def test_a_command_of_the_page_is_a_whole_experiment(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with compose.session(command) as hydra:
        assert "report" in check(hydra.compose(command), command).pipeline


def test_its_table_has_the_sections_of_the_page_in_their_order() -> None:
    rows = re.findall(r"^\| ([A-Z][A-Za-z ]+) \|", docs_pages.text("report.md"), re.MULTILINE)
    shown = re.findall(r'<a href="#(?!metrics)\w+">([^<]+)</a>', TEMPLATE.read_text(encoding="utf-8"))
    assert rows == shown
