"""
On what terms the requests of one connection that share their headers are forwarded.

They are made once and hold as long as all that they were made from does: the head, the Actor's settings, and what is
remembered of the token. Each request looks whether that is so; what changes more often (slots, runs) it asks anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gateway.client_address import client_of
from gateway.core.model import Address
from gateway.core.standby import StandbyTarget
from gateway.proxy.callers import Caller
from gateway.proxy.decisions import Decisions
from gateway.proxy.headers import credentials_of
from gateway.proxy.ignored import Ignores, ignoring
from gateway.proxy.plan import ForwardPlan
from gateway.proxy.slots import Want
from gateway.proxy.splice.request_cache import actor_segments
from gateway.proxy.splice.request_head import RequestHead

_AFTER_TARGET = b" HTTP/1.1\r\n"
_REQUEST_ID = b"X-Actor-Request-ID: "
_NOWHERE = Address(host="", port=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Terms:
    """
    ``subject`` is the standby target, or the label of a live view; ``want`` is None there.

    ``is_plain``: each request is use of its run, for as long as it is open; else ``ignores`` tells which are none, and
    ``silence_secs`` from what silence on a socket or stream is none (None: it is as long as it is open).

    ``segments`` are the lines for the Actor, see ``request_cache``, with the end of the request line before them; the
    request id comes next. *until* and *epoch* are
    the authenticator's.
    """

    head: RequestHead
    host: bytes
    subject: StandbyTarget | str
    want: Want | None
    epoch: int
    until: float
    segments: tuple[bytes, ...]
    keep_credentials: bool
    pick_secs: float
    first_byte_secs: float
    stream_idle_secs: float | None
    is_plain: bool
    ignores: Ignores | None
    silence_secs: float | None


def terms_for(
    head: RequestHead,
    subject: StandbyTarget | str,
    caller: Caller,
    want: Want | None,
    query: bytes,
    *,
    peer: str,
    scheme: str,
    host: bytes,
    decisions: Decisions,
) -> Terms:
    """Those of *caller*, whose request came from *peer* by *scheme*."""
    client = client_of(peer, head.lowered, trusted=decisions.settings.trusted_proxies, scheme=scheme)
    target = subject if isinstance(subject, StandbyTarget) else None
    plan = ForwardPlan(
        address=_NOWHERE,
        request_id="",
        credentials=credentials_of(head.headers, query, caller.own),
        keep_credentials=target is not None and target.config.forward_credentials,
        client_host=client.address,
        proxies=client.proxies,
        scheme=client.scheme,
        host=host.decode("latin-1"),
    )
    ignores = ignoring(target.config, lambda: head.headers) if target is not None else None
    silence_secs = target.config.stream_silence_timeout_secs if target is not None else None
    *segments, last = actor_segments(head, plan)
    if segments:
        segments[0] = _AFTER_TARGET + segments[0]
    else:
        last = _AFTER_TARGET + last
    return Terms(
        head=head,
        host=host,
        subject=subject,
        want=want,
        epoch=decisions.auth.epoch,
        until=caller.until,
        segments=(*segments, last + _REQUEST_ID),
        keep_credentials=plan.keep_credentials,
        pick_secs=decisions.pick_secs(target) if target is not None else math.inf,
        first_byte_secs=decisions.first_byte_secs(target),
        stream_idle_secs=target.config.stream_idle_timeout_secs if target is not None else None,
        is_plain=ignores is None and silence_secs is None,
        ignores=ignores,
        silence_secs=silence_secs,
    )
