"""Stages that make preferences and rankings: judge sampled answers, or import comparisons that came with the data."""

from alignlab.preferences.imported import ImportPreferences
from alignlab.preferences.label import Label
from alignlab.preferences.rank import Rank

__all__ = ["ImportPreferences", "Label", "Rank"]
