"""Scripts of findings in experiments/, as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[1] / "experiments"


def script(name: str, file: str = "collect.py") -> ModuleType:
    """A script of a finding."""
    spec = importlib.util.spec_from_file_location(f"{name}_{Path(file).stem}", FOLDER / name / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
