"""No I/O: what admission has decided about one request, as the two forwarders (HTTP, WebSocket) carry it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from gateway.core.model import Address

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """
    Where a request's token stood. All three places are removed from what the Actor sees unless the owner chose
    otherwise; an ``Authorization`` header is only ours when its token was the one that matched.
    """

    token: str | None = None
    in_authorization: bool = False
    in_apify_authorization: bool = False
    in_query: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPlan:
    """
    One request on its way to one run.

    ``prefix`` is what the path form puts before the Actor's own path (``/standby/bob--hello``), empty at hosts.
    ``is_sandboxed`` (the path form): the answer gets ``Content-Security-Policy: sandbox``, and cookies pass in neither
    direction. ``proxies`` are the trusted ones between the client and us. ``first_byte_deadline`` is on the event
    loop's clock. ``answer_headers`` is asked, when the answer's head has come, for headers to add (``Server-Timing``).
    ``keep_credentials``: the owner chose to forward them.
    """

    address: Address
    request_id: str
    credentials: Credentials
    keep_credentials: bool = False
    prefix: str = ""
    is_sandboxed: bool = False
    client_host: str = ""
    proxies: tuple[str, ...] = ()
    scheme: str = "http"
    host: str = ""
    first_byte_deadline: float | None = None
    stream_idle_timeout_secs: float | None = None
    answer_headers: Callable[[], Headers] | None = None


class Errand(NamedTuple):
    """What one request has of its own among those of one plan: the plan's fields of the same names."""

    address: Address
    request_id: str
    first_byte_deadline: float | None
    answer_headers: Callable[[], Headers] | None
