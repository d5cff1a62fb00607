"""Rewards that can be checked: right or wrong by a rule, not by a model; and sums to try them on.

Checked: ExactAnswer, Number, Regex, JsonSchema, Format      a verdict on each answer
Length, Http                                                 a number for each answer
Weighted                                                     a sum of rewards, each logged
Arithmetic                                                   a data source with right answers
"""

from alignlab_verifiable.arithmetic import Arithmetic
from alignlab_verifiable.checked import Checked
from alignlab_verifiable.exact import ExactAnswer
from alignlab_verifiable.json_schema import JsonSchema
from alignlab_verifiable.layout import Format
from alignlab_verifiable.length import Length
from alignlab_verifiable.number import Number
from alignlab_verifiable.pattern import Regex
from alignlab_verifiable.remote import Http, HttpRewardError
from alignlab_verifiable.weighted import Weighted

CONTRACT = 2

__all__ = [
    "CONTRACT",
    "Arithmetic",
    "Checked",
    "ExactAnswer",
    "Format",
    "Http",
    "HttpRewardError",
    "JsonSchema",
    "Length",
    "Number",
    "Regex",
    "Weighted",
]
