"""
SQLite, in WAL mode: one connection writes and some read, so readers never wait, and writers of this process wait for
each other in order instead of finding the database locked. Other processes may have the same file open; for them the
busy timeout holds. ``synchronous=FULL`` syncs the log at each commit: what was answered survives a power cut.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import AbstractAsyncContextManager, closing, nullcontext
from pathlib import Path

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from gateway.state.engines import Broken
from gateway.state.ports import StateUnavailable
from gateway.state.tables import dump_json

_READERS = 4
_READER_CACHE_KIB = 256
_BUSY_SECS = 15.0  # for another process's write, which takes milliseconds, or its migration


class SqliteEngines:
    """
    The ``Engines`` of one file, which is made if absent; that blocks, shortly.

    Raises ValueError for another kind of URL and StateUnavailable for a file that can't be used.
    """

    writers_at_once = 1
    readers_at_once = _READERS
    wait_secs = 30.0
    holds_anything = True
    advice = "Look at the database in the data folder."

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        path = parsed.database or ":memory:"
        if parsed.drivername != "sqlite+aiosqlite" or path.startswith(":memory:") or parsed.query:
            raise ValueError(
                "Records are kept in a file or by a server: sqlite+aiosqlite:///path or postgresql://… is expected."
            )
        try:
            _prepare(Path(path))
        except (sqlite3.Error, OSError) as error:
            raise StateUnavailable(f"Records: {error}. {self.advice}") from error
        self.writer, self.readers = _engine(parsed, writes=True), _engine(parsed, writes=False)

    def limited(self, connection: AsyncConnection) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def may_be_tried_again(self, error: DBAPIError) -> bool:
        return False

    def what_broke(self, error: IntegrityError) -> Broken | None:
        broken = str(error.orig).lower()
        if "unique" in broken:
            return "unique"
        return "reference" if "foreign key" in broken else None

    def reason(self, error: BaseException) -> str:
        return str(error)

    async def prepare_long(self, connection: AsyncConnection, *, is_alone: bool, is_snapshot: bool) -> None:
        """All writers are kept out by the transaction itself, and it sees one moment."""

    async def others(self, connection: AsyncConnection) -> list[str]:
        """The lock of the data folder tells who uses it, not the file."""
        return []

    async def close(self) -> None:
        # Readers first: whoever closes last folds the log back into the file, and readers may not.
        await self.readers.dispose()
        await self.writer.dispose()


def _prepare(path: Path) -> None:
    """Make the file, for its owner alone, and switch it to WAL, which lasts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    if is_new:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    with closing(sqlite3.connect(path, timeout=_BUSY_SECS, isolation_level=None)) as connection:
        deadline = time.monotonic() + _BUSY_SECS
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                # Two processes that switch at once: SQLite does not call its busy handler here.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
    if mode != "wal":
        raise StateUnavailable(f"Records: {path} can't be kept in WAL mode; is it on a network file system?")


def _engine(url: URL, *, writes: bool) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=1 if writes else _READERS,
        max_overflow=0,
        hide_parameters=True,  # rows hold secrets, and errors end up in logs
        json_serializer=dump_json,
        isolation_level=None if writes else "AUTOCOMMIT",
        # Not for the writer, whose connection SQLAlchemy would take for one in autocommit: see ``set_up``.
        skip_autocommit_rollback=not writes,
        # ``begin`` has ended its transaction either way; a rollback of nothing would be one more change of thread.
        pool_reset_on_return=None,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        # The driver begins no transactions by itself: "begin" below does, as SQLAlchemy's documentation advises.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={int(_BUSY_SECS * 1000)}")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        if not writes:
            cursor.execute("PRAGMA query_only=ON")
            # Each reader has a cache of its own, 2 MiB by default, of what the operating system's holds anyway.
            cursor.execute(f"PRAGMA cache_size=-{_READER_CACHE_KIB}")
        cursor.close()

    if writes:

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Connection) -> None:
            # At once for writing: one that begins by reading could not be upgraded while another process writes.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
