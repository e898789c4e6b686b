"""What the tests of forwarding ask, and an Actor that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.proxy.http import ForwardOutcome

if TYPE_CHECKING:
    from proxy.forwarding.conftest import Rig, Wire

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def always_ok(wire: Wire, _: int) -> None:
    """An Actor that answers whatever comes."""
    while True:
        await wire.message()
        await wire.write(OK)


async def outcome(rig: Rig) -> ForwardOutcome:
    """What became of the request."""
    got = await rig.forwarded.get()
    assert isinstance(got, ForwardOutcome), got
    return got
