"""A port for tests whose processes meet over TCP."""

import random
import socket

SYSTEM = random.SystemRandom()


def free_port() -> int:
    """A free port below those that the system hands out by itself: no connection of a neighbour can take it first."""
    for _ in range(100):
        port = SYSTEM.randrange(20_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError("no free port between 20000 and 30000")
