"""How processes of one run find each other: torch's key-value store at the place that the launcher names."""

import contextlib
import os
import signal
import socket
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, Final

from alignlab.errors import ConfigError
from alignlab.launched import Place

HEARTBEAT: Final = 5.0
"""Seconds between two signs of life of a process."""
LOCAL: Final = "127.0.0.1"
"""Where processes of this machine meet. What is served there is not seen from others: who reads it can join the run."""


class Meeting:
    """The key-value store of some processes.

    Args:
        place: of this process, which serves the store if it is the first one and no launcher does.
        timeout: seconds to wait for the process that serves it, and for a key.

    Raises:
        ConfigError: this process cannot serve it.
    """

    def __init__(self, place: Place, timeout: float = 120.0) -> None:
        from torch import distributed

        dist: Any = distributed
        serves = place.rank == 0 and not place.is_served
        limit, attempt = timedelta(seconds=timeout), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        given: dict[str, Any] = {"timeout": limit, "wait_for_workers": False}
        try:
            if serves and place.address == LOCAL:
                given["master_listen_fd"], port = _listening(place.port)
            else:
                port = place.port
            self._served = dist.TCPStore(place.address, port, None, serves, **given)
        except (OSError, RuntimeError) as error:
            if not serves:
                raise
            raise ConfigError(
                f"rank 0 of {place.world} cannot listen at {place.address}:{place.port} "
                f"({str(error).splitlines()[0][:200]}): MASTER_ADDR must be this machine, and MASTER_PORT one that no "
                f"other program or run uses"
            ) from error
        self._prefixed = dist.PrefixStore
        self._own = self._prefixed(f"alignlab/{attempt}", self._served)

    @property
    def port(self) -> int:
        """At which it is served."""
        return int(self._served.port)

    def set(self, key: str, value: bytes) -> None:
        """Write a key."""
        self._own.set(key, value.hex())

    def get(self, key: str) -> bytes:
        """Read a key, which may be yet to come."""
        return bytes.fromhex(self._own.get(key).decode())

    def of_group(self) -> Any:
        """The part of it that torch's process group may use."""
        return self._prefixed("group", self._own)


def _listening(port: int) -> tuple[int, int]:
    """A socket, and its port, that is heard on this machine alone; torch's own is heard in the whole network."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOCAL, port))
        server.listen(128)
        taken = int(server.getsockname()[1])
        return server.detach(), taken


def keep_alive(link: Connection) -> None:
    """Have the system notice within half a minute that the other machine is gone."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(link.fileno())) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, name):
                plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def how_ended(code: int | None) -> str:
    """The end of a process, in words."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    return f"was killed by {name}" + (" (was there too little memory?)" if name == "SIGKILL" else "")
