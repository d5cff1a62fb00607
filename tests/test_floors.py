"""Who may import whom: the floors of the house, kept by reading the source."""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = sorted((ROOT / "alignlab").rglob("*.py"))
PLUGINS = sorted(p for p in (ROOT / "plugins").glob("*/**/*.py") if "tests" not in p.relative_to(ROOT).parts)
HYDRA = {"chosen.py", "cli.py", "config.py", "foreign.py", "jobs.py", "overrides.py"}
"""Modules of the core that may know Hydra."""
LIGHT = ("__init__", "__main__", "cli", "help", "completion", "plugins", "source", "overrides", "verbs/plugins")
"""Modules on the path of `--help`, `plugins` and tab completion."""
HEAVY = {"torch", "transformers", "wandb", "pytorch_lightning", "datasets", "matplotlib", "numpy"}


def imports(file: Path, top_only: bool = False) -> set[str]:
    """Modules that a file imports, dotted; with `top_only`, those it imports as soon as it is imported itself."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(_at_import(tree)) if top_only else list(ast.walk(tree))
    found = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
    return found | {str(n.module) for n in froms} | {f"{n.module}.{a.name}" for n in froms for a in n.names}


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node that runs when the module is imported: not functions, not `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _at_import(child)


def packages(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(file)}


def offenders(files: list[Path], forbidden: Callable[[Path], set[str]]) -> dict[str, set[str]]:
    """What each file imports that it must not."""
    found = {file.relative_to(ROOT).as_posix(): forbidden(file) for file in files}
    return {name: what for name, what in found.items() if what}


def test_kernels_import_torch_and_triton_only() -> None:
    allowed = {"torch", "triton", "jaxtyping", *sys.stdlib_module_names}  # jaxtyping: the shapes in the signatures
    kernels = [f for f in CORE if "kernels" in f.parts]

    def beyond(file: Path) -> set[str]:
        return {n for n in imports(file) if n.partition(".")[0] not in allowed and not n.startswith("alignlab.kernels")}

    assert kernels and offenders(kernels, beyond) == {}


def test_the_core_imports_no_plugin() -> None:
    assert offenders(CORE, lambda f: {p for p in packages(f) if p.startswith("alignlab_")}) == {}


def test_a_plugin_imports_no_other_plugin() -> None:
    def others(file: Path) -> set[str]:
        own = file.relative_to(ROOT / "plugins").parts[0]
        return {p for p in packages(file) if p.startswith("alignlab_") and p != own}

    assert PLUGINS and offenders(PLUGINS, others) == {}


def test_only_the_command_and_the_configuration_know_hydra() -> None:
    others = [f for f in [*CORE, *PLUGINS] if not (f.parent == ROOT / "alignlab" and f.name in HYDRA)]
    assert offenders(others, lambda f: packages(f) & {"hydra", "omegaconf"}) == {}


def test_nothing_imports_experiments_or_tests() -> None:
    assert offenders([*CORE, *PLUGINS], lambda f: packages(f) & {"experiments", "tests"}) == {}


@pytest.mark.parametrize("module", LIGHT)
def test_nothing_heavy_on_the_way_to_help(module: str) -> None:
    seen: set[Path] = set()
    todo = [ROOT / "alignlab" / f"{module}.py"]
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        found = imports(file, top_only=True)
        assert {n.partition(".")[0] for n in found} & HEAVY == set(), file.name
        todo += [f for n in found if n.startswith("alignlab") and (f := _file_of(n)) is not None]


def _file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((f for f in (base / "__init__.py", base.with_suffix(".py")) if f.is_file()), None)
