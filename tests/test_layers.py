"""Who may import whom: folders in layers, kept by reading the source. Imports go down, and never in a circle."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = sorted((ROOT / "alignlab").rglob("*.py"))
PLUGINS = sorted(p for p in (ROOT / "plugins").glob("*/**/*.py") if "tests" not in p.relative_to(ROOT).parts)
LAYERS = (
    ("__main__",),
    ("cli",),
    ("evaluation", "models", "preferences", "testing"),
    ("training",),
    ("policy", "pipeline"),
    ("report", "tracking", "config", "reward"),
    ("stage", "instructions", "judgements"),
    ("data", "metrics", "samples"),
    ("objective", "advantage", "artifact", "distributed", "stopping"),
    ("digests", "durable", "optimum", "runtime"),
    ("launched",),
    ("kernels", "batch", "stats", "seed", "errors", "sanitize"),
    ("__init__",),
)
"""Folders and modules of the core, from the top; plugins stand above all of them."""
HYDRA = {"config", "cli"}
"""Folders of the core that may know Hydra."""
LIGHT = (
    "__init__",
    "__main__",
    "cli/app",
    "cli/help",
    "cli/completion",
    "cli/plugins",
    "cli/agreement",
    "cli/report",
    "config/plugins",
)
"""Modules on the path of `--help`, `plugins`, `agreement`, `report` and tab completion."""
HEAVY = {"torch", "transformers", "wandb", "pytorch_lightning", "datasets", "matplotlib", "numpy"}


def imports(file: Path, top_only: bool = False) -> set[str]:
    """Modules that a file imports, dotted; with `top_only`, those it imports as soon as it is imported itself."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(_running(tree, functions=not top_only))
    found = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
    return found | {str(n.module) for n in froms} | {f"{n.module}.{a.name}" for n in froms for a in n.names}


def _running(node: ast.AST, functions: bool) -> Iterator[ast.AST]:
    """Everything below a node that may run: not `if TYPE_CHECKING`; functions only where they are asked for."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _running(child, functions)


def packages(file: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(file)}


def offenders(files: list[Path], forbidden: Callable[[Path], set[str]]) -> dict[str, set[str]]:
    """What each file imports that it must not."""
    found = {file.relative_to(ROOT).as_posix(): forbidden(file) for file in files}
    return {name: what for name, what in found.items() if what}


def room(file: Path) -> str:
    """The folder of the core that a file is in, or the module that it is."""
    return file.relative_to(ROOT / "alignlab").parts[0].removesuffix(".py")


def core_files(file: Path, top_only: bool = False) -> set[Path]:
    """Files of the core that a file imports."""
    return {f for n in imports(file, top_only) if n.startswith("alignlab") and (f := _file_of(n)) is not None}


def _file_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((f for f in (base / "__init__.py", base.with_suffix(".py")) if f.is_file()), None)


# ---- layers ----------------------------------------------------------------------------------------------------------
def test_every_folder_and_module_has_a_layer() -> None:
    assert {room(f) for f in CORE} == {name for layer in LAYERS for name in layer}


def test_imports_go_down() -> None:
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}

    def up(file: Path) -> set[str]:
        mine = room(file)
        others = {room(f) for f in core_files(file)} - {mine}
        return {other for other in others if level[other] <= level[mine]}

    assert offenders([f for f in CORE if room(f) != "__init__"], up) == {}


def test_no_file_imports_itself_through_others() -> None:
    edges = {file: {f for f in core_files(file) if f.name != "__init__.py"} - {file} for file in CORE}
    done: set[Path] = set()
    while ready := [f for f in edges if f not in done and edges[f] <= done]:
        done.update(ready)
    assert {f.relative_to(ROOT).as_posix() for f in edges if f not in done} == set()


def test_kernels_import_torch_and_triton_only() -> None:
    allowed = {"torch", "triton", "jaxtyping", *sys.stdlib_module_names}  # jaxtyping: the shapes in the signatures
    kernels = [f for f in CORE if room(f) == "kernels"]

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
    others = [f for f in [*CORE, *PLUGINS] if f not in CORE or room(f) not in HYDRA]
    assert offenders(others, lambda f: packages(f) & {"hydra", "omegaconf"}) == {}


def test_one_module_knows_what_is_private_of_hydras() -> None:
    others = [f for f in CORE if f != ROOT / "alignlab" / "config" / "internals.py"]
    assert offenders(others, lambda f: {n for n in imports(f) if n.startswith("hydra._internal")}) == {}


def test_nothing_imports_experiments_or_tests() -> None:
    assert offenders([*CORE, *PLUGINS], lambda f: packages(f) & {"experiments", "tests"}) == {}


# ---- what is imported late -------------------------------------------------------------------------------------------
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
        todo += core_files(file, top_only=True)


def test_importing_alignlab_loads_nothing_heavy_and_its_names_are_there() -> None:
    program = f"""
import sys
import alignlab
assert not {HEAVY!r} & sys.modules.keys()
from alignlab import Loss, Objective, PreferenceBatch, TokenStats
assert all(getattr(alignlab, name) is not None for name in alignlab.__all__)
assert set(alignlab.__all__) <= set(dir(alignlab))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
