"""Bodies: bounded before and after their encoding is undone, whatever sizes they arrive in."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from random import Random

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from gateway.api.body import parse_object, pieces, read_body
from gateway.api.errors import UnsupportedContentEncoding
from gateway.core.errors import InvalidRequest, RequestTooLarge


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


ENCODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "none": ("", bytes),
    "identity": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "gzip in any case": ("GZip", gzip.compress),
    "gzip of two members": ("gzip", lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:])),
    "deflate with the zlib head": ("deflate", zlib.compress),
    "deflate without it": ("deflate", _raw_deflate),
    "brotli": ("br", brotli.compress),
}


def request_of(chunks: list[bytes], encoding: str = "", length: int | None = None) -> Request:
    """A request whose body arrives as *chunks*."""
    headers = [(b"content-encoding", encoding.encode())] if encoding else []
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("kind", ENCODINGS)
@given(data=st.binary(max_size=2000), size=st.integers(1, 700))
async def test_decoded_as_sent(kind: str, data: bytes, size: int) -> None:
    """What was encoded comes out again, however it was cut on its way."""
    encoding, encode = ENCODINGS[kind]
    assert await read_body(request_of(cut(encode(data), size), encoding), 4000) == data


@pytest.mark.parametrize("kind", ENCODINGS)
async def test_the_bound_is_exact(kind: str) -> None:
    """Exactly the bound is taken, one byte more is refused."""
    encoding, encode = ENCODINGS[kind]
    assert len(await read_body(request_of([encode(b"a" * 1000)], encoding), 1000)) == 1000
    with pytest.raises(RequestTooLarge):
        await read_body(request_of([encode(b"a" * 1001)], encoding), 1000)


@pytest.mark.parametrize("kind", ["gzip", "deflate with the zlib head", "deflate without it", "brotli"])
async def test_bombs_cost_no_more_than_the_bound(kind: str) -> None:
    """A few kilobytes that unpack to 64 MiB are refused without being unpacked."""
    import tracemalloc

    encoding, encode = ENCODINGS[kind]
    bomb = encode(b"\0" * 64 * 1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            await read_body(request_of([bomb], encoding), 10_000)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


async def test_a_declared_length_is_refused_at_once() -> None:
    """A body that says it is too large is not read."""
    with pytest.raises(RequestTooLarge):
        await read_body(request_of([], length=5000), 1000)


@pytest.mark.parametrize("encoding", ["zstd", "compress", "gzip, br", "nonsense"])
async def test_other_encodings(encoding: str) -> None:
    """An encoding that can't be undone is 415, with those that can in the message."""
    with pytest.raises(UnsupportedContentEncoding, match="gzip"):
        await read_body(request_of([b"x"], encoding), 1000)


@pytest.mark.parametrize("kind", ["gzip", "deflate with the zlib head", "brotli"])
async def test_a_body_cut_short(kind: str) -> None:
    """An encoded body that ends too early is not taken for a whole one."""
    encoding, encode = ENCODINGS[kind]
    whole = encode(bytes(range(256)) * 8)
    with pytest.raises(InvalidRequest):
        await read_body(request_of([whole[:-5]], encoding), 10_000)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
async def test_a_body_that_is_not_what_it_says(encoding: str) -> None:
    """Plain JSON under a false name is told as such."""
    with pytest.raises(InvalidRequest):
        await read_body(request_of([b'{"name": "hello"}'], encoding), 10_000)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"{", id="cut"),
        pytest.param(b"[1]", id="a list"),
        pytest.param(b'"x"', id="a text"),
        pytest.param(b'{"x": NaN}', id="no number"),
        pytest.param(b'{"x": 1e999}', id="more than any number"),
        pytest.param(b'{"x": ' + b"9" * 5000 + b"}", id="too many digits"),
        pytest.param(b'{"x": "\\ud800"}', id="half a character"),
        pytest.param(b'{"x": "\xff"}', id="not UTF-8"),
        pytest.param(b'{"x": ' * 100_000, id="too deep"),
        pytest.param(b"\0\0\0", id="zeros"),
    ],
)
def test_no_json_object(raw: bytes) -> None:
    """What is no JSON object that could be stored and given back is a 400."""
    with pytest.raises(InvalidRequest):
        parse_object(raw)


@pytest.mark.parametrize("raw", [b"", b"  \n"])
def test_no_body_is_an_empty_object(raw: bytes) -> None:
    """Clients leave out a body that would be empty."""
    assert parse_object(raw).values == {}


PACKED = [kind for kind in ENCODINGS if ENCODINGS[kind][0] not in ("", "identity")]


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("size", [1, 2**18 - 1, 2**18, 2**18 + 1, 2**20, 4_800_000])
@pytest.mark.parametrize("is_dense", [True, False], ids=["dense", "sparse"])
async def test_unpacked_in_small_parts(kind: str, size: int, is_dense: bool) -> None:
    """However much a small body unpacks to, it never lies in memory as a whole; nor is any of it lost."""
    encoding, encode = ENCODINGS[kind]
    data = Random(size).randbytes(size) if is_dense else b"0" * size
    found = [piece async for piece in pieces(request_of(cut(encode(data), 65_536), encoding), 2 * size + 100)]
    assert b"".join(found) == data
    assert max(map(len, found)) <= 768 * 1024


@pytest.mark.parametrize("kind", PACKED)
async def test_what_comes_after_the_end(kind: str) -> None:
    """What follows a complete encoding is either refused or of no effect; it never hangs or becomes a 5xx."""
    encoding, encode = ENCODINGS[kind]
    data = b"0" * 2**18
    try:
        found = await read_body(request_of([encode(data), b"more", b"and more"], encoding), 2**20)
    except InvalidRequest:
        return
    assert found == data
