"""Read a class's constructor out of its source, without importing it, for `alignlab plugins`.

Left out on purpose: whatever a class inherits from another module. What cannot be read is not shown; the real check is
made on the imported class before anything runs.
"""

import ast
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path


@cache
def constructor_defaults(target: str) -> Mapping[str, str]:
    """Each argument that a class takes and its default as written (empty where it has none); empty if not found."""
    package, _, name = target.rpartition(".")
    tree = _module(package)
    found = _find(tree, name) if tree is not None else None
    if isinstance(found, ast.ImportFrom) and found.module:
        original = next(a.name for a in found.names if (a.asname or a.name) == name)
        return constructor_defaults(f"{found.module}.{original}")
    return _arguments(found) if isinstance(found, ast.ClassDef) else {}


def _module(name: str) -> ast.Module | None:
    """A module's syntax tree; its parents are not imported, but looked up as folders."""
    root, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    base = Path(spec.origin).parent.joinpath(*rest)
    file = next((f for f in (base / "__init__.py", base.with_suffix(".py")) if f.is_file()), None)
    return None if file is None else ast.parse(file.read_text(encoding="utf-8"))


def _find(tree: ast.Module, name: str) -> ast.stmt | None:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name for a in node.names):
            return node
    return None


def _arguments(found: ast.ClassDef) -> dict[str, str]:
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _of_function(node.args)
    if not any("dataclass" in ast.unparse(d) for d in found.decorator_list):
        return {}
    fields = [n for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    kept = [n for n in fields if "ClassVar" not in ast.unparse(n.annotation) and "init=False" not in ast.unparse(n)]
    return {ast.unparse(n.target): ast.unparse(n.value) if n.value else "" for n in kept}


def _of_function(args: ast.arguments) -> dict[str, str]:
    positional = args.args[1:]
    values: list[ast.expr | None] = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    pairs = zip([*positional, *args.kwonlyargs], [*values, *args.kw_defaults], strict=True)
    return {argument.arg: ast.unparse(value) if value is not None else "" for argument, value in pairs}
