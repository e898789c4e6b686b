"""Requests that nobody would write by hand: valid by construction, or mutated; and how a strict reader reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st
from proxy.suite.wire import Broken, Ended, Headers, Message, Reading, body_of, head_of

# What a gateway takes away or sets itself; names with underscores are taken for those with dashes.
_NOT_END_TO_END = re.compile(
    rb"host|connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|content-length|via|forwarded|x-forwarded-.*"
    rb"|x-actor-request-id|x-apify-.*|http2-settings|expect|sec-websocket-.*|authorization|referer"
)
_TOKEN = b"!#$%&'*+-.^`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TARGET = bytes(code for code in range(0x21, 0x7F) if code != ord("#"))
_VALUE = bytes([*range(0x21, 0x7F), *range(0x80, 0x100), 0x20, 0x09])

KNOWN_METHODS = (b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"PROPFIND")
OWN_METHODS = (b"BREW", b"M-SEARCH", b"X" * 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What one request says from end to end."""

    method: bytes
    target: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def texts(alphabet: bytes, *, min_size: int = 0, max_size: int = 20) -> st.SearchStrategy[bytes]:
    """Bytes of *alphabet*."""
    return st.lists(st.sampled_from(sorted(alphabet)), min_size=min_size, max_size=max_size).map(bytes)


@st.composite
def framed_bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A framing header (or none) and the bytes of the body as framed by it."""
    kind = draw(st.sampled_from(("none", "length", "chunked", "chunked")))
    if kind == "none":
        return b"", b""
    data = draw(st.binary(max_size=60) | st.just(b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"))
    if kind == "length":
        zeros = draw(st.sampled_from((b"", b"0", b"000")))
        return b"Content-Length: %s%d" % (zeros, len(data)), data
    framed, at = [], 0
    while at < len(data):
        piece = data[at : at + draw(st.integers(1, 40))]
        at += len(piece)
        size = draw(st.sampled_from((b"%x", b"%X", b"0%x", b"000%x"))) % len(piece)
        extension = draw(st.sampled_from((b"", b"", b";x", b";x=y", b';x="a;b"')))
        framed += [size, extension, b"\r\n", piece, b"\r\n"]
    trailers = draw(st.sampled_from((b"", b"", b"X-Sum: abc\r\n", b"X-A: b\r\nX-B:\r\n")))
    framed += [draw(st.sampled_from((b"0", b"00"))), b"\r\n", trailers, b"\r\n"]
    coding = draw(st.sampled_from((b"chunked", b"Chunked", b"CHUNKED")))
    return b"Transfer-Encoding: " + coding, b"".join(framed)


@st.composite
def valid_requests(draw: st.DrawFn, *, methods: tuple[bytes, ...]) -> bytes:
    """One request that must pass, with ``@HOST@`` for the host."""
    method = draw(st.sampled_from(methods))
    target = b"/" + draw(texts(_TARGET))
    framing, body = draw(framed_bodies())
    lines = [b"Host: @HOST@"]
    for _ in range(draw(st.integers(0, 5))):
        name = b"X-" + draw(texts(_TOKEN, max_size=8))
        value = draw(texts(_VALUE)).strip(b" \t")
        lines.append(
            name + b":" + draw(st.sampled_from((b" ", b"", b"  ", b"\t"))) + value + draw(st.sampled_from((b"", b" ")))
        )
    lines += draw(
        st.lists(
            st.sampled_from(
                (
                    b"Connection: keep-alive",
                    b"Connection: x-gone",
                    b"X-Gone: 1",
                    b"Accept: */*",
                    b"Cookie: a=1",
                    b"TE: trailers",
                )
            ),
            max_size=3,
        )
    )
    if framing:
        lines.append(framing)
    lines = draw(st.permutations(lines))
    before = draw(st.sampled_from((b"", b"", b"", b"\r\n")))
    return (
        before + method + b" " + target + b" HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    )


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """*data* with some bytes, lines or words of it changed, taken away, doubled or put in."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("byte", "drop", "put", "double", "line"))):
            case "byte":
                data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
            case "drop":
                data = data[:at] + data[at + draw(st.integers(1, 4)) :]
            case "put":
                data = data[:at] + draw(st.sampled_from(_NASTY)) + data[at:]
            case "double":
                data = data[:at] + data[max(0, at - draw(st.integers(1, 20))) :]
            case _:
                lines = data.split(b"\r\n")
                place = draw(st.integers(0, len(lines)))
                data = b"\r\n".join([*lines[:place], draw(st.sampled_from(_NASTY_LINES)), *lines[place:]])
    return data


_NASTY = (
    b"\r", b"\n", b"\r\n", b"\x00", b" ", b"\t", b":", b"\x0b", b"\x7f", b"\xe4", b"\r\n\r\n", b"0\r\n\r\n", b"\n\n",
    b" \r\n", b"\r\n ",
    b"5;", b"#", b"GET / HTTP/1.1\r\nHost: @HOST@\r\n\r\n",
)  # fmt: skip
_NASTY_LINES = (
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: +5", b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding:\tchunked", b"Content-Length:", b" folded", b"Host: localhost", b"Host: @HOST@",
    b"Transfer-Encoding : chunked",
    b"Connection: close", b"Connection: content-length, transfer-encoding", b"Upgrade: h2c", b"Expect: 100-continue",
    b"0", b"5", b"",
    b"Content_Length: 5", b"Content-Length: 5, 5", b"X", b": x",
)  # fmt: skip


def readings(data: bytes) -> Iterator[Meaning]:
    """Whole requests in *data*, one after the other, as far as a strict reader gets."""
    buffer = bytearray(data)
    while buffer:
        try:
            head = _read(head_of(buffer, is_answer=False, skips_empty_lines=True))
            message = _read(body_of(buffer, head, allows_extensions=True))
        except (Broken, Ended):
            return
        if not message.is_whole:
            return
        yield meaning_of(message)


def meaning_of(message: Message) -> Meaning:
    """What *message* says, without what is between it and the next hop."""
    return Meaning(
        method=message.method,
        target=_origin_form(message.target),
        body=message.body,
        headers=_end_to_end(message.headers),
    )


def _read(reading: Reading) -> Message:
    try:
        next(reading)
        reading.throw(Ended())
    except StopIteration as done:
        message: Message = done.value
        return message
    raise Broken("it went on")


def _origin_form(target: bytes) -> bytes:
    match = re.fullmatch(rb"(?i:https?)://[^/?#]+(.*)", target, re.DOTALL)
    if match is None:
        return target
    return match[1] if match[1].startswith(b"/") else b"/" + match[1]


def _end_to_end(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    named = {
        option.strip(b" \t").lower()
        for name, value in headers
        if name.lower() == b"connection"
        for option in value.split(b",")
    }
    return tuple(
        (name.lower(), value)
        for name, value in headers
        if name.lower() not in named and not _NOT_END_TO_END.fullmatch(name.lower().replace(b"_", b"-"))
    )
