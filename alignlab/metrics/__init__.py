"""Metrics for readers: the meaning of a number (`Column`), its uncertainty (`Estimate`), and drawings (`Panel`)."""

from alignlab.metrics.column import Column
from alignlab.metrics.difference import correlation, difference
from alignlab.metrics.estimate import Estimate
from alignlab.metrics.intervals import wilson
from alignlab.metrics.panel import Panel, Point, Points, Profile, Table, Text, check_panels
from alignlab.metrics.record import (
    estimates,
    read_columns,
    read_metrics,
    read_panels,
    with_intervals,
    write_columns,
    write_outcomes,
    write_panels,
)

__all__ = [
    "Column",
    "Estimate",
    "Panel",
    "Point",
    "Points",
    "Profile",
    "Table",
    "Text",
    "check_panels",
    "correlation",
    "difference",
    "estimates",
    "read_columns",
    "read_metrics",
    "read_panels",
    "wilson",
    "with_intervals",
    "write_columns",
    "write_outcomes",
    "write_panels",
]
