"""Where a method claims to end: declared next to its loss, so that `alignlab verify` can check it."""

from alignlab.optimum.closed import Chosen, Imitated, LengthTilted, Optimum, PreferenceTilted, Taught, Tilted
from alignlab.optimum.declared import (
    Average,
    Credit,
    Declared,
    NoneKnown,
    PolicyGradient,
    RewardItself,
    added,
    combined,
)
from alignlab.optimum.stationary import Stationary
from alignlab.optimum.tables import Tables

__all__ = [
    "Average",
    "Chosen",
    "Credit",
    "Declared",
    "Imitated",
    "LengthTilted",
    "NoneKnown",
    "Optimum",
    "PolicyGradient",
    "PreferenceTilted",
    "RewardItself",
    "Stationary",
    "Tables",
    "Taught",
    "Tilted",
    "added",
    "combined",
]
