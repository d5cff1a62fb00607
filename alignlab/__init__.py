"""alignlab: a laboratory for the whole life of a language model."""

from typing import Final

__version__: Final = "0.1.0"

CONTRACT: Final = 1
"""Version of the contracts that plugins are written against; a plugin states the one it was written for."""
