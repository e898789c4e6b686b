"""
All that Greenroom leans on of uvicorn's insides, in one place; ``tests/proxy/splice/test_handover.py`` looks at each.

1. ``Config(http=…)`` takes any callable that makes an ``asyncio.Protocol``.
2. It is called with ``config``, ``server_state``, ``app_state`` and ``_loop``, by name.
3. ``server_state.connections`` holds whoever is to be told ``shutdown()``, and the server ends when it is empty.
4. A protocol made so late that its connection stands already works like any other: ``connection_made``, then
   ``set_protocol``, then what was read so far.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

# Makes the protocol of one connection, as uvicorn calls it.
ProtocolFactory = Callable[..., asyncio.Protocol]


class Place:
    """What uvicorn gives to each protocol that it makes."""

    __slots__ = ("_app_state", "_config", "_loop", "_state")

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = loop or asyncio.get_running_loop()

    def enter(self, protocol: Any) -> None:
        """*protocol* stands: it is told when the server ends, and the server waits for it."""
        self._state.connections.add(protocol)

    def leave(self, protocol: Any) -> None:
        """It no longer stands; more than once is fine."""
        self._state.connections.discard(protocol)

    def hand_over(self, transport: asyncio.Transport, held: bytes, make: ProtocolFactory) -> None:
        """The connection belongs to a protocol of *make* from now on, which gets what was *held* first."""
        inner = make(config=self._config, server_state=self._state, app_state=self._app_state, _loop=self._loop)
        inner.connection_made(transport)
        transport.set_protocol(inner)
        inner.data_received(held)
