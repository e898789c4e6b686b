"""Listening for a caller's departure without losing a byte of its body."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from gateway.proxy.asgi import Message
from gateway.proxy.replay import ReplayReceive


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


GONE: Message = {"type": "http.disconnect"}
CONNECT: Message = {"type": "websocket.connect"}
FRAME: Message = {"type": "websocket.receive", "text": "hi"}
CLOSED: Message = {"type": "websocket.disconnect", "code": 1001}


class Wire:
    """What a server would give: the messages in order, then nothing until more is put."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self.queue: asyncio.Queue[Message] = asyncio.Queue()
        for message in messages:
            self.queue.put_nowait(message)
        self.is_waiting = asyncio.Event()

    async def receive(self) -> Message:
        if self.queue.empty():
            self.is_waiting.set()
        return await self.queue.get()


@pytest.mark.parametrize(
    ("messages", "is_gone", "left_unread"),
    [
        pytest.param([GONE], True, 0, id="gone before its body"),
        pytest.param([body(b"all"), GONE], True, 0, id="gone after its body"),
        pytest.param([body(b"a", more=True), body(b"b")], False, 1, id="an unfinished body is read no further"),
        pytest.param([body(b"a", more=True), GONE], False, 1, id="nor to find that its caller is gone"),
        pytest.param([CONNECT, CLOSED], True, 0, id="a socket that closes"),
        pytest.param([CONNECT, FRAME, CLOSED], False, 1, id="a socket that talks already"),
    ],
)
async def test_listening(messages: list[Message], is_gone: bool, left_unread: int) -> None:
    """At most one message of an unfinished body is read ahead, and the reader gets every one in order."""
    wire = Wire(messages)
    receive = ReplayReceive(wire.receive)
    assert await receive.wait_until_gone() is is_gone
    assert wire.queue.qsize() == left_unread
    assert await receive.wait_until_gone() is is_gone
    assert wire.queue.qsize() == left_unread
    assert [await receive() for _ in messages] == messages


async def test_a_departure_is_heard_when_it_comes() -> None:
    """The listener waits for it; it is told again to the reader."""
    wire = Wire([body(b"all")])
    receive = ReplayReceive(wire.receive)
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(receive.wait_until_gone())
        await wire.is_waiting.wait()
        assert not listening.done()
        wire.queue.put_nowait(GONE)
    assert listening.result() is True
    assert [await receive(), await receive()] == [body(b"all"), GONE]


async def test_a_listener_that_is_cancelled_loses_nothing() -> None:
    """When a slot is found the listener is cancelled, in the middle of its wait; what comes then is the reader's."""
    wire = Wire([body(b"all")])
    receive = ReplayReceive(wire.receive)
    async with asyncio.TaskGroup() as group:
        listening = group.create_task(receive.wait_until_gone())
        await wire.is_waiting.wait()
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
    wire.queue.put_nowait(GONE)
    assert [await receive(), await receive()] == [body(b"all"), GONE]


async def test_listening_again_reads_one_message_more() -> None:
    """A request that went back to waiting after its reader took the first part of its body."""
    messages = [body(b"a", more=True), body(b"b", more=True), body(b"c")]
    wire = Wire(messages)
    receive = ReplayReceive(wire.receive)
    seen: list[Any] = []
    assert await receive.wait_until_gone() is False
    seen.append(await receive())
    assert await receive.wait_until_gone() is False
    assert wire.queue.qsize() == 1
    seen += [await receive(), await receive()]
    assert seen == messages
