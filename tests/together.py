"""Scripts that run as several processes of one group, meeting over TCP on this machine."""

import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import torch.distributed as dist

SYSTEM = random.SystemRandom()


def run_together(script: Path, *arguments: object, processes: int = 2, timeout: float = 300) -> list[str]:
    """What each process of a script printed; fails with all of it where one did not end with 0."""
    path = os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(processes)}
    common = {**os.environ, **group, "NODE_RANK": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            env={**common, "LOCAL_RANK": str(r), "RANK": str(r)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for r in range(processes)
    ]
    try:
        said = [w.communicate(timeout=timeout)[0] for w in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert all(w.returncode == 0 for w in workers), "\n".join(said)
    return said


def leave() -> NoReturn:
    """End this process, whose work is done and written, once all of its group have come here.

    Without the interpreter's own teardown: gloo's threads may still let go of Python objects while it runs, and then
    now and then abort the process ("terminate called without an active exception").
    """
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _free_port() -> int:
    """A free port below those that the system hands out by itself: no connection of a neighbour can take it first."""
    for _ in range(100):
        port = SYSTEM.randrange(20_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError("no free port between 20000 and 30000")
