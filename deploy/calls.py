"""Calls of a Greenroom on this machine, for the quickstart. Standard library only."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import time
from dataclasses import dataclass
from typing import Any

CALL_SECS = 300.0


class Failed(Exception):
    """Something is not as it should be; the message says what."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and how long it took."""

    status: int
    body: str
    took_ms: float
    phases_ms: dict[str, float]

    @property
    def run_id(self) -> str:
        """The run that answered, as the hello Actor tells it."""
        found = re.match(r"Hello from run (\w+):", self.body)
        if self.status != 200 or found is None:
            raise Failed(f"the hello Actor was expected to greet, but the answer was {self.status}: {self.body[:500]}")
        return found.group(1)


def call(
    port: int,
    host: str,
    path: str,
    headers: dict[str, str] | None = None,
    timeout_secs: float = CALL_SECS,
    body: Any = None,
) -> Answer:
    """
    ``GET path`` of *host* at Greenroom on this machine; with a *body*, which is sent as JSON, ``POST``.

    The call goes to 127.0.0.1 with *host* in ``Host``, so no name needs to be resolved.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_secs)
    sent = {"Host": host, **(headers or {})}
    content = None if body is None else json.dumps(body).encode()
    if content is not None:
        sent["Content-Type"] = "application/json"
    with contextlib.closing(connection):
        began = time.monotonic()
        connection.request("GET" if content is None else "POST", path, content, sent)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        took_ms = (time.monotonic() - began) * 1000
        timing = answer.getheader("Server-Timing", "")
    phases = {name: float(ms) for name, ms in re.findall(r"([\w-]+)\s*;[^,]*?dur=([\d.]+)", timing)}
    return Answer(answer.status, text, took_ms, phases)


@dataclass(frozen=True, slots=True)
class Api:
    """The API of the Greenroom at *port*, with the administrator's token."""

    port: int
    token: str

    def call(self, path: str, body: Any = None, timeout_secs: float = CALL_SECS) -> Answer:
        """``GET``, or ``POST`` of *body*, below ``/v2``."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return call(self.port, f"127.0.0.1:{self.port}", f"/v2{path}", headers, timeout_secs, body)

    def value(self, path: str, body: Any = None) -> Any:
        """The JSON of a call that must succeed, without the ``data`` around it. Raises Failed."""
        answer = self.call(path, body)
        if answer.status >= 300:
            raise Failed(f"{path} was expected to succeed, not: {answer.status} {answer.body[:500]}")
        value = json.loads(answer.body)
        return value["data"] if isinstance(value, dict) and "data" in value else value
