"""Metrics for readers: the meaning of a number (`Column`), and its uncertainty (`Estimate`)."""

from alignlab.metrics.column import Column
from alignlab.metrics.estimate import Estimate, correlation, difference
from alignlab.metrics.intervals import wilson
from alignlab.metrics.record import estimates, read_columns, read_metrics, with_intervals, write_columns, write_outcomes

__all__ = [
    "Column",
    "Estimate",
    "correlation",
    "difference",
    "estimates",
    "read_columns",
    "read_metrics",
    "wilson",
    "with_intervals",
    "write_columns",
    "write_outcomes",
]
