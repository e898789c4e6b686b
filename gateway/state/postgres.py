"""
PostgreSQL, by psycopg: its libpq understands every ``postgresql://`` address, several hosts and TLS included.

Some connections write and some read, each with its own turn. Transactions are READ COMMITTED: whoever reads before he
writes locks the row first (``gateway.state.storage_rows``, ``records``), and compare-and-sets name the version. What is
undone by a deadlock, a serialization failure or a connection that broke before the commit is tried again.

A server that has frozen answers nothing, not even the wish to cancel. So a connection whose time is over is cut off:
its socket is shut, and the driver finds it closed; that is no reason to try again.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.state.engines import Broken
from gateway.state.ports import StateUnavailable
from gateway.state.tables import dump_json

_AT_ONCE = 4  # of each kind, in each process: PostgreSQL admits 100 by default
_CONNECT_SECS = 5
_STATEMENT_SECS = 10
_ANSWER_SECS = 15.0  # for a whole transaction
_PROGRAM = "greenroom"
_MIGRATION_LOCK = 0x6772656E  # any number that is always the same

_UNIQUE, _REFERENCE = "23505", "23503"
_UNDONE = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
_SESSION: dict[str, Any] = {
    "connect_timeout": _CONNECT_SECS,
    # A peer that is cut off is found dead, in the middle of a statement too.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": int(_ANSWER_SECS * 1000),
}
_LIMITS = {
    "statement_timeout": _STATEMENT_SECS * 1000,
    "lock_timeout": _STATEMENT_SECS * 1000,
    "idle_in_transaction_session_timeout": int(2 * _ANSWER_SECS * 1000),
}


class PostgresEngines:
    """The ``Engines`` of the database at *url*, which must be there."""

    writers_at_once = readers_at_once = _AT_ONCE
    wait_secs = 10.0
    holds_anything = False

    def __init__(self, url: str) -> None:
        try:
            info = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.Error:  # it may tell a part of the password
            raise StateUnavailable(
                "Records: their address is none that PostgreSQL understands: look at records_url."
            ) from None
        self.advice = (
            f"Is PostgreSQL there ({info.get('host', 'localhost')}, port {info.get('port', 5432)}, "
            f"database {info.get('dbname', '')!r})?"
        )
        # So that its own tools, and ``others``, tell one process from another.
        self._name = f"{_PROGRAM} {socket.gethostname()[:30]} {os.getpid()}"
        # What the address says itself is preferred, but for the name.
        conninfo = psycopg.conninfo.make_conninfo(**{**_SESSION, **info, "application_name": self._name})
        self.writer, self.readers = _engine(conninfo, writes=True), _engine(conninfo, writes=False)

    async def check(self) -> None:
        """Raises StateUnavailable for a database that could not hold all texts."""
        async with self.readers.connect() as connection, self.limited(connection):
            encoding = (await connection.execute(text("SHOW server_encoding"))).scalar()
        if encoding != "UTF8":
            raise StateUnavailable(f"Records: the database is kept in {encoding}: make one with ENCODING 'UTF8'.")

    @asynccontextmanager
    async def limited(self, connection: AsyncConnection) -> AsyncIterator[None]:
        raw = (await connection.get_raw_connection()).driver_connection
        assert isinstance(raw, psycopg.AsyncConnection)
        is_cut_off = False

        def cut_off() -> None:
            nonlocal is_cut_off
            is_cut_off = True
            _cut_off(raw)

        timer = asyncio.get_running_loop().call_later(_ANSWER_SECS, cut_off)
        try:
            yield
        except DBAPIError as error:
            if is_cut_off:  # another try would take as long again; to the driver it was a connection that broke
                raise StateUnavailable(f"Records: no answer within {_ANSWER_SECS:g} s. {self.advice}") from error
            raise
        finally:
            timer.cancel()

    def may_be_tried_again(self, error: DBAPIError) -> bool:
        return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _UNDONE

    def what_broke(self, error: IntegrityError) -> Broken | None:
        state = getattr(error.orig, "sqlstate", None)
        if state == _UNIQUE:
            return "unique"
        return "reference" if state == _REFERENCE else None

    def reason(self, error: BaseException) -> str:
        # Not its detail, which holds values of the row.
        said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        return said or (str(error).strip().partition("\n")[0])

    async def prepare_long(self, connection: AsyncConnection, *, is_alone: bool, is_snapshot: bool) -> None:
        if is_snapshot:
            await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        for name in _LIMITS:
            await connection.execute(text(f"SET LOCAL {name} = 0"))
        if is_alone:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})

    async def others(self, connection: AsyncConnection) -> list[str]:
        names = text(
            "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name LIKE :ours AND application_name <> :own ORDER BY 1"
        )
        return list((await connection.execute(names, {"ours": f"{_PROGRAM} %", "own": self._name})).scalars())

    async def close(self) -> None:
        await self.readers.dispose()
        await self.writer.dispose()


def _engine(conninfo: str, *, writes: bool) -> AsyncEngine:
    engine = create_async_engine(
        "postgresql+psycopg://",
        pool_size=_AT_ONCE,
        max_overflow=0,
        hide_parameters=True,  # rows hold secrets, and errors end up in logs
        json_serializer=dump_json,
        isolation_level="READ COMMITTED" if writes else "AUTOCOMMIT",
        skip_autocommit_rollback=not writes,
        use_native_hstore=False,
    )

    @event.listens_for(engine.sync_engine, "do_connect")
    def name_server(_: Any, __: Any, words: list[Any], ___: Any) -> None:
        words[:] = [conninfo]  # as it is: SQLAlchemy's own form of addresses knows less

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("; ".join(f"SET {name} = {value}" for name, value in _LIMITS.items()))
        cursor.close()
        connection.commit()

    return engine


def _cut_off(connection: psycopg.AsyncConnection[Any]) -> None:
    """Shut the socket under the driver, whatever it waits for."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as shared:
        shared.shutdown(socket.SHUT_RDWR)
