"""
A dataset's items as an answer, page by page, so that it is never wholly in memory.

The number of items is taken once, at the start; those that are pushed meanwhile are not in the answer. A page has as
many items as make about ``_PAGE_BYTES`` by the dataset's average, at most ``_PAGE_ITEMS``. Formats with columns read
the pages twice, a workbook is put together in temporary files.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import IO

from gateway.api.item_query import ItemsQuery
from gateway.api.item_workbook import Workbook
from gateway.core.item_formats import BOM, JsonLinesWriter, JsonWriter, Writer
from gateway.core.item_tables import Columns
from gateway.core.item_view import Row
from gateway.core.model import Storage
from gateway.state.storage_ports import Storages

_PAGE_ITEMS = 1000
_PAGE_BYTES = 4 * 1024 * 1024
_CHUNK_CHARS = 128 * 1024
_FILE_CHUNK_BYTES = 256 * 1024

Texts = tuple[str, ...]


class ItemPages:
    """The items that a call asks for: *count* of the dataset's *total*; can be gone through several times."""

    def __init__(self, storages: Storages, dataset_id: str, asked: ItemsQuery, page_items: int) -> None:
        self._storages = storages
        self._dataset_id = dataset_id
        self._asked = asked
        self._page_items = page_items
        self._first: Texts = ()
        self.total = self.count = 0

    @classmethod
    async def open(cls, storages: Storages, dataset: Storage, asked: ItemsQuery) -> ItemPages:
        """With the first page read. Raises RecordNotFound where the dataset is gone."""
        pages = cls(storages, dataset.id, asked, _items_of_a_page(dataset))
        limit = pages._page_items if asked.limit is None else min(asked.limit, pages._page_items)
        found = await storages.items(dataset.id, offset=asked.offset, limit=limit, desc=asked.desc)
        pages._first = found.items
        pages.total = found.total
        left = max(0, found.total - asked.offset)
        pages.count = left if asked.limit is None else min(left, asked.limit)
        return pages

    @property
    def is_one(self) -> bool:
        """Whether the first page is all."""
        return len(self._first) >= self.count

    async def pages(self) -> AsyncIterator[Texts]:
        """The pages, each item as its JSON text."""
        yield self._first
        done = len(self._first)
        while done < self.count:
            limit = min(self._page_items, self.count - done)
            skipped = self._asked.offset + done
            # Counted from the beginning in both directions: from the end, a push meanwhile would shift them.
            start = self.total - skipped - limit if self._asked.desc else skipped
            found = await self._storages.items(self._dataset_id, offset=start, limit=limit, desc=False)
            if not found.items:
                return
            yield found.items[::-1] if self._asked.desc else found.items
            done += len(found.items)

    async def columns(self) -> tuple[str, ...]:
        """The columns of all rows. Raises TooManyColumns."""
        columns = Columns(self._asked.view.shown_fields)
        async for page in self.pages():
            await asyncio.to_thread(columns.see, self._rows(page))
        return columns.names()

    async def written(self, writer: Writer) -> AsyncIterator[bytes]:
        """All that *writer* makes of them."""
        yield ((BOM if self._asked.has_bom else "") + writer.head()).encode()
        async for page in self.pages():
            if self._asked.view.is_plain and isinstance(writer, JsonWriter | JsonLinesWriter):
                yield "".join(writer.texts(page)).encode()
                continue
            pieces = iter(writer.rows(self._rows(page)))
            while chunk := await asyncio.to_thread(_next_chunk, pieces):
                yield chunk
        yield writer.tail().encode()

    async def workbook(self) -> AsyncIterator[bytes]:
        """As a workbook, whole before its first byte goes out. Raises TooManyColumns, TooManyRows."""
        columns = await self.columns()
        with Workbook(columns, has_header=self._asked.has_header) as workbook:
            async for page in self.pages():
                await asyncio.to_thread(workbook.add, self._rows(page))
            file = await asyncio.to_thread(workbook.finish)
        return _read(file)

    def _rows(self, page: Texts) -> Iterator[Row]:
        return self._asked.view.rows(map(json.loads, page))


def _items_of_a_page(dataset: Storage) -> int:
    count, size = dataset.stats.get("itemCount", 0), dataset.stats.get("storageBytes", 0)
    average = max(1, size // count) if count else 1
    return int(max(1, min(_PAGE_ITEMS, _PAGE_BYTES // average)))


def _next_chunk(pieces: Iterator[str]) -> bytes:
    """Some of *pieces*; nothing once there are none."""
    return "".join(_some(pieces)).encode()


def _some(pieces: Iterator[str]) -> Iterable[str]:
    chars = 0
    for piece in pieces:
        yield piece
        chars += len(piece)
        if chars >= _CHUNK_CHARS:
            return


async def _read(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while chunk := await asyncio.to_thread(file.read, _FILE_CHUNK_BYTES):
            yield chunk
