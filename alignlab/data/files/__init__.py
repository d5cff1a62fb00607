"""An experiment's records from the user's own files."""

from alignlab.data.files.source import Files

__all__ = ["Files"]
