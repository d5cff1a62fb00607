"""Reserve a run's folder, so that no two runs write into one.

The lock is on the folder itself and ends with the process, however that ends. Where the file system has no such locks,
`status.json` decides: it has the process's id and host.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignlab.errors import PipelineError
from alignlab.pipeline.run_folder import is_alive, status_of


@contextlib.contextmanager
def reserve(path: Path, is_fixed: bool = True) -> Iterator[Path]:
    """Hold a folder while a run writes into it; the folder that was reserved.

    Args:
        path: the folder; made if need be.
        is_fixed: the user named it, so that a finished run's folder is used again. Otherwise (a folder named after
            the time) one that exists already is left alone, and `PATH-2`, `PATH-3`, ... is made instead.

    Raises:
        PipelineError: the folder is in use by another run.
    """
    folder = path if is_fixed else _new(path)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not _lock(descriptor, folder):
            raise PipelineError(_in_use(folder, status_of(folder)))
        yield folder
    finally:
        os.close(descriptor)


def _new(path: Path) -> Path:
    """A folder that did not exist before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def _lock(descriptor: int, folder: Path) -> bool:
    """Whether the folder could be locked; without locks, whether no living process claims it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        status = status_of(folder)
        return status.get("status") != "running" or not is_alive(status)
    return True


def _in_use(folder: Path, status: Mapping[str, Any]) -> str:
    who = "".join(f", {key} {status[key]}" for key in ("pid", "host", "started") if key in status)
    return f"{folder} is in use by another run (status.json{who}); wait for it, or choose another hydra.run.dir"
