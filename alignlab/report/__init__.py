"""Results of a run for people: the table in the terminal, and one HTML file to keep or send."""

from alignlab.report.stage import Report

__all__ = ["Report"]
