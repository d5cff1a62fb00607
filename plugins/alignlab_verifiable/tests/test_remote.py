"""Http against services that behave in every way that a service can."""

import importlib.util
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from alignlab_verifiable import Http, HttpRewardError
from alignlab_verifiable import wire as wire_module
from alignlab_verifiable.wire import is_public

from alignlab.data.records import Prompt
from alignlab.reward import score
from alignlab.testing import Check, conforms_reward_source

# A helper next to the test: pytest's importlib mode puts no folder on the path.
_spec = importlib.util.spec_from_file_location("verifiable_service", Path(__file__).with_name("service.py"))
assert _spec is not None and _spec.loader is not None
service = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(service)

ASKED = [Prompt(Prompt.user("what ?", system="be brief").messages, (("answer", "42"),))] * 3
ANSWERS = ["tea", "", "größe 😀"]


def scores(reply: Any = service.lengths, **arguments: Any) -> tuple[list[float], Any]:
    """Three answers' scores by a service, and the service."""
    with service.serving(reply) as running:
        source = Http(running.url, allow_private=True, backoff=0.0, **arguments)
        return score(source, ASKED, ANSWERS).tolist(), running


def fails(reply: Any, message: str, **arguments: Any) -> None:
    with pytest.raises(HttpRewardError, match=rf"^Http: 127\.0\.0\.1/score did not score 3 answers, .*what.*{message}"):
        scores(reply, **{"retries": 1, **arguments})


def test_the_request_and_the_scores() -> None:
    found, running = scores()
    assert found == pytest.approx([0.03, 0.0, 0.07])
    (sent,) = running.requests
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what ?"}]
    assert sent == {"prompts": [{"messages": messages, "facts": {"answer": "42"}}] * 3, "answers": ANSWERS}
    assert "Authorization" not in running.headers[0]


def test_answers_travel_in_batches_and_keep_their_order() -> None:
    found, running = scores(batch_size=2)
    assert found == pytest.approx([0.03, 0.0, 0.07])
    assert [sent["answers"] for sent in running.requests] == [ANSWERS[:2], ANSWERS[2:]]


def test_no_answers_are_no_request() -> None:
    assert Http("https://rewards.invalid/").score([], []).shape == (0,)


# ---- what may pass ---------------------------------------------------------------------------------------------------
def flaky(failures: int, status: int) -> Callable[..., None]:
    left = [failures]

    def reply(handler: Any, sent: Any) -> None:
        left[0] -= 1
        service.send(handler, b"busy", status) if left[0] >= 0 else service.lengths(handler, sent)

    return reply


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_service_is_asked_again(status: int) -> None:
    found, running = scores(flaky(2, status), retries=2)
    assert found == pytest.approx([0.03, 0.0, 0.07]) and len(running.requests) == 3


def test_the_attempts_are_bounded() -> None:
    fails(service.saying(b"busy", 503), r"status 503 \(2 attempts within 120 s\); check that the service runs")


def test_a_pause_grows_and_none_goes_beyond_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr("time.sleep", paused.append)
    with service.serving(service.saying(b"busy", 503)) as running:
        source = Http(running.url, allow_private=True, backoff=1.0, retries=9, deadline=10.0)
        with pytest.raises(HttpRewardError, match="status 503"):
            source.score(ASKED, ANSWERS)
    assert paused == [1.0, 2.0, 4.0, 8.0], "16 s would end after the deadline (here no time passes in a pause)"


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/score"
        with pytest.raises(HttpRewardError, match=r"ConnectionRefusedError.*\(2 attempts"):
            Http(url, allow_private=True, retries=1, backoff=0.0).score(ASKED, ANSWERS)


def test_the_connection_breaks() -> None:
    def hang_up(handler: Any, sent: Any) -> None:
        handler.connection.close()

    def cut(handler: Any, sent: Any) -> None:
        service.send(handler, b'{"scores"', **{"Content-Length": "500"})

    fails(hang_up, r"attempts within")
    fails(cut, r"its response was cut off \(2 attempts within")


@pytest.mark.parametrize("reply", ["dripping", "dripping_head"])
def test_a_service_that_sends_a_byte_now_and_then_does_not_outlast_the_deadline(reply: str) -> None:
    """It would end well, seconds later: only a deadline over all reads refuses it."""
    fails(getattr(service, reply), r"no answer in time", deadline=1.0, timeout=0.7)


def test_a_name_that_nobody_looks_up_does_not_outlast_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    asleep = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: asleep.wait(30))
    with pytest.raises(HttpRewardError, match="no answer in time"):
        Http("https://rewards.invalid/", deadline=0.2, retries=0).score(ASKED, ANSWERS)
    asleep.set()


# ---- what will not ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "its response is not JSON"),
        (b"", "its response is not JSON"),
        (b"[" * 100_000, "its response is not JSON"),
        (b"\xff\xfe", "its response is not JSON"),
        (b"[1, 2, 3]", "has no list of scores"),
        (b'{"score": [1, 2, 3]}', "has no list of scores"),
        (b'{"scores": 3}', "has no list of scores"),
        (b'{"scores": [1, 2]}', "it returned 2 scores; there must be one per answer"),
        (b'{"scores": [1, 2, 3, 4]}', "it returned 4 scores"),
        (b'{"scores": [1, NaN, 3]}', "score 1 is nan; every score must be a finite number"),
        (b'{"scores": [1, 2, -Infinity]}', "score 2 is -inf"),
        (b'{"scores": [1e39, 2, 3]}', r"score 0 is 1e\+39"),
        (b'{"scores": [1, 2, 1' + b"0" * 400 + b"]}", "score 2 is 1000"),
        (b'{"scores": [1, null, 3]}', "score 1 is None"),
        (b'{"scores": [1, true, 3]}', "score 1 is True"),
        (b'{"scores": [1, "2", 3]}', "score 1 is '2'"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_a_response_that_is_no_list_of_scores_is_refused(body: bytes, message: str) -> None:
    fails(service.saying(body), message)


@pytest.mark.parametrize("length", [True, False])
def test_a_huge_response_is_not_read(length: bool) -> None:
    def huge(handler: Any, sent: Any) -> None:
        handler.send_response(200)
        handler.send_header(*(("Content-Length", str(10**12)) if length else ("Connection", "close")))
        handler.end_headers()
        for _ in range(10_000):
            handler.wfile.write(b" " * 10_000)

    fails(huge, r"longer than max_bytes \(5000\)", max_bytes=5000)


def test_a_redirect_is_not_followed() -> None:
    with service.serving() as target:
        fails(service.saying(b"", 302, Location=target.url), "status 302: it redirects, which is not followed")
        assert not target.requests


@pytest.mark.parametrize("status", [400, 401, 404, 204])
def test_another_status_is_not_tried_again(status: int) -> None:
    with service.serving(service.saying(b"", status)) as running:
        source = Http(running.url, allow_private=True, retries=5, backoff=0.0)
        with pytest.raises(HttpRewardError, match=f"status {status}; it must answer 200"):
            source.score(ASKED, ANSWERS)
        assert len(running.requests) == 1


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert scores()[0] == pytest.approx([0.03, 0.0, 0.07])


# ---- where it may go -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


def test_a_private_address_is_refused_under_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with service.serving() as running:
        for host in ("127.0.0.1", "localhost", "2130706433", "127.1"):
            source = Http(f"http://{host}:{running.server_port}/score", retries=5)
            with pytest.raises(HttpRewardError, match=r"is at .*, which is not a public address; allow_private: true"):
                source.score(ASKED, ANSWERS)
        assert not running.requests


def resolves_to(*addresses: str) -> Callable[..., Any]:
    return lambda host, port, **_: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]


def test_a_name_with_a_public_and_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolves_to("8.8.8.8", "127.0.0.1"))
    with pytest.raises(HttpRewardError, match=r"rewards\.example is at 127\.0\.0\.1, which is not a public address"):
        Http("http://rewards.example/").score(ASKED, ANSWERS)


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is looked up once for the check and again for the connection could have changed in between."""
    looked_up, connected = [], []

    def look_up(host: str, port: int, **_: Any) -> Any:
        looked_up.append(host)
        return resolves_to("8.8.8.8" if len(looked_up) == 1 else "127.0.0.1")(host, port)

    class Socket(socket.socket):
        def connect(self, address: Any) -> None:
            connected.append(address)
            raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(wire_module.socket, "socket", Socket)
    with pytest.raises(HttpRewardError, match="ConnectionRefusedError"):
        Http("http://rewards.example:81/", retries=0).score(ASKED, ANSWERS)
    assert looked_up == ["rewards.example"] and connected == [("8.8.8.8", 81)]


# ---- settings --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "ftp://a.example/"}, "url must begin with http"),
        ({"url": "file:///etc/passwd"}, "url must begin with http"),
        ({"url": "https://a b/"}, "hold no blanks"),
        ({"url": "https://a/\r\nX: y"}, "hold no blanks"),
        ({"url": "https://me:pass@a.example/"}, "must not hold a user or password"),
        ({"url": "https:///x"}, "needs a host"),
        ({"url": "https://a.example/#x"}, "no #fragment"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"retries": -1}, "retries must be >= 0"),
        ({"deadline": 0.0}, "deadline must be > 0"),
        ({"backoff": -1.0}, "backoff must be >= 0"),
        ({"bearer_from": "NO_SUCH_TOKEN"}, "the environment variable NO_SUCH_TOKEN is not set"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^Http: .*{message}"):
        Http(**{"url": "https://a.example/", **arguments})


def test_a_secret_comes_from_the_environment_and_stays_out_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")
    found, running = scores(bearer_from="REWARD_TOKEN")
    assert len(found) == 3 and running.headers[0]["Authorization"] == "Bearer s3cret"
    with pytest.raises(HttpRewardError) as caught:
        scores(service.saying(b"s3cret", 401), bearer_from="REWARD_TOKEN")
    assert "s3cret" not in str(caught.value) + repr(Http(running.url, allow_private=True, bearer_from="REWARD_TOKEN"))
    with pytest.raises(ValueError, match="bearer_from sends a secret, which needs https://"):
        Http("http://a.example/", bearer_from="REWARD_TOKEN")
    monkeypatch.setenv("REWARD_TOKEN", "s3cret\nX: y")
    with pytest.raises(ValueError, match="REWARD_TOKEN is not a token") as refused:
        Http("https://a.example/", bearer_from="REWARD_TOKEN")
    assert "s3cret" not in str(refused.value)


def test_the_revision_is_part_of_the_scale() -> None:
    assert Http("https://a.example/x", revision="of May").describe() == "Http a.example/x of May"


RUNNING = service.Service(service.lengths)
"""The kit's source is made before any fixture is there: only its thread waits for one."""


@pytest.fixture(scope="module", autouse=True)
def _serve() -> Iterator[None]:
    with service.served(RUNNING):
        yield


@conforms_reward_source(lambda: Http(RUNNING.url, allow_private=True, batch_size=2))
def test_conforms(check: Check) -> None:
    check()


def test_scores_are_single_precision() -> None:
    with service.serving() as running:
        found = Http(running.url, allow_private=True).score(ASKED, ANSWERS)
    assert found.dtype == torch.float32
