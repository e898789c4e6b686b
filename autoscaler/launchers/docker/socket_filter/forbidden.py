"""No I/O: the errors of the filter, told to the engine's clients as the engine tells its own: ``{"message": …}``."""

from __future__ import annotations

import json

from gateway.core.errors import GreenroomError


class Forbidden(GreenroomError):
    """The call is none of those that Greenroom needs, or not about what is Greenroom's."""

    http_status, error_type = 403, "forbidden-by-socket-filter"

    def __init__(self, what: str) -> None:
        super().__init__(f"Greenroom's socket filter does not let this pass: {what}.")


class Malformed(GreenroomError):
    """Not a request that the filter understands."""

    http_status, error_type = 400, "malformed-request"


class NotYet(GreenroomError):
    """The filter does not know yet whose objects it lets pass."""

    http_status, error_type, retry_after_secs = 503, "no-installation-yet", 1


class NotThere(GreenroomError):
    """The engine does not have what the call is about; its own words."""

    http_status, error_type = 404, "not-in-engine"


def answer_to(error: GreenroomError) -> bytes:
    """The whole answer, after which the connection ends."""
    content = json.dumps({"message": error.message}).encode()
    return (
        f"HTTP/1.1 {error.http_status} Refused\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode() + content
