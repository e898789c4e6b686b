"""
The database of the records: how it is opened, who waits for whom, and what its errors mean.

SQLite, in WAL mode: one connection writes and some read, so readers never wait, and writers of this process wait for
each other in order instead of finding the database locked. Other processes may have the same file open; for them the
busy timeout holds. ``synchronous=FULL`` syncs the log at each commit: what was answered survives a power cut.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from gateway.core.errors import InvalidRequest, NameNotUnique, RecordNotFound
from gateway.state.migrations.upgrade import is_current, upgrade
from gateway.state.ports import StateUnavailable
from gateway.state.tables import dump_json

T = TypeVar("T")

_READERS = 4
_READER_CACHE_KIB = 256
_BUSY_SECS = 15.0  # for another process's write, which takes milliseconds, or its migration
_WAIT_SECS = 30.0  # for one's turn within this process


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """
    The database at *url* (``sqlite+aiosqlite:///path``), made if absent and migrated; closed at the end.

    Raises ValueError for another kind of URL and StateUnavailable when the file can't be used.
    """
    parsed = make_url(url)
    path = parsed.database or ":memory:"
    if parsed.drivername != "sqlite+aiosqlite" or path.startswith(":memory:") or parsed.query:
        raise ValueError("Records are kept in a file: sqlite+aiosqlite:///path is expected.")
    with _translated(None):
        await asyncio.to_thread(_prepare, Path(path))
        writer, readers = _sqlite_engine(parsed, writes=True), _sqlite_engine(parsed, writes=False)
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        database = Database(writer, readers, group)
        try:
            await database.migrate()
            yield database
        except BaseException as error:
            failure = error  # kept from the group, which would cancel what is under way and wrap the error
        finally:
            database.is_open = False
    # Readers first: whoever closes last folds the log back into the file, and readers may not.
    await readers.dispose()
    await writer.dispose()
    if failure is not None:
        raise failure


class Database:
    """
    Looks and changes, each on a connection of its own turn; errors of the driver end here.

    What has begun runs to its end in a task of the database's, also when its caller is cancelled: SQLAlchemy answers
    a cancellation by dropping the connection, and a dropped one can keep the lock of the file for a while.
    """

    def __init__(self, writer: AsyncEngine, readers: AsyncEngine, group: asyncio.TaskGroup) -> None:
        # Turns are taken here and not in the pools, whose queues lose a connection when a waiter is cancelled
        # at the wrong moment (asyncio.wait_for before Python 3.12).
        self._writer, self._write_turn = writer, asyncio.Lock()
        self._readers, self._read_turns = readers, asyncio.Semaphore(_READERS)
        self._group = group
        self.is_open = True

    async def read(self, look: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """
        The answer of *look*; each of its statements sees one moment of the database.

        There is no transaction around them: that would cost a read four changes of thread.
        """

        async def work() -> T:
            async with self._readers.connect() as connection:
                return await look(connection)

        with _translated(None):
            return await self._perform(self._read_turns, work)

    async def write(self, change: Callable[[AsyncConnection], Awaitable[T]], taken: NameNotUnique | None = None) -> T:
        """
        The answer of *change*, made in one transaction, the only one that writes; durable on return.

        Any exception of *change* undoes it. A unique value that exists raises *taken*, a reference to nothing
        RecordNotFound. A caller who is cancelled before his turn changes nothing, one who is cancelled later leaves
        a whole change behind or, where it fails, none.
        """

        async def work() -> T:
            async with self._writer.begin() as connection:
                return await change(connection)

        with _translated(taken):
            return await self._perform(self._write_turn, work)

    async def migrate(self) -> None:
        """Bring the schema up to date; of two processes that start at once, one does and the other waits."""
        if not await self.read(lambda connection: connection.run_sync(is_current)):
            await self.write(lambda connection: connection.run_sync(upgrade))

    async def _perform(self, turns: asyncio.Lock | asyncio.Semaphore, work: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(_WAIT_SECS):
                await turns.acquire()
        except TimeoutError:
            raise StateUnavailable(f"Records: no turn within {_WAIT_SECS:g} s. Is the disk too slow?") from None
        if not self.is_open:
            turns.release()
            raise StateUnavailable("Records: they are closed.")
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._group.create_task(_settle(outcome, work, turns))
        return await outcome


async def _settle(
    outcome: asyncio.Future[T], work: Callable[[], Awaitable[T]], turns: asyncio.Lock | asyncio.Semaphore
) -> None:
    """Work to the end, give the turn back, and tell whoever still waits."""
    try:
        result = await work()
    except BaseException as error:
        if not outcome.done():
            outcome.set_exception(error) if isinstance(error, Exception) else outcome.cancel()
        if not isinstance(error, Exception):
            raise
    else:
        if not outcome.done():
            outcome.set_result(result)
    finally:
        turns.release()


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


def _sqlite_engine(url: URL, *, writes: bool) -> AsyncEngine:
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


@contextmanager
def _translated(taken: NameNotUnique | None) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        broken = str(error.orig).lower()
        if "unique" in broken:
            raise taken or NameNotUnique("There is a record with this id already.") from error
        if "foreign key" in broken:
            raise RecordNotFound("The user or Actor that the record belongs to") from error
        raise
    except (UnicodeEncodeError, OverflowError) as error:
        raise InvalidRequest("A text holds half a character, or a number has more than 64 bits.") from error
    except (DBAPIError, PoolTimeout, sqlite3.Error, OSError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise StateUnavailable(f"Records: {reason}. Look at the database in the data folder.") from error
