"""What ``Database`` must know of the one it works on; SQLite and PostgreSQL have a module each."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Broken = Literal["unique", "reference"]


class Engines(Protocol):
    """The connections of this process to one database, and the ways of its driver."""

    writer: AsyncEngine
    """Begins a transaction with its first statement."""
    readers: AsyncEngine
    """In autocommit."""
    writers_at_once: int
    readers_at_once: int
    wait_secs: float
    """For one's turn within this process."""
    holds_anything: bool
    """Also a character 0 in a text, and in JSON what is no number."""
    advice: str
    """Where to look when it can't be used; ends the messages."""

    def limited(self, connection: AsyncConnection) -> AbstractAsyncContextManager[None]:
        """What is done within has bounded time, whatever the server does."""
        ...

    def may_be_tried_again(self, error: DBAPIError) -> bool:
        """Whether the transaction was undone for a reason that another try may not meet."""
        ...

    def what_broke(self, error: IntegrityError) -> Broken | None: ...

    def reason(self, error: BaseException) -> str:
        """What the driver says, in one line without the values of rows."""
        ...

    async def prepare_long(self, connection: AsyncConnection, *, is_alone: bool, is_snapshot: bool) -> None:
        """Begin a transaction without limits: see ``Database.long_write``."""
        ...

    async def others(self, connection: AsyncConnection) -> list[str]:
        """The names of other processes that are connected now, as far as the database knows them."""
        ...

    async def close(self) -> None: ...
