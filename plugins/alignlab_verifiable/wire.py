"""A connection for one request: to an address that was checked, and never beyond a deadline.

`http.client` alone holds neither: its timeout is one of each read, so that a server which sends a byte now and then
keeps it for ever, and the address that it connects to is looked up again after any check.
"""

import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class Refused(Exception):
    """An address that may not be connected to; to try again is of no use."""


class Deadline:
    """A point in time that no wait goes beyond.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Seconds left.

        Raises:
            TimeoutError: there are none.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise TimeoutError("out of time")
        return left

    def within(self, seconds: float) -> "Deadline":
        """The earlier of this one and `seconds` from now."""
        return Deadline(min(self.left(), seconds), self._clock)


def is_public(address: str) -> bool:
    """Whether an address is on the public internet, also where it stands for an IPv4 address inside an IPv6 one."""
    found: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        teredo = found.teredo[1] if found.teredo else None
        nat64 = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if found in _NAT64 else None
        found = found.ipv4_mapped or found.sixtofour or teredo or nat64 or found
    return found.is_global and not found.is_multicast


def resolve(host: str, port: int, deadline: Deadline) -> list[tuple[Any, ...]]:
    """The host's addresses, as `socket.getaddrinfo` gives them; the look-up has no timeout of its own."""
    found: list[Any] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(deadline.left())
    if not found:
        raise TimeoutError(f"{host} was not looked up in time")
    if isinstance(found[0], OSError):
        raise OSError(f"{host} is not known ({found[0]})")
    addresses: list[tuple[Any, ...]] = found[0]
    return addresses


def connect(host: str, port: int, allow_private: bool, deadline: Deadline) -> socket.socket:
    """A socket to the first address of the host that answers.

    Raises:
        Refused: one of its addresses is not public; a name that has both kinds is a way around the rule.
    """
    addresses = resolve(host, port, deadline)
    private = [a[4][0] for a in addresses if not is_public(a[4][0])]
    if private and not allow_private:
        raise Refused(f"{host} is at {private[0]}, which is not a public address; allow_private: true permits it")
    failed: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in addresses:
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(deadline.left())
            made.connect(address)
            return made
        except OSError as error:
            made.close()
            failed = error
    raise failed


class _Reader(io.RawIOBase):
    """A reader of a socket, each of whose reads ends by the deadline."""

    def __init__(self, made: socket.socket, deadline: Deadline) -> None:
        self._socket = made
        self._deadline = deadline
        # A socket stays open until its last file is closed: `http.client` closes it before it reads the body.
        self._file = made.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._deadline.left())
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


class Wire:
    """A socket whose every read and write ends by the deadline: as much of a socket as `http.client` uses."""

    def __init__(self, made: socket.socket, deadline: Deadline) -> None:
        self._socket = made
        self._deadline = deadline

    def sendall(self, data: Any) -> None:
        """Write all of it."""
        left = memoryview(data)
        while left:
            self._socket.settimeout(self._deadline.left())
            left = left[self._socket.send(left) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        """A reader of what is received."""
        return io.BufferedReader(_Reader(self._socket, self._deadline))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Connection(http.client.HTTPConnection):
    """One connection over a wire, plain or TLS.

    Args:
        host: by name; TLS checks it.
        port: of it.
        secure: TLS, with the system's certificates.
        allow_private: see `connect`.
        deadline: of everything.
    """

    def __init__(self, host: str, port: int, secure: bool, allow_private: bool, deadline: Deadline) -> None:
        super().__init__(host, port)
        self._secure = secure
        self._allow_private = allow_private
        self._deadline = deadline

    def connect(self) -> None:
        """Resolve, check, connect, and speak TLS where it is asked for."""
        made = connect(self.host, self.port, self._allow_private, self._deadline)
        try:
            made.settimeout(self._deadline.left())
            if self._secure:
                made = ssl.create_default_context().wrap_socket(made, server_hostname=self.host)
        except BaseException:
            made.close()
            raise
        self.sock: Any = Wire(made, self._deadline)
