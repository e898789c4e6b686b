"""Whom to connect to for a source: names are resolved once, and what was checked is what is connected to."""

from __future__ import annotations

import asyncio
import socket

from gateway.core.errors import SourceError
from gateway.sources.addresses import is_public

_RESOLVE_SECS = 10.0


async def address_of(host: str, port: int, *, may_be_private: bool) -> str:
    """
    An address of *host*. Raises SourceError: it has none, or one that is not of the internet.

    With one private address among several a name is refused altogether: who chose it could choose when it is used.
    """
    try:
        async with asyncio.timeout(_RESOLVE_SECS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise SourceError(f"The host {host} of the source can't be found: {error or 'no answer in time'}.") from error
    addresses = [str(item[4][0]) for item in found]
    private = next((address for address in addresses if not is_public(address)), None)
    if private is not None and not may_be_private:
        raise SourceError(
            f"The source is at {host}, whose address {private} is not of the internet; builds fetch from there only "
            "when the administrator allows it (setting: allow_private_sources)."
        )
    # IPv4 first: a machine without a route for IPv6 is more common than the other way round.
    return min(addresses, key=lambda address: ":" in address)
