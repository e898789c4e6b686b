"""The official Python client, over a real server, reads back what it wrote to stores and datasets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import uvicorn
from apify_client import ApifyClientAsync
from apify_client.errors import InvalidRequestError


@pytest.fixture
async def url(api: Any, until: Any) -> AsyncIterator[str]:
    """The app under uvicorn on a free port."""
    server = uvicorn.Server(uvicorn.Config(api.app, log_level="error", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server._serve([listener]))
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


@pytest.fixture
def client(bob: Any, url: str) -> ApifyClientAsync:
    """The official client with bob's token."""
    return ApifyClientAsync(token=bob.token, api_url=url, api_public_url=url, max_retries=0)


@pytest.mark.parametrize(
    ("value", "content_type"),
    [
        pytest.param({"a": [1, None, "ž"]}, None, id="JSON"),
        pytest.param(None, None, id="null"),
        pytest.param("text ž", None, id="text"),
        pytest.param("t" * 50_000, None, id="a compressed text"),
        pytest.param(b"\x00\xff", "image/png", id="few bytes"),
        pytest.param(os.urandom(100_000), "application/octet-stream", id="many bytes"),
    ],
)
async def test_records(client: Any, value: Any, content_type: str | None) -> None:
    """A value of any kind, its existence, its key and its end."""
    store = client.key_value_store((await client.key_value_stores().get_or_create(name="things")).id)
    await store.set_record("k", value, content_type=content_type)
    record = await store.get_record("k")
    assert record["value"] == value
    assert content_type is None or record["content_type"] == content_type
    assert await store.record_exists("k")
    assert [item.key for item in (await store.list_keys()).items] == ["k"]
    await store.delete_record("k")
    assert not await store.record_exists("k")
    assert await store.get_record("k") is None


async def test_streamed_record(client: Any) -> None:
    """A value is read as a stream, too."""
    store = client.key_value_store((await client.key_value_stores().get_or_create()).id)
    value = os.urandom(300_000)
    await store.set_record("k", value)
    async with store.stream_record("k") as record:
        assert await record["value"].aread() == value


async def test_keys_are_iterated(client: Any) -> None:
    """The client's own way through the pages of keys ends, and finds each key once."""
    store = client.key_value_store((await client.key_value_stores().get_or_create()).id)
    names = [f"key-{number:02}" for number in range(25)]
    for name in names:
        await store.set_record(name, name)
    assert [item.key async for item in store.iterate_keys()] == names


async def test_items(client: Any) -> None:
    """Items are pushed, listed in pages, iterated, downloaded and counted."""
    dataset = client.dataset((await client.datasets().get_or_create(name="things")).id)
    items = [{"n": n, "#hidden": True, "text": "x" * 100} for n in range(100)]
    await dataset.push_items(items)
    await dataset.push_items({"n": 100})
    page = await dataset.list_items(offset=99, limit=5, clean=True)
    assert (page.items, page.total, page.offset, page.count, page.limit, page.desc) == (
        [{"n": 99, "text": "x" * 100}, {"n": 100}],
        101,
        99,
        2,
        5,
        False,
    )
    assert [item["n"] async for item in dataset.iterate_items(desc=True)] == list(range(100, -1, -1))
    rows = (await dataset.get_items_as_bytes(item_format="csv", fields=["n"])).decode("utf-8-sig").split()
    assert rows == ["n", *map(str, range(101))]
    assert (await dataset.get()).item_count == 101


async def test_items_that_are_none(client: Any) -> None:
    """The client tells its caller what was wrong."""
    dataset = client.dataset((await client.datasets().get_or_create()).id)
    with pytest.raises(InvalidRequestError, match="position 1"):
        await dataset.push_items([{"n": 1}, 2])


@pytest.mark.parametrize("expires_in", [None, timedelta(days=1)], ids=["for ever", "for a day"])
async def test_public_urls(client: Any, expires_in: timedelta | None) -> None:
    """The addresses that the client signs by itself work without a token."""
    store = client.key_value_store((await client.key_value_stores().get_or_create()).id)
    dataset = client.dataset((await client.datasets().get_or_create()).id)
    await store.set_record("k", "value")
    await dataset.push_items({"n": 1})
    async with httpx.AsyncClient() as http:
        record = await http.get(await store.get_record_public_url("k"))
        keys = await http.get(await store.create_keys_public_url(expires_in=expires_in))
        items = await http.get(await dataset.create_items_public_url(expires_in=expires_in))
    assert (record.status_code, record.text) == (200, "value")
    assert (keys.status_code, keys.json()["data"]["items"][0]["key"]) == (200, "k")
    assert (items.status_code, items.json()) == (200, [{"n": 1}])


@pytest.mark.parametrize("framing", ["Content-Length: 200000", "Transfer-Encoding: chunked"], ids=["length", "chunked"])
async def test_upload_that_is_cut_off(
    api: Any, bob: Any, client: Any, url: str, until: Any, monkeypatch: Any, framing: str
) -> None:
    """Of a body whose sender goes away in the middle nothing is stored, neither row nor bytes."""
    store = await client.key_value_stores().get_or_create()
    await client.key_value_store(store.id).set_record("k", "before")
    begun, ended = asyncio.Event(), asyncio.Event()
    put = type(api.services.state.blobs).put

    async def noting_put(blobs: Any, key: str, chunks: Any) -> None:
        begun.set()
        try:
            await put(blobs, key, chunks)
        finally:
            ended.set()

    monkeypatch.setattr(type(api.services.state.blobs), "put", noting_put)
    host, port = url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    part = b"x" * 100_000
    writer.write(
        f"PUT /v2/key-value-stores/{store.id}/records/k HTTP/1.1\r\nHost: api.localhost\r\n"
        f"Authorization: Bearer {bob.token}\r\nContent-Type: text/plain\r\n{framing}\r\n\r\n".encode()
    )
    writer.write(part if "Length" in framing else b"%x\r\n%s\r\n" % (len(part), part))
    async with asyncio.timeout(10):
        await begun.wait()
        writer.close()
        await ended.wait()
    assert (await client.key_value_store(store.id).get_record("k"))["value"] == "before"
    folder = api.services.settings.data / "blobs" / "key-value-stores"
    assert not folder.exists() or not any(path.is_file() for path in folder.rglob("*"))
