"""The command `alignlab`."""

from alignlab.cli.app import main

__all__ = ["main"]
