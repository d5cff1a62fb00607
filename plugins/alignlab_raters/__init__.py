"""Simulated raters: taste, biases, attention and noise, one small piece each; Bradley-Terry choice.

features -> taste and biases -> attention -> noise     Rater, a RewardSource
ratings  -> position bias, temperature, flips, ties    Panel, a Preference; Groups, of several panels
features -> shares and means, diversity                StyleEvaluation, an Evaluation; StyleOfAnswers, a Stage
"""

from alignlab_raters.choice import Bradley, agreement, temperature_for
from alignlab_raters.features import FEATURES, features
from alignlab_raters.given import StyleOfAnswers
from alignlab_raters.panel import Groups, Panel
from alignlab_raters.rater import Rater, TrueTaste
from alignlab_raters.style import StyleEvaluation

CONTRACT = 2

__all__ = [
    "FEATURES",
    "Bradley",
    "Groups",
    "Panel",
    "Rater",
    "StyleEvaluation",
    "StyleOfAnswers",
    "TrueTaste",
    "agreement",
    "features",
    "temperature_for",
]
