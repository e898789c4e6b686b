"""Opens connections to Redis: directly, by TLS, by a unix socket, or to whom the Sentinels call the master."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError

from gateway.state.redis.address import RedisAddress

DRIVER_ERRORS = (RedisError, OSError)
# To connect, log in and choose a database takes a way there and back each, and a Redis may be slow by a second.
_CONNECT_SECS = 5.0
_SENTINEL_SECS = 1.5
# The second protocol is what Redis and Valkey speak of old; waits are bounded where they are made.
_ALWAYS: dict[str, Any] = {"protocol": 2, "socket_timeout": None}


async def connect(address: RedisAddress) -> AbstractConnection:
    """
    A new connection that has logged in; its reads have no timeout, that is the caller's.

    Raises one of DRIVER_ERRORS, also where no Sentinel knows a master, and where it takes too long.
    """
    asking_secs = _SENTINEL_SECS * len(address.places) if address.service is not None else 0.0
    async with asyncio.timeout(_CONNECT_SECS + asking_secs):
        return await _connect(address)


async def _connect(address: RedisAddress) -> AbstractConnection:
    made: Any  # half of the driver's methods have no types
    if address.path is not None:
        made = UnixDomainSocketConnection(path=address.path, **_ALWAYS, **_login(address))
    else:
        host, port = await _master(address) if address.service is not None else address.places[0]
        made = _tcp(address, host, port, **_login(address))
    try:
        await made.connect()
        if address.service is not None:
            await _check_role(made)
    except BaseException:
        await made.disconnect(nowait=True)
        raise
    connection: AbstractConnection = made
    return connection


def _login(address: RedisAddress) -> dict[str, Any]:
    return {"db": address.database, "username": address.username, "password": address.password}


def _tcp(address: RedisAddress, host: str, port: int, **options: Any) -> Any:
    options = {**_ALWAYS, "socket_keepalive": True, **options}
    if address.has_tls:
        return SSLConnection(host=host, port=port, **options, **dict[str, Any](address.files))
    return Connection(host=host, port=port, **options)


async def _master(address: RedisAddress) -> tuple[str, int]:
    trouble = ""
    for host, port in address.places:
        # Sentinels have no databases, and their users are others: the service's password is not for them.
        sentinel = _tcp(address, host, port)
        try:
            async with asyncio.timeout(_SENTINEL_SECS):
                await sentinel.connect()
                await sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.service)
                found = await sentinel.read_response()
        except DRIVER_ERRORS as error:
            trouble = f" ({str(error).rstrip('. ') or 'no answer in time'})"
            continue
        finally:
            await sentinel.disconnect(nowait=True)
        if found is not None:
            return found[0].decode(), int(found[1])
        trouble = " (it is not known there)"
    raise NotConnected(f"no Sentinel tells where it is{trouble}")


async def _check_role(connection: Any) -> None:
    """A Sentinel may name one that was the master a moment ago."""
    await connection.send_command("ROLE")
    role = (await connection.read_response())[0]
    if role != b"master":
        raise NotConnected("the one that the Sentinels name is not the master yet")
