"""
Requests of queues, a row each; see ``Storages`` for what is promised.

``order_no`` is a pending request's place. The queue's stats hold the numbers given last: ``_back`` grows with each
request that goes to the end, ``_front`` falls with each that goes in front, e.g. after 1, 2, 3 and two in front the
places are -2, -1, 1, 2, 3. ``_added`` numbers all in the order in which they first came, ``_client`` is the first
client that was seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import InvalidRequest, RecordNotFound, RequestNotLocked
from gateway.core.model import JsonObject, StorageKind
from gateway.core.storages import AddedRequest, QueuedRequest, QueueHead
from gateway.state.storage_rows import (
    Holdings,
    added,
    count,
    lock_storage,
    look_at_storage,
    not_found,
    note_change,
    note_stats,
)
from gateway.state.tables import queue_requests, storages

_KIND = StorageKind.REQUEST_QUEUE
_IDS_AT_ONCE = 500

_rows = queue_requests.c
_COLUMNS = tuple(_rows[part.name] for part in fields(QueuedRequest))
_THE_ONE = (_rows.queue_id == bindparam("of_queue")) & (_rows.id == bindparam("of_request"))
_HELD = select(*_COLUMNS, _rows.added_no).where(_THE_ONE)
_INSERT = insert(queue_requests)
_UPDATE = update(queue_requests).where(_THE_ONE)
# The queue on the left: no such request and no such queue are told apart in one statement.
_REQUEST = (
    select(*_COLUMNS)
    .select_from(
        storages.outerjoin(queue_requests, (_rows.queue_id == storages.c.id) & (_rows.id == bindparam("of_request")))
    )
    .where(storages.c.kind == _KIND, storages.c.id == bindparam("of_queue"))
)
_IS_LOCKED = _rows.lock_expires_at > bindparam("at")
_FREE = (
    select(*_COLUMNS)
    .where(
        _rows.queue_id == bindparam("of_queue"),
        _rows.order_no.is_not(None),
        or_(_rows.lock_expires_at.is_(None), _rows.lock_expires_at <= bindparam("at")),
    )
    .order_by(_rows.order_no)
)
_ANY_LOCKED = select(_rows.id).where(_rows.queue_id == bindparam("of_queue"), _IS_LOCKED).limit(1)
_UNLOCK_ALL = update(queue_requests).where(
    _rows.queue_id == bindparam("of_queue"), _IS_LOCKED, _rows.lock_owner == bindparam("of_owner")
)
_UNLOCKED: JsonObject = {"lock_expires_at": None, "lock_owner": None}


class QueueRows(Holdings):
    """The part of ``Storages`` on request queues."""

    async def add_requests(
        self, queue_id: str, requests: Sequence[QueuedRequest], *, forefront: bool, client: str | None, now: datetime
    ) -> Sequence[AddedRequest]:
        async def change(connection: AsyncConnection) -> Sequence[AddedRequest]:
            before = await lock_storage(connection, _KIND, queue_id)
            stats = seen(before, client)
            known = await _among(connection, queue_id, [request.id for request in requests], now)
            answers, rows = [], []
            for request in requests:
                present = known.get(request.id)
                answers.append(_answer(request, present))
                if present is None:
                    known[request.id] = request
                    rows.append(_new_row(queue_id, request, stats, forefront=forefront))
            if rows:
                await connection.execute(_INSERT, rows)
                handled = sum(row["handled_at"] is not None for row in rows)
                stats = _counted(stats, total=len(rows), handled=handled, written=len(rows))
                await note_change(connection, queue_id, stats, now)
            elif stats != before:
                await note_stats(connection, queue_id, stats)
            return answers

        return await self._database.write(change)

    async def request(self, queue_id: str, request_id: str, *, now: datetime | None = None) -> QueuedRequest | None:
        async def look(connection: AsyncConnection) -> Row[*tuple[Any, ...]] | None:
            return (await connection.execute(_REQUEST, {"of_queue": queue_id, "of_request": request_id})).first()

        row = await self._database.read(look)
        if row is None:
            raise not_found(_KIND)
        return None if row.id is None else _request(row, now or datetime.now(UTC))

    async def put_request(
        self, queue_id: str, request: QueuedRequest, *, forefront: bool, client: str | None, now: datetime
    ) -> AddedRequest:
        async def change(connection: AsyncConnection) -> AddedRequest:
            stats = seen(await lock_storage(connection, _KIND, queue_id), client)
            old = await _held(connection, queue_id, request.id)
            row = _new_row(queue_id, request, stats, forefront=forefront, added_no=old.added_no if old else None)
            if old is None:
                await connection.execute(_INSERT, row)
            else:
                await connection.execute(_UPDATE, {**row, "of_queue": queue_id, "of_request": request.id})
            present = _request(old, now) if old else None
            handled = (request.handled_at is not None) - (present is not None and present.handled_at is not None)
            stats = _counted(stats, total=1 if present is None else 0, handled=handled, written=1)
            await note_change(connection, queue_id, stats, now)
            return _answer(request, present)

        return await self._database.write(change)

    async def delete_requests(
        self, queue_id: str, request_ids: Sequence[str], *, client: str | None, now: datetime
    ) -> Sequence[QueuedRequest]:
        async def change(connection: AsyncConnection) -> Sequence[QueuedRequest]:
            before = await lock_storage(connection, _KIND, queue_id)
            stats = seen(before, client)
            gone = await _among(connection, queue_id, request_ids, now)
            for some in _portions(list(gone)):
                await connection.execute(delete(queue_requests).where(_rows.queue_id == queue_id, _rows.id.in_(some)))
            if gone:
                handled = sum(request.handled_at is not None for request in gone.values())
                stats = added(_counted(stats, total=-len(gone), handled=-handled), deleteCount=len(gone))
                await note_change(connection, queue_id, stats, now)
            elif stats != before:
                await note_stats(connection, queue_id, stats)
            return list(gone.values())

        return await self._database.write(change)

    async def list_requests(
        self, queue_id: str, *, after: str | None, limit: int, is_pending: bool, is_locked: bool, now: datetime
    ) -> Sequence[QueuedRequest]:
        """Raises InvalidRequest where *after* is not in the queue (any more)."""
        among = select(*_COLUMNS).where(_rows.queue_id == queue_id).order_by(_rows.added_no).limit(limit)
        if is_pending:
            among = among.where(_rows.handled_at.is_(None))
        if is_locked:
            among = among.where(_rows.lock_expires_at > now)

        async def look(connection: AsyncConnection) -> Sequence[QueuedRequest]:
            await look_at_storage(connection, _KIND, queue_id)
            statement = among
            if after is not None:
                last = await _held(connection, queue_id, after)
                if last is None:
                    raise InvalidRequest(
                        f"The list can't go on after request {after}, which is not in the queue any more: begin anew."
                    )
                statement = among.where(_rows.added_no > last.added_no)
            return [_request(row, now) for row in await connection.execute(statement)]

        return await self._database.read(look)

    async def head(self, queue_id: str, *, limit: int, client: str | None, now: datetime) -> QueueHead:
        head, is_news = await self._look_at_head(queue_id, limit, client, now)
        if is_news:
            await self._database.write(lambda connection: _note_client(connection, queue_id, client))
        return head

    async def lock_head(
        self, queue_id: str, *, limit: int, until: datetime, owner: str, client: str | None, now: datetime
    ) -> QueueHead:
        # Those who poll an empty queue don't take the turn of those who write.
        head, is_news = await self._look_at_head(queue_id, limit, client, now)
        if not head.items and not is_news:
            return head

        async def change(connection: AsyncConnection) -> QueueHead:
            before = await lock_storage(connection, _KIND, queue_id)
            stats = seen(before, client)
            free = [_request(row, now) for row in await _free(connection, queue_id, limit, now)]
            if not free:
                if stats != before:
                    await note_stats(connection, queue_id, stats)
                return replace(head, items=(), has_locked_requests=await _any_locked(connection, queue_id, now))
            for some in _portions([request.id for request in free]):
                taken = update(queue_requests).where(_rows.queue_id == queue_id, _rows.id.in_(some))
                await connection.execute(taken.values(lock_expires_at=until, lock_owner=owner))
            await note_change(connection, queue_id, added(stats, writeCount=len(free)), now)
            return QueueHead(
                items=tuple(replace(request, lock_expires_at=until, lock_owner=owner) for request in free),
                modified_at=now,
                had_multiple_clients=bool(stats.get("hadMultipleClients")),
                has_locked_requests=True,
            )

        return await self._database.write(change)

    async def prolong_lock(
        self, queue_id: str, request_id: str, *, until: datetime, owner: str, forefront: bool, now: datetime
    ) -> None:
        lock = {"lock_expires_at": until, "lock_owner": owner}
        await self._change_lock(queue_id, request_id, lock, owner=owner, forefront=forefront, now=now)

    async def drop_lock(self, queue_id: str, request_id: str, *, owner: str, forefront: bool, now: datetime) -> None:
        await self._change_lock(queue_id, request_id, _UNLOCKED, owner=owner, forefront=forefront, now=now)

    async def unlock_all(self, queue_id: str, *, owner: str, now: datetime) -> int:
        async def change(connection: AsyncConnection) -> int:
            stats = await lock_storage(connection, _KIND, queue_id)
            which = {"of_queue": queue_id, "at": now, "of_owner": owner}
            unlocked = (await connection.execute(_UNLOCK_ALL, {**which, **_UNLOCKED})).rowcount
            if unlocked:
                await note_change(connection, queue_id, stats, now)
            return unlocked

        return await self._database.write(change)

    async def _look_at_head(
        self, queue_id: str, limit: int, client: str | None, now: datetime
    ) -> tuple[QueueHead, bool]:
        """The head as *client* sees it, and whether it is news for the queue that this one asks."""

        async def look(connection: AsyncConnection) -> tuple[QueueHead, bool]:
            before, modified_at = await look_at_storage(connection, _KIND, queue_id)
            stats = seen(before, client)
            head = QueueHead(
                items=tuple(_request(row, now) for row in await _free(connection, queue_id, limit, now)),
                modified_at=modified_at,
                had_multiple_clients=bool(stats.get("hadMultipleClients")),
                has_locked_requests=await _any_locked(connection, queue_id, now),
            )
            return head, stats != before

        return await self._database.read(look)

    async def _change_lock(
        self, queue_id: str, request_id: str, lock: JsonObject, *, owner: str, forefront: bool, now: datetime
    ) -> None:
        async def change(connection: AsyncConnection) -> None:
            stats = await lock_storage(connection, _KIND, queue_id)
            held = await _held(connection, queue_id, request_id)
            if held is None:
                raise RecordNotFound("Request")
            present = _request(held, now)
            # To drop a lock that nobody holds is to repeat oneself, or to come after an update, which drops it too.
            is_dropped = lock is _UNLOCKED and present.lock_owner is None
            if present.lock_owner != owner and not is_dropped:
                raise RequestNotLocked(
                    f"Request {request_id} is not locked by this client (any more): lock the queue's head again."
                )
            is_moved = forefront and present.handled_at is None
            place = {"order_no": _next_place(stats, forefront=True)} if is_moved else {}
            which = {"of_queue": queue_id, "of_request": request_id}
            await connection.execute(_UPDATE, {**which, **lock, **place})
            await note_change(connection, queue_id, added(stats, writeCount=1), now)

        await self._database.write(change)


def seen(stats: JsonObject, client: str | None) -> dict[str, Any]:
    """*stats* after a call of *client*: a second client, or one without a key, is never forgotten."""
    first = stats.get("_client")
    if stats.get("hadMultipleClients"):
        return dict(stats)
    if client is None or first not in {None, client}:
        return {**stats, "hadMultipleClients": True}
    return {**stats, "_client": client}


def _counted(stats: JsonObject, *, total: int, handled: int, written: int = 0) -> dict[str, Any]:
    """*stats* with so many requests more, so many handled ones more, and so many writes more."""
    return added(
        stats,
        totalRequestCount=total,
        handledRequestCount=handled,
        pendingRequestCount=total - handled,
        writeCount=written,
    )


def _next_place(stats: dict[str, Any], *, forefront: bool) -> int:
    """The place behind or before all others, noted in *stats*."""
    return _next(stats, "_front", -1) if forefront else _next(stats, "_back", 1)


def _next(stats: dict[str, Any], name: str, step: int) -> int:
    stats[name] = count(stats, name) + step
    return int(stats[name])


def _new_row(
    queue_id: str, request: QueuedRequest, stats: dict[str, Any], *, forefront: bool, added_no: int | None = None
) -> dict[str, Any]:
    """The row of an unlocked *request* at a new place; its numbers are noted in *stats*."""
    return {
        "queue_id": queue_id,
        "id": request.id,
        "unique_key": request.unique_key,
        "data": request.data,
        "handled_at": request.handled_at,
        "order_no": _next_place(stats, forefront=forefront) if request.handled_at is None else None,
        "added_no": _next(stats, "_added", 1) if added_no is None else added_no,
        **_UNLOCKED,
    }


def _answer(request: QueuedRequest, present: QueuedRequest | None) -> AddedRequest:
    return AddedRequest(
        request_id=request.id,
        unique_key=request.unique_key,
        was_already_present=present is not None,
        was_already_handled=present is not None and present.handled_at is not None,
    )


def _request(row: Row[*tuple[Any, ...]], now: datetime) -> QueuedRequest:
    """The request of a row that begins with ``_COLUMNS``; without a lock that has expired."""
    request = QueuedRequest(**{column.name: value for column, value in zip(_COLUMNS, row, strict=False)})
    if request.lock_expires_at is not None and request.lock_expires_at <= now:
        return replace(request, lock_expires_at=None, lock_owner=None)
    return request


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many as a statement may name."""
    return (ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE))


async def _held(connection: AsyncConnection, queue_id: str, request_id: str) -> Row[*tuple[Any, ...]] | None:
    return (await connection.execute(_HELD, {"of_queue": queue_id, "of_request": request_id})).first()


async def _among(
    connection: AsyncConnection, queue_id: str, ids: Sequence[str], now: datetime
) -> dict[str, QueuedRequest]:
    """Those of *ids* that are in the queue, in the order of *ids*."""
    found: dict[str, QueuedRequest] = {}
    for some in _portions(ids):
        statement = select(*_COLUMNS).where(_rows.queue_id == queue_id, _rows.id.in_(some))
        found |= {row.id: _request(row, now) for row in await connection.execute(statement)}
    return {request_id: found[request_id] for request_id in ids if request_id in found}


async def _free(
    connection: AsyncConnection, queue_id: str, limit: int, now: datetime
) -> Sequence[Row[*tuple[Any, ...]]]:
    return (await connection.execute(_FREE.limit(limit), {"of_queue": queue_id, "at": now})).all()


async def _any_locked(connection: AsyncConnection, queue_id: str, now: datetime) -> bool:
    return (await connection.execute(_ANY_LOCKED, {"of_queue": queue_id, "at": now})).first() is not None


async def _note_client(connection: AsyncConnection, queue_id: str, client: str | None) -> None:
    before = await lock_storage(connection, _KIND, queue_id)
    stats = seen(before, client)
    if stats != before:
        await note_stats(connection, queue_id, stats)
