"""What all callers' connections of one process share, whichever protocol class has them."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.proxy.splice.connections import Connections
from gateway.proxy.splice.request_cache import RequestHeads
from gateway.proxy.splice.request_head import HeadLimits
from gateway.proxy.splice.wheel import Wheel
from gateway.settings import Settings


@dataclass(slots=True)
class Lobby:
    """
    Limits, and who keeps them.

    ``is_leaving``: another process takes the new connections, or soon will: each answer says that it is the last one.
    """

    settings: Settings
    is_leaving: bool = False
    keep_alive_secs: float = field(init=False)  # pydantic's fields take long to answer, and each request asks
    requests: RequestHeads = field(init=False)
    wheel: Wheel = field(default_factory=Wheel)
    connections: Connections = field(init=False)

    def __post_init__(self) -> None:
        settings = self.settings
        self.keep_alive_secs = settings.keep_alive_secs
        self.requests = RequestHeads(
            limits=HeadLimits(max_bytes=settings.max_head_bytes, max_headers=settings.max_request_headers)
        )
        self.connections = Connections(
            limit=settings.max_connections,
            limit_per_address=settings.max_connections_per_address,
            trusted=settings.trusted_proxies,
        )
