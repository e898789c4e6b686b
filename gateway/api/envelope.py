"""No I/O: the two shapes of every JSON answer, ``{"data": …}`` and ``{"error": {"type", "message", "data"?}}``."""

from __future__ import annotations

import json
from typing import Any

from gateway.core.errors import GreenroomError


def encoded(value: Any) -> bytes:
    """*value* as compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def success(view: Any) -> bytes:
    """The body of a good answer. Clients refuse one without ``data``. Source: apify-wire.md §0."""
    return encoded({"data": view})


def failure(error: GreenroomError) -> bytes:
    """The body of an error."""
    return encoded(error.body())


def failure_headers(error: GreenroomError) -> dict[str, str]:
    """The headers that go with it."""
    return {} if error.retry_after_secs is None else {"Retry-After": str(error.retry_after_secs)}
