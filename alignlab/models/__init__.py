"""Models from elsewhere: a Hugging Face folder or a name on the hub, as an artifact like any other."""

from alignlab.models.imported import ImportModel
from alignlab.models.request import Imported

__all__ = ["ImportModel", "Imported"]
