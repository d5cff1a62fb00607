"""A reward service on this machine for tests: one thread, one scripted behaviour per test."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Reply = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


class Service(ThreadingHTTPServer):
    """Answers every POST by `reply`; keeps what it was sent."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}/score"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Service

    def do_POST(self) -> None:
        """Read it, keep it, reply."""
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(sent)
        self.server.headers.append(dict(self.headers))
        self.server.reply(self, sent)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    """A response."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def lengths(handler: BaseHTTPRequestHandler, sent: dict[str, Any]) -> None:
    """Each answer is worth a hundredth of its characters."""
    send(handler, json.dumps({"scores": [len(a) / 100 for a in sent["answers"]]}).encode())


def saying(body: bytes, status: int = 200, **headers: str) -> Reply:
    """The same response always."""
    return lambda handler, _: send(handler, body, status, **headers)


def dripping(handler: BaseHTTPRequestHandler, sent: dict[str, Any]) -> None:
    """Right scores, a byte at a time: each read ends soon, and all of them together do not."""
    body = json.dumps({"scores": [1.0] * len(sent["answers"])}).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    for byte in body:
        time.sleep(0.2)
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()


def dripping_head(handler: BaseHTTPRequestHandler, sent: dict[str, Any]) -> None:
    """The same with the headers."""
    body = json.dumps({"scores": [1.0] * len(sent["answers"])}).encode()
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body:
        time.sleep(0.1)
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()


@contextmanager
def served(service: Service) -> Iterator[Service]:
    """A service that runs for the length of a `with`."""
    thread = Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.shutdown()
        service.server_close()
        thread.join()


@contextmanager
def serving(reply: Reply = lengths) -> Iterator[Service]:
    """A new one."""
    with served(Service(reply)) as service:
        yield service
