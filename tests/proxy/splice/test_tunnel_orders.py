"""A tunnel whose ends do anything in any order: transports that do as told, so that no order is missed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy.splice.tunnel_rig import BINARY, CLOSE, CONTINUATION, PING, TEXT, close_payload, frame

from gateway.proxy.splice.frames import FrameWalker
from gateway.proxy.splice.tunnel import Tunnel, TunnelEnd
from gateway.proxy.websocket import ClosedBy


class Pipe(asyncio.Transport):
    """A transport that keeps what it is given, and complains where a real one would."""

    def __init__(self, *, can_write_eof: bool) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.has_ended = False
        self.is_closed = False
        self.is_lost = False
        self.is_reading = True  # type: ignore[assignment,method-assign] # a flag is all that is asked for
        self.protocol: asyncio.Protocol | None = None
        self._can_write_eof = can_write_eof

    def get_extra_info(self, name: str, default: object = None) -> object:
        if name == "socket":
            return self
        return default if self._can_write_eof or name != "ssl_object" else object()

    def setsockopt(self, *_: object) -> None:
        """As the socket of a connection."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.has_ended, "write() after write_eof()"
        assert not self.is_closed, "write() after close()"
        assert data, "an empty write"
        self.written += data
        self.writes += 1

    def write_eof(self) -> None:
        assert self._can_write_eof
        self.has_ended = True

    def can_write_eof(self) -> bool:
        return self._can_write_eof

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        assert not self.is_closed
        self.is_reading = False  # type: ignore[method-assign,assignment]

    def resume_reading(self) -> None:
        assert not self.is_closed
        self.is_reading = True  # type: ignore[method-assign,assignment]


@dataclass
class Hands:
    """A tunnel, and what its two transports would tell it."""

    tunnel: Tunnel
    pipes: tuple[Pipe, Pipe]
    ends: list[TunnelEnd]
    has_sent_eof: list[bool]

    def do(self, side: int, action: str, data: bytes) -> None:
        """One thing that may happen on a connection, if it can happen there now."""
        pipe, protocol = self.pipes[side], (self.tunnel.client_side, self.tunnel.actor_side)[side]
        if pipe.is_lost:
            return
        if action == "lose" or (action == "finish" and pipe.is_closed):
            pipe.is_closed = pipe.is_lost = True
            protocol.connection_lost(ConnectionResetError() if action == "lose" else None)
        elif action == "full":
            protocol.pause_writing()
        elif action == "empty":
            protocol.resume_writing()
        elif pipe.is_closed or self.has_sent_eof[side] or not pipe.is_reading:
            return
        elif action == "data":
            protocol.data_received(data)
        elif action == "eof":
            self.has_sent_eof[side] = True
            if not protocol.eof_received():
                pipe.is_closed = True

    def finish(self) -> None:
        """What is closing is gone at last."""
        for side in (0, 1):
            self.do(side, "finish", b"")


def hands(protocol: bytes, *, is_tls: bool = False) -> Hands:
    """An open tunnel."""
    pipes = (Pipe(can_write_eof=not is_tls), Pipe(can_write_eof=True))
    ends: list[TunnelEnd] = []
    tunnel = Tunnel(
        client=pipes[0],
        actor=pipes[1],
        protocol=protocol,
        has_extensions=False,
        max_message_bytes=100,
        on_activity=lambda: None,
        on_end=ends.append,
    )
    return Hands(tunnel, pipes, ends, [False, False])


def piece(side: int, number: int) -> bytes:
    """Some frames of the caller (0) or the Actor (1), whole and in part, right and wrong."""
    is_masked = side == 0
    text = frame(TEXT, b"hello", is_masked=is_masked)
    return [
        text,
        text[:1],
        text[1:],
        text[:-2],
        text[-2:],
        frame(BINARY, b"", is_masked=is_masked, is_final=False),
        frame(CONTINUATION, b"more", is_masked=is_masked),
        frame(PING, b"?", is_masked=is_masked),
        frame(CLOSE, close_payload(1000), is_masked=is_masked),
        frame(CLOSE, b"", is_masked=is_masked)[:2],
        frame(CLOSE, b"", is_masked=is_masked)[2:] or text,
        frame(BINARY, b"x" * 101, is_masked=is_masked),
        frame(11, is_masked=is_masked),
    ][number]


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1]),
        st.sampled_from(["data"] * 6 + ["eof", "lose", "finish", "full", "empty", "close", "abort"]),
        st.integers(0, 12),
    ),
    max_size=25,
)


@settings(max_examples=400)
@given(steps=STEPS, is_tls=st.booleans(), protocol=st.sampled_from([b"websocket", b"websocket", b"other"]))
async def test_whatever_the_ends_do(steps: Sequence[tuple[int, str, int]], is_tls: bool, protocol: bytes) -> None:
    """
    Each end reads whole frames, and nothing after a close frame; the tunnel ends once, when both connections are gone.

    Nobody is written to after an end or a close, and no transport is told to read on that is closing (``Pipe``).
    """
    at = hands(protocol, is_tls=is_tls)
    for side, action, number in steps:
        if action == "close":
            at.tunnel.close(1001, "going away")
        elif action == "abort" and number == 0:
            at.tunnel.abort()
        else:
            at.do(side, action, piece(side, number))
        assert len(at.ends) == (at.pipes[0].is_lost and at.pipes[1].is_lost)
    at.tunnel.abort()
    at.finish()
    assert len(at.ends) == 1
    if protocol != b"websocket":
        return
    for side, pipe in enumerate(at.pipes):
        reader = FrameWalker(is_masked=side == 1, has_extensions=False, max_message_bytes=1000)
        assert reader.feed(pipe.written) == pipe.written
        assert reader.ending is None or not reader.ending.is_fault


@pytest.mark.parametrize("order", ["caller first", "actor first"])
async def test_a_caller_over_tls(order: str) -> None:
    """TLS has no end of one direction: its end is that of the connection, and the Actor is told."""
    at = hands(b"websocket", is_tls=True)
    with contextlib.suppress(RuntimeError):
        at.do(0 if order == "caller first" else 1, "eof", b"")
    if order == "caller first":
        assert at.pipes[1].written[:2] == b"\x88\x82"
    else:
        assert at.pipes[0].written[:4] == b"\x88\x0b" + (1011).to_bytes(2)
    at.tunnel.abort()
    at.finish()
    assert at.ends[0].by is (ClosedBy.CLIENT if order == "caller first" else ClosedBy.ACTOR)


async def test_another_protocol_over_tls_ends_for_the_caller_when_the_actor_ends() -> None:
    """In good order, since all of it was passed on."""
    at = hands(b"other", is_tls=True)
    at.do(1, "data", b"all of it")
    at.do(1, "eof", b"")
    assert (at.pipes[0].written, at.pipes[0].is_closed) == (b"all of it", True)
    at.finish()
    at.finish()
    assert (at.ends[0].by, at.ends[0].code) == (ClosedBy.ACTOR, 1005)


@pytest.mark.parametrize("size", [0, 100])
async def test_one_write_for_one_read_and_nothing_from_the_loop(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many frames came at once; no timer, future or task for any of them."""
    loop = asyncio.get_running_loop()
    at = hands(b"websocket")
    calls: list[str] = []
    data = frame(BINARY, bytes(size), is_masked=True)
    with monkeypatch.context() as patch:
        with contextlib.suppress(AttributeError, TypeError):  # uvloop's own can't be patched
            for name in ("call_soon", "call_later", "call_at", "create_future", "create_task"):
                patch.setattr(cast(object, loop), name, lambda *_, name=name, **__: calls.append(name))
        for count in (1, 2, 50):
            before = at.pipes[1].writes
            at.do(0, "data", data * count)
            assert at.pipes[1].writes == before + 1
    assert calls == []
    at.tunnel.abort()
    at.finish()
