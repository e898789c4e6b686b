"""No I/O: how many connections of callers stand, in all and from each address, and whether there is room for more."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol
from weakref import WeakSet

from gateway.client_address import is_trusted

_LOOK_EVERY = 32


class Connection(Protocol):
    """A transport, as far as it is looked at."""

    def is_closing(self) -> bool: ...

    def get_extra_info(self, name: str) -> Any: ...


class Connections:
    """
    ``admit`` each connection when it is made, tell ``gone`` when it has ended.

    Its end is not told by everybody whom a connection was handed on to; before one is refused, those that have ended
    are looked for. This machine and *trusted* proxies speak for many callers, so to them no limit by address applies.
    """

    def __init__(self, *, limit: int, limit_per_address: int, trusted: tuple[str, ...]) -> None:
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._trusted = trusted
        self._all: WeakSet[object] = WeakSet()
        self._by_address: dict[str, WeakSet[object]] = {}
        self._looked = 0

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: Connection, address: str) -> str | None:
        """Count *connection* from *address*, once; or the name of the setting that leaves no room for it."""
        if connection in self._all:
            return None
        if len(self._all) >= self._limit and not self._sweep(lambda: len(self._all) < self._limit):
            return "max_connections"
        mine = self._by_address.get(address)
        if mine is None:
            mine = self._by_address[address] = WeakSet()
        elif len(mine) >= self._limit_per_address and not self._is_exempt(address):

            def has_room() -> bool:
                return len(self._by_address.get(address, ())) < self._limit_per_address

            if not self._sweep(has_room):
                return "max_connections_per_address"
            mine = self._by_address.setdefault(address, mine)
        known = _known_by(connection)
        self._all.add(known)
        mine.add(known)
        return None

    def gone(self, connection: Connection, address: str) -> None:
        """*connection* has ended; also for one that was not admitted."""
        self._forget(_known_by(connection), address)

    def _forget(self, known: object, address: str) -> None:
        self._all.discard(known)
        mine = self._by_address.get(address)
        if mine is not None:
            mine.discard(known)
            if not mine:
                del self._by_address[address]

    def _sweep(self, has_room: Callable[[], bool]) -> bool:
        self._looked += 1
        if self._looked % _LOOK_EVERY != 1:  # a flood is not to be answered with as many walks over them all
            return False
        for address, connections in list(self._by_address.items()):
            for known in [one for one in connections if _has_ended(one)]:
                self._forget(known, address)
            if not connections:
                self._by_address.pop(address, None)
        return has_room()

    def _is_exempt(self, address: str) -> bool:
        try:
            if ip_address(address).is_loopback:
                return True
        except ValueError:
            return True  # a socket of this machine's file system
        return is_trusted(address, self._trusted)


def _known_by(connection: Connection) -> object:
    """uvloop's TLS transports can't be referred to weakly; the TLS object of one lives as long as it."""
    if type(connection).__weakrefoffset__:
        return connection
    return connection.get_extra_info("ssl_object")


def _has_ended(known: object) -> bool:
    """A TLS object can't tell: it is forgotten when it is told of, or goes."""
    is_closing = getattr(known, "is_closing", None)
    return is_closing is not None and bool(is_closing())
