"""Stages that make preferences and rankings: judge sampled answers, or import comparisons and judgements."""

from alignlab.preferences.imported import ImportPreferences
from alignlab.preferences.judgements import ImportJudgements
from alignlab.preferences.label import Label
from alignlab.preferences.rank import Rank

__all__ = ["ImportJudgements", "ImportPreferences", "Label", "Rank"]
