"""Stages that make preferences: label sampled answers, or import comparisons that came with the data."""

from alignlab.preferences.imported import ImportPreferences
from alignlab.preferences.label import Label

__all__ = ["ImportPreferences", "Label"]
