"""Http: a reward that a service computes."""

import http.client
import json
import math
import os
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import RewardSource
from alignlab.data.records import Prompt
from alignlab.errors import AlignlabError
from alignlab.sanitize import printable
from alignlab_verifiable.wire import Connection, Deadline, Refused

_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""


class HttpRewardError(AlignlabError):
    """A reward service gave no usable scores; the message names the address, what happened and what to do."""


class _Passing(Exception):
    """A failure that may pass: worth another attempt."""


@dataclass(frozen=True)
class Http(RewardSource):
    """Scores of a service: POSTs prompts and answers as JSON, and takes one number per answer.

    It sends `{"prompts": [{"messages": [{"role", "content"}], "facts": {...}}], "answers": ["..."]}` and expects
    `{"scores": [0.5, ...]}`. Neither redirects nor proxies are followed. The service must score each answer by itself.

    Args:
        url: `http://` or `https://`, without a user, a password or a secret.
        batch_size: answers of one request.
        deadline: seconds for one call of the reward, with all its requests, attempts and pauses.
        timeout: seconds for one attempt.
        retries: further attempts after one that failed in a way that may pass (no connection, no answer in time, status
            429, 500, 502, 503 or 504).
        backoff: seconds before the first further attempt; twice as long before each next one.
        max_bytes: of one response; a longer one is refused.
        allow_private: permit loopback and private addresses, such as a service on this machine.
        bearer_from: name of the environment variable whose value is sent as `Authorization: Bearer`; null sends none.
        revision: of the service, in words of your own: it is part of the fingerprint, so that another one is noticed.
    """

    VERSION: ClassVar[str] = "1"
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "deadline", "timeout", "retries", "backoff", "max_bytes", "allow_private", "bearer_from"}
    )
    url: str
    batch_size: int = 64
    deadline: float = 120.0
    timeout: float = 30.0
    retries: int = 3
    backoff: float = 1.0
    max_bytes: int = 1_000_000
    allow_private: bool = False
    bearer_from: str | None = None
    revision: str = ""

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("max_bytes", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"Http: {name} must be >= {least}, got {getattr(self, name)}")
        for name in ("deadline", "timeout"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"Http: {name} must be > 0 and finite, got {getattr(self, name)}; it is in seconds")
        if not 0 <= self.backoff < math.inf:
            raise ValueError(f"Http: backoff must be >= 0 and finite, got {self.backoff}; it is in seconds")
        self._check_url()
        self._bearer()

    def _check_url(self) -> None:
        if not re.fullmatch(r"https?://[!-~]+", self.url, re.IGNORECASE):
            raise ValueError(f"Http: url must begin with http:// or https:// and hold no blanks, got {self.url!r}")
        parts = urlsplit(self.url)
        if "@" in parts.netloc:
            raise ValueError("Http: url must not hold a user or password; set bearer_from to an environment variable")
        if not parts.hostname or (parts.port is not None and not parts.port) or parts.fragment:
            raise ValueError(f"Http: url needs a host, a port that is not 0, and no #fragment, got {self.url!r}")
        if self.bearer_from and parts.scheme.lower() == "http" and not self.allow_private:
            raise ValueError("Http: bearer_from sends a secret, which needs https:// (or allow_private: true)")

    def _bearer(self) -> str:
        """The secret; empty where none is sent."""
        if self.bearer_from is None:
            return ""
        secret = os.environ.get(self.bearer_from, "")
        if not re.fullmatch(r"[!-~]+", secret):
            raise ValueError(
                f"Http: the environment variable {self.bearer_from} {'is not a token' if secret else 'is not set'}; "
                f"set it, or bearer_from to null"
            )
        return secret

    def describe(self) -> str:
        """The service."""
        parts = urlsplit(self.url)
        return f"Http {parts.hostname}{parts.path}{f' {self.revision}' if self.revision else ''}"

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Float[Tensor, "answers"]:
        """The service's scores.

        Raises:
            HttpRewardError: there are none.
        """
        deadline, size, found = Deadline(self.deadline), self.batch_size, list[float]()
        for start in range(0, len(answers), size):
            found += self._batch(prompts[start : start + size], answers[start : start + size], deadline)
        return torch.tensor(found, dtype=torch.float32)

    def _batch(self, prompts: Sequence[Prompt], answers: Sequence[str], deadline: Deadline) -> list[float]:
        body = json.dumps({"prompts": [_plain(p) for p in prompts], "answers": list(answers)}).encode()
        try:
            return self._scores(self._answered(body, deadline), len(answers))
        except HttpRewardError as error:
            what = f"{len(answers)} answers, the first to {printable(prompts[0].text, 60)!r}"
            raise HttpRewardError(f"Http: {self.describe()[5:]} did not score {what}: {error}") from None

    # ---- the request ----------------------------------------------------------------------------------------------
    def _answered(self, body: bytes, deadline: Deadline) -> bytes:
        """The body of the response, after as many attempts as it takes."""
        attempt, failure = 0, "no attempt was made"
        try:
            while True:
                try:
                    return self._attempt(body, deadline.within(self.timeout))
                except _Passing as error:
                    attempt, failure = attempt + 1, str(error)
                if attempt > self.retries:
                    break
                pause = self.backoff * 2.0 ** (attempt - 1)
                if pause >= deadline.left():
                    break
                time.sleep(pause)
        except TimeoutError:  # of the deadline, between two attempts
            pass
        raise HttpRewardError(
            f"{failure} ({attempt} attempts within {self.deadline:g} s); check that the service runs, or raise "
            f"deadline, timeout or retries"
        )

    def _attempt(self, body: bytes, deadline: Deadline) -> bytes:
        parts = urlsplit(self.url)
        secure = parts.scheme.lower() == "https"
        port = parts.port or (443 if secure else 80)
        connection = Connection(parts.hostname or "", port, secure, self.allow_private, deadline)
        try:
            connection.request(
                "POST", f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", body, self._headers()
            )
            with connection.getresponse() as response:
                return self._body(response)
        except Refused as error:
            raise HttpRewardError(str(error)) from None
        except ssl.SSLCertVerificationError as error:
            raise HttpRewardError(f"its certificate is not valid ({error.verify_message})") from None
        except (OSError, http.client.HTTPException) as error:
            what = "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
            raise _Passing(printable(what, 200)) from None
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        kinds = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        return {**kinds, **({"Authorization": f"Bearer {secret}"} if (secret := self._bearer()) else {})}

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        if response.status in _AGAIN:
            raise _Passing(f"status {response.status}")
        if 300 <= response.status < 400:
            raise HttpRewardError(
                f"status {response.status}: it redirects, which is not followed; set url to its target"
            )
        if response.status != 200:
            raise HttpRewardError(f"status {response.status}; it must answer 200 with the scores")
        # One byte more than is allowed tells a body that is too long, without reading it.
        body = response.read(self.max_bytes + 1)
        if len(body) > self.max_bytes:
            raise HttpRewardError(
                f"its response is longer than max_bytes ({self.max_bytes}); lower batch_size or raise it"
            )
        if response.length:  # what its length promised and did not come; a read of so many bytes does not raise
            raise _Passing("its response was cut off")
        return body

    # ---- the response ---------------------------------------------------------------------------------------------
    def _scores(self, body: bytes, count: int) -> list[float]:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            raise HttpRewardError('its response is not JSON; it must be {"scores": [...]}') from None
        scores = found.get("scores") if isinstance(found, dict) else None
        if not isinstance(scores, list):
            raise HttpRewardError('its response has no list of scores; it must be {"scores": [...]}')
        if len(scores) != count:
            raise HttpRewardError(f"it returned {len(scores)} scores; there must be one per answer, in their order")
        return [_finite(value, number) for number, value in enumerate(scores)]


def _plain(prompt: Prompt) -> dict[str, Any]:
    messages = [{"role": m.role, "content": m.content} for m in prompt.messages]
    return {"messages": messages, "facts": dict(prompt.facts)}


def _finite(value: Any, number: int) -> float:
    limit = torch.finfo(torch.float32).max
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -limit <= value <= limit:
        raise HttpRewardError(f"score {number} is {printable(repr(value), 40)}; every score must be a finite number")
    return float(value)
