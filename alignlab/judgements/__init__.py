"""Judgements of several raters: their file, how far raters agree, what they lean to, and one label out of many."""
