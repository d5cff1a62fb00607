"""Pages of docs/ whose blocks are files: written out as a package."""

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
FILE = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^alignlab (.*)$", re.MULTILINE)
PROJECT = "pyproject.toml"


def text(page: str) -> str:
    """The source of a page."""
    return (DOCS / page).read_text(encoding="utf-8")


def files(page: str) -> dict[str, str]:
    """Content of each block that begins with a file name, by that name."""
    found = FILE.findall(text(page))
    assert len(found) == len(dict(found)), f"{page} shows a file twice"
    return dict(found)


def commands(page: str) -> list[list[str]]:
    """The command lines of a page, without `alignlab` itself."""
    return [shlex.split(line) for line in COMMAND.findall(text(page))]


def write(page: str, folder: Path, name: str = "hinge") -> Path:
    """Write a page's package; a page without a project file says that it takes the first page's, renamed to `name`."""
    shown = files(page)
    if PROJECT not in shown:
        assert f"`{name}` in place of `hinge`" in " ".join(text(page).split()), page
        shown[PROJECT] = files("write-a-plugin.md")[PROJECT].replace("hinge", name)
    for file, content in shown.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content, encoding="utf-8")
    return folder
