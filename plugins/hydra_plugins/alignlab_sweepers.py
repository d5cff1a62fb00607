"""alignlab's sweeper, in the only package in which Hydra looks for one.

A package without `__init__.py`, as every plugin of Hydra's shares it.
"""

from alignlab.cli.search import sweeper


class OptunaSweeper(sweeper.SearchSweeper):
    """`hydra/sweeper=optuna`."""
