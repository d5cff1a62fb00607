"""Install plugins for a test: a package on the path, and the few lines of metadata that pip would write."""

import sys
from pathlib import Path

FAKES = Path(__file__).parent / "fakes"
"""Holds the package `lab_fakes`."""


def declare(folder: Path, name: str, package: str, version: str = "1.0") -> Path:
    """Write the metadata of a distribution whose one entry point is a plugin; the folder to put on the path."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[alignlab.plugins]\n{name} = {package}\n")
    return folder


def write_package(folder: Path, package: str, init: str = "CONTRACT = 2\n", **options: str) -> Path:
    """Write a package whose `conf/` holds `options`, named `group__option`."""
    home = folder / package
    home.mkdir(parents=True)
    (home / "__init__.py").write_text(init)
    for name, text in options.items():
        file = home / "conf" / f"{name.replace('__', '/')}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def python_path(*folders: Path) -> str:
    """What a child process needs to see the same packages."""
    return ":".join([*map(str, folders), *(p for p in sys.path if p)])
