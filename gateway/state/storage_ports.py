"""
The port of the storages: their metadata, records of key-value stores, items of datasets, requests of queues.

Same promises as ``Records``: durable when answered, and a change is made whole or not at all, in one write. A method
that names a storage which is not there (any more) raises RecordNotFound. Values above
``MAX_INLINE_RECORD_BYTES`` are blobs, which the caller writes before and deletes after the row that names them.
``now`` is aware UTC. ``client`` is the ``clientKey`` of a queue's client, None where it sent none: two different ones,
or none, make ``hadMultipleClients`` true for ever. ``owner`` of a lock is a client key together with the run, if any,
whose token was used; only who holds a lock may prolong or drop it.

Storage.stats holds, as the API names them: for datasets ``itemCount``, ``cleanItemCount``, ``storageBytes``,
``writeCount``; for queues ``totalRequestCount``, ``handledRequestCount``, ``pendingRequestCount``,
``hadMultipleClients``, ``writeCount`` (requests stored, locked and changed), ``deleteCount``; for key-value stores
``writeCount``, ``deleteCount``, ``storageBytes``. Absent is 0 or false.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from gateway.core.model import Page, Storage, StorageKind
from gateway.core.storages import (
    AddedRequest,
    DatasetPage,
    KeyPage,
    KeyValueRecord,
    QueuedRequest,
    QueueHead,
    StorageChanges,
)
from gateway.state.ports import Listing


class Storages(Protocol):
    """See the module."""

    # All kinds

    async def get_or_create(self, storage: Storage) -> tuple[Storage, bool]:
        """
        The user's storage of this kind and name, made of *storage* where there is none; whether it was made.

        Names are unique for user and kind in any letter case. One without a name is always made.
        """
        ...

    async def storage(self, kind: StorageKind, storage_id: str) -> Storage | None: ...
    async def storage_by_name(self, user_id: str, kind: StorageKind, name: str) -> Storage | None: ...

    async def list_storages(self, user_id: str, kind: StorageKind, *, unnamed: bool, page: Page) -> Listing[Storage]:
        """Named ones; with *unnamed* all of them. In order of creation."""
        ...

    async def change_storage(
        self, kind: StorageKind, storage_id: str, changes: StorageChanges, now: datetime
    ) -> Storage:
        """Raises NameNotUnique where the name is taken."""
        ...

    async def delete_storage(self, kind: StorageKind, storage_id: str) -> Sequence[str]:
        """
        With all that it holds; the blobs that nothing names any more. Raises RecordNotFound.

        One that holds much goes in several writes, its own record with the last; what is cut off can be done again.
        """
        ...

    # Key-value stores

    async def put_record(self, record: KeyValueRecord) -> str | None:
        """Store or replace it; the blob that nothing names any more."""
        ...

    async def record(self, store_id: str, key: str) -> KeyValueRecord | None: ...

    async def delete_record(self, store_id: str, key: str, now: datetime) -> str | None:
        """The blob that nothing names any more; deleting what is not there is fine."""
        ...

    async def list_keys(self, store_id: str, *, after: str | None, prefix: str, limit: int) -> KeyPage:
        """The keys after *after* (excluded) that begin with *prefix*; the records come without their values."""
        ...

    # Datasets

    async def push_items(
        self, dataset_id: str, items: Sequence[str], *, clean_count: int, now: datetime, push_id: str, digest: str
    ) -> bool:
        """
        Append *items*, each the JSON text of an object, in this order, under this push's fresh *push_id*.

        Clients repeat a push whose answer they never saw. So a push is remembered, in the same write, until
        ``push_was_answered``; one with the same *digest* (of all that was sent) as a remembered push of another process
        may be its repetition. It waits for some seconds, in which a living process forgets what it has answered. What
        is still remembered then was never answered, and this is its repetition: nothing is stored, the answer is False,
        and it is forgotten. Within one process a push is never taken for another's repetition.
        """
        ...

    def push_was_answered(self, push_id: str) -> None:
        """Its answer has gone out: forget it with the next write, or within a second."""
        ...

    async def flush_answered(self) -> None:
        """Forget those pushes now; for the gateway's background work, often. Costs nothing without any."""
        ...

    async def items(self, dataset_id: str, *, offset: int, limit: int | None, desc: bool) -> DatasetPage:
        """*offset* counts from the end where *desc* is set. Cost: that of the items asked for."""
        ...

    # Request queues

    async def add_requests(
        self, queue_id: str, requests: Sequence[QueuedRequest], *, forefront: bool, client: str | None, now: datetime
    ) -> Sequence[AddedRequest]:
        """
        Add each that is new by its id (a second one with the same id in one call is present already), all in one write.

        In front, later ones stand before earlier ones. A request that comes with ``handled_at`` is stored as handled.
        """
        ...

    async def request(self, queue_id: str, request_id: str, *, now: datetime | None = None) -> QueuedRequest | None:
        """An expired lock is not shown; *now* None is the present time."""
        ...

    async def put_request(
        self, queue_id: str, request: QueuedRequest, *, forefront: bool, client: str | None, now: datetime
    ) -> AddedRequest:
        """
        Replace the whole request, or insert it; its lock is dropped. Handled: it leaves the pending ones. Not handled:
        it goes to the end or, with *forefront*, the front of the pending ones, for whoever asks next.
        """
        ...

    async def delete_requests(
        self, queue_id: str, request_ids: Sequence[str], *, client: str | None, now: datetime
    ) -> Sequence[QueuedRequest]:
        """Those that were there."""
        ...

    async def list_requests(
        self, queue_id: str, *, after: str | None, limit: int, is_pending: bool, is_locked: bool, now: datetime
    ) -> Sequence[QueuedRequest]:
        """In the order in which they were first added, after the request *after*; with the filters only such."""
        ...

    async def head(self, queue_id: str, *, limit: int, client: str | None, now: datetime) -> QueueHead:
        """The first pending requests without a lock, in order."""
        ...

    async def lock_head(
        self, queue_id: str, *, limit: int, until: datetime, owner: str, client: str | None, now: datetime
    ) -> QueueHead:
        """The same, locked for *owner* until *until* in the same write; a call that finds none writes nothing."""
        ...

    async def prolong_lock(
        self, queue_id: str, request_id: str, *, until: datetime, owner: str, forefront: bool, now: datetime
    ) -> None:
        """Raises RecordNotFound for no such request, RequestNotLocked where *owner* does not hold it."""
        ...

    async def drop_lock(self, queue_id: str, request_id: str, *, owner: str, forefront: bool, now: datetime) -> None:
        """
        As ``prolong_lock``, but one that nobody holds is fine; the request is free at once, at its old place or, with
        *forefront*, in front.
        """
        ...

    async def unlock_all(self, queue_id: str, *, owner: str, now: datetime) -> int:
        """Free all that *owner* holds; how many."""
        ...
