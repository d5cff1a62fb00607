"""Oracles: an enumerable world in which every method is held against the optimum that it declares.

Everything is exact and deterministic: each answer or pair is fed once, weighted by its probability, in float64, through
the objective's own class, token statistics, batches, masks, and the training step's own normalisation.
"""

from alignlab.testing.oracle.method import Method
from alignlab.testing.oracle.mutants import MISTAKES, Mutation, mutations
from alignlab.testing.oracle.verdict import Verdict, verdict, verify
from alignlab.testing.oracle.world import World

__all__ = ["MISTAKES", "Method", "Mutation", "Verdict", "World", "mutations", "verdict", "verify"]
