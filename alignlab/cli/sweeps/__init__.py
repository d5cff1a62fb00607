"""Sweeps: the jobs that one command starts, the files that they leave together, and how they end."""
