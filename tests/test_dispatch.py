"""Which protocol a connection gets: by its first bytes, however they come, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from http2.rig import GET, LIMIT_SECS, Call, Server, client_of, serving, until
from hyperframe.frame import SettingsFrame

from gateway.dispatch import PREFACE

HTTP1 = b"GET /one HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n"


async def say_version(call: Call) -> None:
    """Answers with the version of HTTP that it was asked in."""
    await call.body()
    version = call.scope["http_version"].encode()
    await call.answer(version, headers=[(b"content-length", b"%d" % len(version))])


async def exchange(server: Server, pieces: Sequence[bytes]) -> bytes:
    """All that is answered to *pieces*, which come one by one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.get_extra_info("socket").setsockopt(6, 1, 1)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(LIMIT_SECS):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("cut", range(len(PREFACE) + 1))
async def test_the_preface_is_known_wherever_it_is_cut(cut: int) -> None:
    """At each of its bytes."""
    async with serving(say_version) as server, client_of(server.port, says_hello=False) as client:
        client.send(PREFACE[:cut])
        await until(lambda: server.state.connections)
        await asyncio.sleep(0)
        client.send(PREFACE[cut:], SettingsFrame(0), client.head(GET))
        assert (await client.answer()).body == b"2"


async def test_the_preface_and_a_request_in_one_piece() -> None:
    """As clients send them."""
    async with serving(say_version) as server, client_of(server.port, says_hello=False) as client:
        client.send(PREFACE + SettingsFrame(0).serialize() + client.head(GET).serialize())
        assert (await client.answer()).body == b"2"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([HTTP1], id="in one piece"),
        pytest.param([bytes([byte]) for byte in HTTP1], id="byte by byte"),
        pytest.param([b"P", HTTP1.replace(b"GET", b"OST")], id="POST after P"),
        pytest.param([b"PR", HTTP1.replace(b"GET", b"OPFIND")], id="PROPFIND after PR"),
        pytest.param(
            [HTTP1.replace(b"close", b"Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
                           b"Connection: close")],
            id="an upgrade to HTTP/2 is ignored",
        ),
    ],
)  # fmt: skip
async def test_all_else_is_http1(pieces: list[bytes]) -> None:
    """Also where it begins as the preface does."""
    async with serving(say_version) as server:
        answer = await exchange(server, pieces)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n1.1")


@pytest.mark.parametrize("preface", [PREFACE[:-1] + b"x", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"])
async def test_what_is_nearly_the_preface_is_refused(preface: bytes) -> None:
    """By HTTP/1.1, of which it is none."""
    async with serving(say_version) as server:
        assert (await exchange(server, [preface])).startswith(b"HTTP/1.1 505 ")
        assert server.app.calls == []


async def test_without_http2_the_preface_is_no_request() -> None:
    """Where it is switched off."""
    async with serving(say_version, http2=False) as server:
        assert (await exchange(server, [PREFACE])).startswith(b"HTTP/1.1 505 ")
        assert (await exchange(server, [HTTP1])).endswith(b"1.1")


@pytest.mark.parametrize("said", [b"", PREFACE[:10]])
async def test_a_client_that_leaves_before_anything_is_sure_is_forgotten(said: bytes) -> None:
    """Nothing is left of it."""
    async with serving(say_version) as server:
        async with client_of(server.port, says_hello=False) as client:
            client.send(said)
            await until(lambda: server.state.connections)
        await server.empty()
        assert server.app.calls == []


async def test_one_connection_counts_once() -> None:
    """Whichever protocol it changes to; the server waits for it when it ends."""
    async with serving(say_version) as server, client_of(server.port, says_hello=False) as client:
        await until(lambda: len(server.state.connections) == 1)
        (first,) = server.state.connections
        client.send(PREFACE, SettingsFrame(0))
        await client.wait(lambda: client.frames)
        (second,) = server.state.connections
        assert first is not second
