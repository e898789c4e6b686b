"""A web site of numbered pages on this machine, which counts how often each was asked for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PAGES = 200


@dataclass
class Site:
    """``url`` is the first page; from it all others can be reached, most of them by several links."""

    url: str
    hits: Counter[int] = field(default_factory=Counter)
    reached: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def urls(self) -> set[str]:
        """The addresses of all pages."""
        return {f"{self.url.rpartition('/')[0]}/{number}" for number in range(1, PAGES + 1)}

    async def wait_for_pages(self, count: int, within_secs: float) -> None:
        """Until so many different pages have been asked for."""
        async with asyncio.timeout(within_secs), self.reached:
            await self.reached.wait_for(lambda: len(self.hits) >= count)


@asynccontextmanager
async def serve_site(delay_secs: float = 0.0) -> AsyncIterator[Site]:
    """The site, at a free port of 127.0.0.1; each page takes *delay_secs*."""
    site = Site("")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            number = int(head.split(b" ", 2)[1].strip(b"/"))
            await asyncio.sleep(delay_secs)
            links = "".join(f'<a href="/{n}">{n}</a>\n' for n in _linked_from(number))
            body = f"<!doctype html><title>Page {number}</title>\n{links}".encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close\r\n"
                + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            await writer.drain()
            async with site.reached:
                site.hits[number] += 1
                site.reached.notify_all()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/1"
        yield site


def _linked_from(number: int) -> list[int]:
    """Two pages below, the one above, the next one, and the first: in all a site with many ways to each page."""
    return [n for n in (2 * number, 2 * number + 1, number // 2, number + 1, 1) if 1 <= n <= PAGES]
