"""What holds for every test: no network, no display, and marks that explain themselves."""

import os
from pathlib import Path

import pytest
from fake_plugins import FAKES, declare

# Before anything imports the libraries that read them.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", MPLBACKEND="Agg")
os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where there is no CUDA device, whatever `-m` says."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that makes the package of `tests/fakes` an installed plugin, once it is on the path."""
    return declare(tmp_path_factory.mktemp("installed"), "fakes", "lab_fakes")


@pytest.fixture
def fakes_here(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That plugin, and an empty folder to work in."""
    monkeypatch.syspath_prepend(installed)
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.chdir(tmp_path)
