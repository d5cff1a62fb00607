"""What holds for every test: no network, no display, and marks that explain themselves."""

import os

import pytest

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
