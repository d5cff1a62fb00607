"""docs/evaluations.md: its commands are configurations that pass the check, and its options are there."""

import re
from pathlib import Path

import docs_pages
import pytest

from alignlab.config import compose
from alignlab.config.experiment import check

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", docs_pages.commands("evaluations.md"), ids=lambda c: " ".join(c[1:3]))
def test_a_command_of_the_page_is_a_whole_experiment(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with compose.session(command) as hydra:
        assert len(check(hydra.compose(command), command).pipeline) == 1


def test_its_table_has_every_evaluation() -> None:
    named = set(re.findall(r"`evaluation=(\w+)`", docs_pages.text("evaluations.md")))
    files = [*ROOT.glob("conf/evaluation/*.yaml"), *ROOT.glob("plugins/*/conf/evaluation/*.yaml")]
    assert named == {file.stem for file in files}
