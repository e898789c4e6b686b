"""Hosts by the thousand: what they cost in memory, and how soon a new one leads somewhere."""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, insert, select

from gateway.core.ids import record_id, token_hash
from gateway.services import utc_now
from gateway.state.tables import actors, tokens, users
from loadtests.compare_targets import NotMeasured
from loadtests.compare_upstreams import SMALL, host_of
from loadtests.server import TOKEN, Server

MANY_HOSTS = 10_000
ADDED_AT_ONCE = 50
_VISITORS = 16
_ROUTE_SECS = 10


def add_hosts(data: Path, count: int, pattern_name: str = SMALL[0]) -> list[tuple[str, str]]:
    """
    *count* Actors, and as many tokens of their owner, written to the records of a Greenroom that is stopped.

    Each is a copy of the one named *pattern_name*, without its builds: an Actor of its own with a host of its own, and
    no run.
    Returns each host with its token.
    """
    engine = create_engine(f"sqlite:///{data}/records.sqlite3")
    made = [(f"many-{number:05}", f"load-test-token-{secrets.token_hex(20)}") for number in range(count)]
    with engine.begin() as connection:
        owner = connection.execute(select(users)).mappings().first()
        pattern = connection.execute(select(actors).where(actors.c.name == pattern_name)).mappings().first()
        sample = connection.execute(select(tokens)).mappings().first()
        if owner is None or pattern is None or sample is None:
            raise NotMeasured("the records of Greenroom do not hold what was put there")
        copies = [{**pattern, "id": _new_id(), "name": name, "name_key": name, "tagged_builds": {}} for name, _ in made]
        keys = [
            {**sample, "id": _new_id(), "name": name, "token_hash": token_hash(token), "created_at": utc_now()}
            for name, token in made
        ]
        connection.execute(insert(actors), copies)
        connection.execute(insert(tokens), keys)
    engine.dispose()
    return [(host_of(name), token) for name, token in made]


def _new_id() -> str:
    return record_id(secrets.token_bytes(32))


def visit(server: Server, visits: list[tuple[str, str]], *, status: int, saying: bytes = b"") -> None:
    """
    One GET for each host with its token, over a few connections that are kept.

    Raises NotMeasured for an answer of another status, or without *saying* in it.
    """

    def visit_some(some: list[tuple[str, str]]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for host, token in some:
            connection.request(
                "GET", "/", headers={"Host": f"{host}:{server.port}", "Authorization": f"Bearer {token}"}
            )
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != status or saying not in body:
                raise NotMeasured(f"{host} answered {answer.status}, not {status}: {body[:200]!r}")
        connection.close()

    with ThreadPoolExecutor(_VISITORS) as pool:
        list(pool.map(visit_some, [visits[start::_VISITORS] for start in range(_VISITORS)]))


# --- New hosts ------------------------------------------------------------------------------------------------------


async def added_hosts_ms(server: Server, count: int) -> list[float]:
    """
    Milliseconds from the answer to an Actor's creation until its host is known, *count* created at once.

    A host is known when it answers anything but the 404 of unknown ones; a stranger without a token, as here, gets 401.
    """
    made = [f"added-{secrets.token_hex(4)}" for _ in range(count)]
    callers = [await _Caller.connect(server.port) for _ in range(2 * count)]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_add(server, name, callers[2 * number], callers[2 * number + 1]))
                for number, name in enumerate(made)
            ]
    except* OSError as errors:
        raise NotMeasured(f"a new host could not be asked: {errors.exceptions[0]}") from errors
    finally:
        for caller in callers:
            caller.close()
    return [task.result() for task in tasks]


async def _add(server: Server, name: str, api: _Caller, caller: _Caller) -> float:
    host = f"{host_of(name)}:{server.port}"
    status, answer = await caller.ask("GET", "/", host)
    if status != 404:
        raise ConnectionError(f"{host} is known before it was made: {status}")
    body = json.dumps({"name": name, "actorStandby": {"isEnabled": True}})
    status, answer = await api.ask("POST", "/v2/actors", f"127.0.0.1:{server.port}", body)
    if status != 201:
        raise ConnectionError(f"an Actor could not be created: {status} {answer[:200]!r}")
    began = time.monotonic()
    while True:
        status, _ = await caller.ask("GET", "/", host)
        took = (time.monotonic() - began) * 1000
        if status != 404:
            return took
        if took > _ROUTE_SECS * 1000:
            raise ConnectionError(f"{host} is unknown {_ROUTE_SECS} s after it was made")


class _Caller:
    """A kept connection, opened before anything is timed, and again when the server has closed it."""

    def __init__(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._port, self._reader, self._writer = port, reader, writer

    @classmethod
    async def connect(cls, port: int) -> _Caller:
        return cls(port, *await asyncio.open_connection("127.0.0.1", port))

    def close(self) -> None:
        self._writer.close()

    async def ask(self, method: str, path: str, host: str, body: str = "") -> tuple[int, bytes]:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
        if body:  # the API; hosts are asked without a token
            lines += [f"Authorization: Bearer {TOKEN}", "Content-Type: application/json"]
            lines += [f"Content-Length: {len(body)}"]
        if self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next((line[15:] for line in head.split("\r\n") if line.startswith("content-length:")), "0")
        answer = await self._reader.readexactly(int(length))
        return int(head[9:12]), answer


def actors_in(server: Server) -> int:
    """How many Actors the API lists."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/v2/actors?my=1&limit=1", headers={"Authorization": f"Bearer {TOKEN}"})
    listed: Any = json.loads(connection.getresponse().read())
    connection.close()
    return int(listed["data"]["total"])
