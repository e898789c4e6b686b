"""
No I/O: what the three kinds of storages hold, and the rules for names and keys in them.

Source: apify-wire.md §4.6 (names, keys), §7 (semantics).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from gateway.core.errors import InvalidRecordKey, InvalidRequest
from gateway.core.model import JsonObject, Storage

MAX_INLINE_RECORD_BYTES = 16 * 1024  # a value up to this size lies in its row: one sync of the disk instead of five
REQUEST_ID_CHARS = 15

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_RECORD_KEY = re.compile(r"[A-Za-z0-9!\-_.'()]{1,256}")


def checked_storage_name(name: str) -> str:
    """*name*, if a storage may be called so. Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "A storage's name has 1 to 63 letters, digits and '-', and begins and ends with a letter or digit.",
            data={"field": "name"},
        )
    return name


def checked_record_key(key: str) -> str:
    """*key*, if a record may have it. Raises InvalidRecordKey; ``.`` and ``..`` would leave their store in URLs."""
    if not _RECORD_KEY.fullmatch(key) or key in {".", ".."}:
        raise InvalidRecordKey(
            "A record's key has 1 to 256 of a-z, A-Z, 0-9 and !-_.'(), and is not '.' or '..'.", data={"field": "key"}
        )
    return key


def request_id(unique_key: str) -> str:
    """The id of a queue's request, which clients compute too. Source: apify-wire.md §3.5."""
    digest = base64.b64encode(hashlib.sha256(unique_key.encode()).digest()).decode()
    return re.sub(r"[+/=]", "", digest)[:REQUEST_ID_CHARS]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValueRecord:
    """
    One record of a key-value store, decoded. Its bytes are *value* where there are few of them, else the blob *blob*;
    *content_type* is as it was given, parameters included.
    """

    store_id: str
    key: str
    content_type: str
    size: int
    modified_at: datetime
    value: bytes | None = None
    blob: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedRequest:
    """
    One request of a queue. *data* is the object as the client gave it, without ``id``; ``uniqueKey``, ``url``,
    ``method`` and ``retryCount`` are read from it. *handled_at* None: it is pending.
    """

    id: str
    unique_key: str
    data: JsonObject
    handled_at: datetime | None = None
    lock_expires_at: datetime | None = None
    lock_owner: str | None = None

    def as_api_object(self) -> dict[str, Any]:
        """The request as the API shows it."""
        return {**self.data, "id": self.id}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedRequest:
    """What became of one request that was added or updated; *was_already_handled* is the state before."""

    request_id: str
    unique_key: str
    was_already_present: bool
    was_already_handled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHead:
    """The first pending requests that nobody has locked, or those that were just locked for the caller."""

    items: tuple[QueuedRequest, ...] = ()
    modified_at: datetime
    had_multiple_clients: bool = False
    has_locked_requests: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPage:
    """Some items of a dataset, each as its JSON text, and how many there are in all."""

    items: tuple[str, ...] = ()
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPage:
    """Some keys of a store, in the order of their UTF-8 bytes; *is_truncated*: more would follow."""

    items: tuple[KeyValueRecord, ...] = ()
    is_truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageChanges:
    """What a caller changes about a storage; absent keys of *fields* (``name``, ``title``, ``general_access``) stay."""

    fields: JsonObject = field(default_factory=dict)


def shown_stats(stats: JsonObject) -> dict[str, Any]:
    """What the API shows of a storage's ``stats``: names that begin with ``_`` are the adapter's own notes."""
    return {name: value for name, value in stats.items() if not name.startswith("_")}


def holding(storage: Storage, contents: Iterable[KeyValueRecord]) -> Storage:
    """A new *storage* whose ``stats`` count those of *contents* that lie in it."""
    sizes = [record.size for record in contents if record.store_id == storage.id]
    if not sizes:
        return storage
    return replace(storage, stats={**storage.stats, "writeCount": len(sizes), "storageBytes": sum(sizes)})
