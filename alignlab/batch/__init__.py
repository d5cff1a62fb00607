"""Flat batches: what flows between data, policy and objective."""

from alignlab.batch.base import Batch
from alignlab.batch.join import concatenate
from alignlab.batch.kinds import LabelledBatch, PreferenceBatch, RolloutBatch, TokenBatch

__all__ = ["Batch", "LabelledBatch", "PreferenceBatch", "RolloutBatch", "TokenBatch", "concatenate"]
