"""The embedded world: documents, instructions and questions about made-up people, with the truth about them."""

from alignlab.data.world.constrained import ConstrainedWorld
from alignlab.data.world.private import PrivateWorld
from alignlab.data.world.source import World

__all__ = ["ConstrainedWorld", "PrivateWorld", "World"]
