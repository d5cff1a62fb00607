"""Links, paths and names in the root pages and in docs/ lead somewhere, and the README's tree is the repository's."""

import ast
import re
from pathlib import Path

import docs_pages
import pytest

import alignlab

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "llms.txt", *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*.md")])
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
PATH = re.compile(r"`((?:alignlab|plugins|conf|docs|tests)/[\w./*<>-]*|[A-Z]+\.md)`")


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them, and the names that it gives to rows."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    named = re.findall(r'<a id="([^"]+)">', text)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings} | set(named)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if not target.startswith(("http://", "https://")):
            file = page.parent / target if target else page
            assert file.exists(), link
            assert not anchor or anchor in anchors(file), link


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_paths_in_a_page_are_there(page: Path) -> None:
    for path in PATH.findall(page.read_text(encoding="utf-8")):
        assert "<" in path or list(ROOT.glob(path.rstrip("/"))), path


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in seen and page.suffix == ".md":
            seen.add(page)
            links = (link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")))
            found = ((page.parent / link).resolve() for link in links if link and "://" not in link)
            todo += [file for file in found if file.is_file()]
    assert {p for p in PAGES if p.suffix == ".md"} <= seen | {ROOT / "plugins" / "README.md"}


def test_the_tree_in_the_readme_is_the_repositorys() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^```\n(alignlab/ .*?)^```$", text, re.MULTILINE | re.DOTALL)
    above, shown = "", set()
    for line in tree.splitlines():
        names = re.findall(r"[\w.]+(?:/|\.py)", re.split(r"\s{3,}", line.strip())[0])
        inner = line.startswith("  ")
        above = above if inner else names[0]
        shown |= {f"{above}{name}" if inner else name for name in names}
    assert all((ROOT / name).exists() for name in shown), shown
    parts = {p.relative_to(ROOT).as_posix() for p in (ROOT / "alignlab").iterdir() if p.suffix == ".py"}
    folders = {
        f"{p.relative_to(ROOT).as_posix()}/" for p in (ROOT / "alignlab").iterdir() if (p / "__init__.py").exists()
    }
    parts -= {"alignlab/__init__.py", "alignlab/__main__.py"}
    assert folders | parts <= shown


def test_the_readmes_objective_is_that_of_the_page() -> None:
    def call(code: str) -> str:
        (hinge,) = [n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.ClassDef)]
        return ast.unparse(next(n for n in hinge.body if isinstance(n, ast.FunctionDef) and n.name == "__call__"))

    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert call(block) == call(docs_pages.files("write-a-plugin.md")["alignlab_hinge/__init__.py"])
    assert len(re.findall(r"^(?:class|@dataclass| {4}).*\S", block.partition("@conforms")[0], re.M)) <= 20


@pytest.mark.parametrize("page", ["README.md", "plugins/README.md"])
def test_every_plugin_stands_in_the_tables(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    plugins = {p.parent.name for p in ROOT.glob("plugins/*/__init__.py")}
    assert set(re.findall(r"^\| \[(alignlab_\w+)\]", text, re.MULTILINE)) == plugins


def test_pages_name_the_contract_of_today() -> None:
    for page in PAGES:
        stated = re.findall(r"\bCONTRACT = (\d+)", page.read_text(encoding="utf-8"))
        assert {int(n) for n in stated} <= {alignlab.CONTRACT}, page


def test_options_in_the_plugins_table_exist() -> None:
    text = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    for package, brings in re.findall(r"^\| \[(alignlab_\w+)\]\S* \| (.*) \|$", text, re.MULTILINE):
        named = {
            (group, name)
            for group, first, more in re.findall(r"`(\w+): (\w+)`((?:, `\w+`)*)", brings)
            for name in (first, *re.findall(r"\w+", more))
        }
        files = {(f.parent.name, f.stem) for f in (ROOT / "plugins" / package).glob("conf/*/*.yaml")}
        assert named == files or package == "alignlab_raters", package
