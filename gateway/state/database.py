"""
The database of the records: how it is opened, who waits for whom, and what its errors mean.

What differs between SQLite and PostgreSQL stands in ``gateway.state.sqlite`` and ``gateway.state.postgres``.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import InvalidRequest, NameNotUnique, RecordNotFound
from gateway.state.engines import Engines
from gateway.state.migrations.upgrade import HEAD, revision, upgrade
from gateway.state.ports import StateUnavailable

T = TypeVar("T")

_TRIES = 5
_LONGEST_PAUSE_SECS = 0.05  # before another try; doubled with each


@asynccontextmanager
async def open_database(url: str, *, is_migrated: bool = True) -> AsyncIterator[Database]:
    """
    The database at *url*, migrated unless told otherwise; closed at the end.

    A file (``sqlite+aiosqlite:///path``) is made if absent; a database of PostgreSQL (``postgresql://…``) must be
    there. Raises ValueError for another kind of URL and StateUnavailable when the database can't be used.
    """
    async with _opened(url) as database:
        if is_migrated:
            await database.migrate()
        yield database


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    engines = await _engines(url)
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        database = Database(engines, group)
        try:
            yield database
        except BaseException as error:
            failure = error  # kept from the group, which would cancel what is under way and wrap the error
        finally:
            database.is_open = False
    await engines.close()
    if failure is not None:
        raise failure


async def _engines(url: str) -> Engines:
    if url.startswith("postgresql://"):
        from gateway.state.postgres import PostgresEngines  # and its driver, which the default has no use for

        postgres = PostgresEngines(url)
        try:
            with _translated(postgres, None):
                await postgres.check()
        except BaseException:
            await postgres.close()
            raise
        return postgres
    from gateway.state.sqlite import SqliteEngines

    return await asyncio.to_thread(SqliteEngines, url)


class Database:
    """
    Looks and changes, each on a connection of its own turn; errors of the driver end here.

    What has begun runs to its end in a task of the database's, also when its caller is cancelled: SQLAlchemy answers
    a cancellation by dropping the connection, and a dropped one can keep the lock of the file for a while.
    """

    def __init__(self, engines: Engines, group: asyncio.TaskGroup) -> None:
        # Turns are taken here and not in the pools, whose queues lose a connection when a waiter is cancelled
        # at the wrong moment (asyncio.wait_for before Python 3.12).
        self._engines = engines
        self._write_turns = asyncio.Semaphore(engines.writers_at_once)
        self._read_turns = asyncio.Semaphore(engines.readers_at_once)
        self._group = group
        self.is_open = True

    async def read(self, look: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """
        The answer of *look*; each of its statements sees one moment of the database.

        There is no transaction around them: that would cost a read four changes of thread.
        """

        async def work() -> T:
            async with self._engines.readers.connect() as connection, self._engines.limited(connection):
                return await look(connection)

        with _translated(self._engines, None):
            return await self._perform(self._read_turns, lambda: self._until_done(work))

    async def write(self, change: Callable[[AsyncConnection], Awaitable[T]], taken: NameNotUnique | None = None) -> T:
        """
        The answer of *change*, made in one transaction; durable on return.

        Any exception of *change* undoes it. A unique value that exists raises *taken*, a reference to nothing
        RecordNotFound. A caller who is cancelled before his turn changes nothing, one who is cancelled later leaves
        a whole change behind or, where it fails, none. *change* may be called again where others undid its work;
        others write at the same time in other processes and, in PostgreSQL, in this one.
        """
        was_sent = False  # the commit: what fails from then on may be done

        async def work() -> T:
            nonlocal was_sent
            was_sent = False
            async with (
                self._engines.writer.connect() as connection,
                self._engines.limited(connection),
                connection.begin(),
            ):
                answer = await change(connection)
                was_sent = True
            return answer

        with _translated(self._engines, taken):
            return await self._perform(self._write_turns, lambda: self._until_done(work, lambda: was_sent))

    async def long_write(
        self, change: Callable[[AsyncConnection], Awaitable[T]], *, is_alone: bool = False, is_snapshot: bool = False
    ) -> T:
        """
        One transaction that may take any time and is never tried again; it is undone when its caller is cancelled.

        *is_alone*: of these there is one at a time, over all processes. *is_snapshot*: all its looks see one moment.
        """
        with _translated(self._engines, None):
            await self._take(self._write_turns)
            try:
                async with self._engines.writer.begin() as connection:
                    await self._engines.prepare_long(connection, is_alone=is_alone, is_snapshot=is_snapshot)
                    return await change(connection)
            finally:
                self._write_turns.release()

    @property
    def holds_anything(self) -> bool:
        """Also a character 0 in a text, and in JSON what is no number."""
        return self._engines.holds_anything

    async def others(self) -> list[str]:
        """The names of other processes that use it now; SQLite does not know them."""
        return await self.read(self._engines.others)

    async def revision(self) -> str | None:
        """The migration at which the schema stands; None: there is none yet."""
        return await self.read(lambda connection: connection.run_sync(revision))

    async def migrate(self) -> None:
        """Bring the schema up to date; of two processes that start at once, one does and the other waits."""
        if await self.revision() != HEAD:
            await self.long_write(lambda connection: connection.run_sync(upgrade), is_alone=True)

    async def _until_done(self, work: Callable[[], Awaitable[T]], was_sent: Callable[[], bool] = lambda: False) -> T:
        """The answer of *work*, after so many tries as make sense."""
        for attempt in range(1, _TRIES):
            try:
                return await work()
            except DBAPIError as error:
                if was_sent() or not self._engines.may_be_tried_again(error):
                    raise
            # Not both at once again.
            await asyncio.sleep(random.random() * _LONGEST_PAUSE_SECS * 2**attempt)  # noqa: S311 - no secret
        return await work()

    async def _perform(self, turns: asyncio.Semaphore, work: Callable[[], Awaitable[T]]) -> T:
        await self._take(turns)
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._group.create_task(_settle(outcome, work, turns))
        return await outcome

    async def _take(self, turns: asyncio.Semaphore) -> None:
        wait_secs = self._engines.wait_secs
        try:
            async with asyncio.timeout(wait_secs):
                await turns.acquire()
        except TimeoutError:
            raise StateUnavailable(f"Records: no turn within {wait_secs:g} s. {self._engines.advice}") from None
        if not self.is_open:
            turns.release()
            raise StateUnavailable("Records: they are closed.")


async def _settle(outcome: asyncio.Future[T], work: Callable[[], Awaitable[T]], turns: asyncio.Semaphore) -> None:
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


@contextmanager
def _translated(engines: Engines, taken: NameNotUnique | None) -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        match engines.what_broke(error):
            case "unique":
                raise taken or NameNotUnique("There is a record with this id already.") from error
            case "reference":
                raise RecordNotFound("The user or Actor that the record belongs to") from error
        raise
    except (UnicodeEncodeError, OverflowError, DataError) as error:
        raise InvalidRequest(
            "A text holds half a character or the character 0, or a number is too large to be stored."
        ) from error
    except (DBAPIError, PoolTimeout, sqlite3.Error, OSError) as error:
        reason = engines.reason(error.orig if isinstance(error, DBAPIError) and error.orig else error)
        raise StateUnavailable(f"Records: {reason.rstrip('.')}. {engines.advice}") from error
