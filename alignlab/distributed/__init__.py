"""The processes that compute together: sums, joined lists, and the parts of models that FSDP2 has split among them.

All of it is a no-op in a single process.
"""

from alignlab.distributed.group import (
    barrier,
    from_first,
    gather_objects,
    join,
    leave,
    max_of,
    part_of_a_step,
    rank,
    sum_of,
    sum_of_means,
    together,
    world_size,
)
from alignlab.distributed.helpers import Helpers, helped_by, helpers
from alignlab.distributed.sharded import (
    fill,
    full,
    full_state,
    is_sharded,
    placed_as,
    shard,
    whole,
    written_whole,
)

__all__ = [
    "Helpers",
    "barrier",
    "fill",
    "from_first",
    "full",
    "full_state",
    "gather_objects",
    "helped_by",
    "helpers",
    "is_sharded",
    "join",
    "leave",
    "max_of",
    "part_of_a_step",
    "placed_as",
    "rank",
    "shard",
    "sum_of",
    "sum_of_means",
    "together",
    "whole",
    "world_size",
    "written_whole",
]
