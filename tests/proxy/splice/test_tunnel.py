"""Tunnels between real connections: what passes, what the ends are told, and that each tunnel ends."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
import time
from collections.abc import Callable

import pytest
from journeys.greenroom import eventually
from proxy.splice.tunnel_rig import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MAX_MESSAGE_BYTES,
    PING,
    PONG,
    TEXT,
    End,
    Got,
    Rig,
    close_payload,
    frame,
    tunnel,
)

from gateway.proxy.splice.tunnel_sides import FrameSide
from gateway.proxy.websocket import ClosedBy

pytestmark = pytest.mark.timeout(30, method="thread")  # uvloop swallows the signal of the usual method

LOST = 1006
MIB = 1 << 20


def ends(rig: Rig, first: str) -> tuple[End, End]:
    """The end that acts, and the other one."""
    return (rig.caller, rig.actor) if first == "caller" else (rig.actor, rig.caller)


BOTH = pytest.mark.parametrize("first", ["caller", "actor"])
BY = {"caller": ClosedBy.CLIENT, "actor": ClosedBy.ACTOR}


async def leave(rig: Rig) -> None:
    """The caller closes in good order."""
    rig.caller.close()
    assert (await rig.actor.get()).code == 1000
    rig.actor.close()
    rig.actor.writer.close()
    assert await rig.caller.said_goodbye() == (1000, "")


# -- what passes -------------------------------------------------------------------------------------------------------


async def test_messages_pass_and_are_counted() -> None:
    """Both ways, of any size, and each is a use of the socket."""
    async with tunnel() as rig:
        for size in (0, 5, 126, 70_000, MAX_MESSAGE_BYTES):
            rig.caller.send(BINARY, b"x" * size)
            assert await rig.actor.get() == Got(BINARY, b"x" * size, True)
            rig.actor.send(TEXT, b"y" * size)
            assert await rig.caller.get() == Got(TEXT, b"y" * size, True)
        assert len(rig.activity) >= 10
        await leave(rig)
        end = await rig.end()
    assert (end.messages_up, end.messages_down) == (5, 5)
    assert end.bytes_up > end.bytes_down > 70_000 + MAX_MESSAGE_BYTES


async def test_bytes_pass_as_they_are() -> None:
    """Masks, fragments, reserved bits of an extension: not one bit is changed."""
    async with tunnel(has_extensions=True) as rig:
        sent = rig.caller.send(TEXT, b"one", is_final=False, reserved=4)
        sent += rig.caller.send(PING, b"ping") + rig.caller.send(CONTINUATION, b"two")
        assert await rig.actor.reader.readexactly(len(sent)) == sent
        sent = rig.actor.send(BINARY, b"\x00\xff", reserved=4)
        assert await rig.caller.reader.readexactly(len(sent)) == sent
        await leave(rig)


@BOTH
async def test_pings_go_from_end_to_end_and_are_no_use(first: str) -> None:
    """The tunnel answers none of them, and they keep nothing awake."""
    async with tunnel() as rig:
        one, other = ends(rig, first)
        one.send(PING, b"there?")
        assert await other.get() == Got(PING, b"there?", True)
        other.send(PONG, b"there?")
        assert await one.get() == Got(PONG, b"there?", True)
        assert rig.activity == []
        await leave(rig)


async def test_what_was_read_ahead_passes_first() -> None:
    """Frames that came together with the heads."""
    async with tunnel() as rig:
        rig.tunnel.client_side.data_received(frame(TEXT, b"from the caller", is_masked=True))
        rig.tunnel.actor_side.data_received(frame(TEXT, b"from the Actor", is_masked=False)[:5])
        rig.actor.writer.write(frame(TEXT, b"from the Actor", is_masked=False)[5:])
        assert (await rig.actor.get()).payload == b"from the caller"
        assert (await rig.caller.get()).payload == b"from the Actor"
        await leave(rig)


@BOTH
async def test_who_does_not_read_is_not_sent_more(first: str) -> None:
    """
    20 MiB wait in the sender until the other end reads, then all of it arrives; meanwhile the tunnel holds little.

    The other direction is not held up.
    """
    data = random.Random(1).randbytes(MIB - 100)
    digest = hashlib.sha256()
    async with tunnel() as rig:
        one, other = ends(rig, first)
        into = rig.actor_transport if first == "caller" else rig.client_transport
        for _ in range(20):
            one.send(BINARY, data)
        side = rig.tunnel.client_side if first == "caller" else rig.tunnel.actor_side
        await eventually(into.get_write_buffer_size, what="a full buffer")
        for _ in range(100):  # rounds of the loop, in which nothing more may come
            assert into.get_write_buffer_size() <= MIB
            other.send(TEXT, b"meanwhile")
            assert (await one.get()).payload == b"meanwhile"
        assert side.bytes_passed < 20 * len(data)
        for _ in range(20):
            digest.update((await other.get()).payload)
        await leave(rig)
    assert digest.digest() == hashlib.sha256(data * 20).digest()


async def test_both_directions_full_at_once() -> None:
    """Two ends that write 10 MiB each before they read: both arrive, once they read."""
    data = random.Random(2).randbytes(MIB - 100)

    async def talk(end: End) -> None:
        for _ in range(10):
            end.send(BINARY, data)
        for _ in range(10):
            assert (await end.get()).payload == data

    async with tunnel() as rig:
        async with asyncio.TaskGroup() as group:
            group.create_task(talk(rig.caller))
            group.create_task(talk(rig.actor))
        await leave(rig)


# -- closing by an end -------------------------------------------------------------------------------------------------


@BOTH
async def test_the_close_handshake_passes_through(first: str) -> None:
    """Code and reason both ways; then the caller is closed, as by any server, and the Actor closes by itself."""
    async with tunnel() as rig:
        one, other = ends(rig, first)
        one.close(4001, "enough")
        got = await other.get()
        assert (got.code, got.reason) == (4001, "enough")
        other.close(4002, "indeed")
        got = await one.get()
        assert (got.code, got.reason) == (4002, "indeed")
        assert await rig.caller.rest() == b""
        assert not rig.is_over.is_set()
        rig.actor.writer.close()
        end = await rig.end()
    assert (end.by, end.code, end.reason) == (BY[first], 4001, "enough")


@BOTH
async def test_messages_under_way_pass_although_the_other_end_is_closing(first: str) -> None:
    """A close frame ends one direction; what the other end had to say still comes before its answer."""
    async with tunnel() as rig:
        one, other = ends(rig, first)
        one.close(1000)
        other.send(TEXT, b"last words")
        other.close(1000)
        other.writer.close()
        assert (await one.get()).payload == b"last words"
        assert await one.said_goodbye() == (1000, "")


@BOTH
async def test_nothing_passes_after_a_close_frame(first: str) -> None:
    """RFC 6455 §5.5.1: whatever follows it is dropped."""
    async with tunnel() as rig:
        one, other = ends(rig, first)
        one.writer.write(frame(CLOSE, b"", is_masked=one.is_caller) + frame(TEXT, b"late", is_masked=one.is_caller))
        assert (await other.get()).payload == b""
        other.send(CLOSE)
        other.writer.close()
        assert (await one.get()).payload == b""
        assert await other.rest() == b""
        end = await rig.end()
    assert (end.by, end.code, end.messages_up, end.messages_down) == (BY[first], 1005, 0, 0)


@BOTH
async def test_an_end_that_does_not_answer_a_close_is_cut_after_a_second(first: str) -> None:
    """Not at once, and not much later."""
    async with tunnel() as rig:
        one, other = ends(rig, first)
        one.close(1000)
        began = time.monotonic()
        assert (await other.get()).code == 1000
        end = await rig.end()
        assert 0.9 < time.monotonic() - began < 5
        assert await other.rest() == b""
    assert (end.by, end.code) == (BY[first], 1000)


# -- faults and limits -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("send", "code", "says"),
    [
        pytest.param(lambda end: end.send(3), 1002, "the reserved opcode 3", id="reserved opcode"),
        pytest.param(lambda end: end.send(TEXT, reserved=4), 1002, "reserved bits", id="reserved bits"),
        pytest.param(
            lambda end: end.writer.write(frame(TEXT, b"x", is_masked=not end.is_caller)), 1002, "mask", id="mask"
        ),
        pytest.param(lambda end: end.send(PING, b"x" * 126), 1002, "more than 125", id="long ping"),
        pytest.param(lambda end: end.send(BINARY, bytes(MAX_MESSAGE_BYTES + 1)), 1009, "too big", id="long message"),
    ],
)
async def test_a_fault_is_named_to_both_and_ends_it(
    first: str, send: Callable[[End], object], code: int, says: str
) -> None:
    """What came before it has passed; it has not; who did it is told with the end."""
    async with tunnel() as rig:
        one, other = ends(rig, first)
        one.send(TEXT, b"before")
        send(one)
        assert (await other.get()).payload == b"before"
        got = await other.get()
        assert got.code == code
        assert says in got.reason
        other.close(code)
        other.writer.close()
        got = await one.get()
        assert got.code == code
        assert says in got.reason
        assert await one.rest() == b""
        assert not rig.is_over.is_set()  # it is left to close by itself
        one.writer.close()
        end = await rig.end()
    assert (end.by, end.code) == (BY[first], code)
    assert says in end.reason


async def test_who_is_still_sending_what_was_refused_is_told_nevertheless() -> None:
    """Longer than a second, as long as more of it comes: cut off in the middle, the caller would not read why."""
    async with tunnel() as rig:
        message = frame(BINARY, bytes(MAX_MESSAGE_BYTES + 1), is_masked=True)
        for at in range(0, len(message), 200_000):
            rig.caller.writer.write(message[at : at + 200_000])
            await asyncio.sleep(0.3)
        assert (await rig.caller.get()).code == 1009
        assert not rig.client_transport.is_closing()


async def test_a_fault_of_the_caller_waits_for_the_frame_that_is_on_its_way_to_it() -> None:
    """Its close frame comes after the Actor's frame, not inside of it."""
    async with tunnel() as rig:
        message = frame(BINARY, b"x" * 1000, is_masked=False)
        rig.actor.writer.write(message[:500])
        assert await rig.caller.reader.readexactly(500) == message[:500]
        rig.caller.send(3)
        assert (await rig.actor.get()).code == 1002
        rig.actor.writer.write(message[500:] + frame(TEXT, b"dropped", is_masked=False))
        assert await rig.caller.reader.readexactly(len(message) - 500) == message[500:]
        assert (await rig.caller.get()).code == 1002


# -- closing by Greenroom ----------------------------------------------------------------------------------------------


async def test_both_ends_are_told_when_greenroom_closes() -> None:
    """A close frame each; when they have answered, the connections are closed."""
    async with tunnel() as rig:
        rig.tunnel.close(1012, "restart")
        for end in (rig.caller, rig.actor):
            got = await end.get()
            assert (got.code, got.reason) == (1012, "restart")
            end.close(1012)
        rig.actor.writer.close()
        assert await rig.caller.rest() == b""
        how = await rig.end()
    assert (how.by, how.code, how.reason) == (ClosedBy.GATEWAY, 1012, "restart")


@BOTH
async def test_the_close_frame_stands_amid_a_message_but_never_amid_a_frame(first: str) -> None:
    """The frame under way is finished first; the message, whose next frames are dropped, is not."""
    async with tunnel() as rig:
        one, other = ends(rig, first)
        one.send(TEXT, b"some", is_final=False)
        last = frame(CONTINUATION, b"more", is_masked=one.is_caller, is_final=False)
        one.writer.write(last[:-2])
        assert (await other.get()).payload == b"some"
        await other.reader.readexactly(len(last) - 2)
        rig.tunnel.close(1001, "going away")
        assert (await one.get()).code == 1001
        dropped = frame(CONTINUATION, b"dropped", is_masked=one.is_caller)
        one.writer.write(last[-2:] + dropped + frame(CLOSE, b"", is_masked=one.is_caller))
        assert await other.reader.readexactly(2) == last[-2:]
        got = await other.get()
        assert (got.code, got.reason) == (1001, "going away")
        side = rig.tunnel.client_side if first == "caller" else rig.tunnel.actor_side
        assert isinstance(side, FrameSide)
        assert side.walker.ending == (1005, "", False)  # the answer was understood


async def test_ends_that_do_not_answer_are_cut_after_a_second() -> None:
    """Also where a frame is never finished."""
    async with tunnel() as rig:
        rig.actor.writer.write(frame(BINARY, b"x" * 1000, is_masked=False)[:500])
        await rig.caller.reader.readexactly(500)
        began = time.monotonic()
        rig.tunnel.close(1001, "going away")
        await rig.end()
        assert 0.9 < time.monotonic() - began < 5
        assert await rig.caller.rest() == b""  # no close frame: it would have been taken for payload


async def test_an_answer_in_time_makes_it_quick() -> None:
    """The end of an end that has answered is not held up by the one that does not."""
    async with tunnel() as rig:
        rig.tunnel.close(1001, "going away")
        rig.caller.close(1001)
        assert await rig.caller.said_goodbye() == (1001, "going away")
        assert not rig.is_over.is_set()


async def test_a_close_meanwhile_changes_nothing() -> None:
    """Who is closing already gets no second close frame."""
    async with tunnel() as rig:
        rig.caller.close(4001, "mine")
        assert (await rig.actor.get()).code == 4001
        rig.tunnel.close(1001, "going away")
        rig.actor.close(4001)
        rig.actor.writer.close()
        assert await rig.caller.said_goodbye() == (4001, "")
        assert await rig.actor.rest() == b""
        end = await rig.end()
    assert (end.by, end.code, end.reason) == (ClosedBy.CLIENT, 4001, "mine")


async def test_an_abort_cuts_both() -> None:
    """At once, without a word."""
    async with tunnel() as rig:
        rig.tunnel.abort()
        end = await rig.end()
        assert (await rig.caller.rest(), await rig.actor.rest()) == (b"", b"")
    assert (end.by, end.code) == (ClosedBy.GATEWAY, LOST)


# -- ends that vanish --------------------------------------------------------------------------------------------------

VANISH = pytest.mark.parametrize("vanish", [End.reset, End.hang_up], ids=["reset", "end of stream"])


@VANISH
@pytest.mark.parametrize(("first", "code"), [("caller", 1001), ("actor", 1011)])
async def test_an_end_that_vanishes_is_told_to_the_other(first: str, code: int, vanish: Callable[[End], None]) -> None:
    """By a close frame: a caller that is gone is going away (1001), a run that is gone is an error (1011)."""
    async with tunnel() as rig:
        one, other = ends(rig, first)
        one.send(TEXT, b"half of it", is_final=False)
        assert (await other.get()).payload == b"half of it"
        vanish(one)
        assert (await other.get()).code == code
        other.close(code)
        other.writer.close()
        end = await rig.end()
    assert (end.by, end.code) == (BY[first], LOST)


@VANISH
@BOTH
async def test_an_end_that_vanishes_amid_a_frame_is_no_close(first: str, vanish: Callable[[End], None]) -> None:
    """The other one's stream ends there: a close frame would have been taken for the rest of that frame."""
    async with tunnel() as rig:
        one, other = ends(rig, first)
        data = frame(BINARY, b"x" * 1000, is_masked=one.is_caller)
        one.writer.write(data[:500])
        assert await other.reader.readexactly(500) == data[:500]
        vanish(one)
        assert await other.rest() == b""
        if vanish is End.hang_up:  # only that direction has ended
            other.send(TEXT, b"bye")
            assert (await one.get()).payload == b"bye"
        other.writer.close()
        end = await rig.end()
    assert (end.by, end.code) == (BY[first], LOST)


async def test_what_an_actor_still_has_to_say_reaches_a_caller_that_only_stopped_to_send() -> None:
    """The Actor is told by 1001; its frames, until its answer, still pass."""
    async with tunnel() as rig:
        rig.caller.hang_up()
        assert (await rig.actor.get()).code == 1001
        rig.actor.send(TEXT, b"bye")
        rig.actor.close(1001)
        rig.actor.writer.close()
        assert (await rig.caller.get()).payload == b"bye"
        assert await rig.caller.said_goodbye() == (1001, "")


async def test_an_actor_that_closes_without_waiting_still_gets_the_answer_taken() -> None:
    """Close frame and end of stream at once: the caller sees both, and is not told of an error."""
    async with tunnel() as rig:
        rig.actor.close(1000, "done")
        rig.actor.writer.close()
        got = await rig.caller.get()
        assert (got.code, got.reason) == (1000, "done")
        rig.caller.close(1000)
        assert await rig.caller.rest() == b""
        end = await rig.end()
    assert (end.by, end.code, end.reason) == (ClosedBy.ACTOR, 1000, "done")


async def test_a_caller_that_closes_and_is_gone_at_once() -> None:
    """As programs do that end: the Actor gets its close frame, and answers into nothing."""
    async with tunnel() as rig:
        rig.caller.close(1000, "done")
        rig.caller.writer.close()
        got = await rig.actor.get()
        assert (got.code, got.reason) == (1000, "done")
        rig.actor.close(1000)
        rig.actor.writer.close()
        end = await rig.end()
    assert (end.by, end.code) == (ClosedBy.CLIENT, 1000)


async def test_an_actor_whose_caller_vanishes_is_not_left_in_the_middle_of_writing() -> None:
    """What it has still to say is read and dropped, so that it comes to see the close frame and to answer it."""
    async with tunnel() as rig:
        for _ in range(20):
            rig.actor.send(BINARY, bytes(MIB - 100))
        await eventually(rig.client_transport.get_write_buffer_size, what="a full buffer")
        rig.caller.reset()
        assert (await rig.actor.get()).code == 1001
        rig.actor.close(1001)
        rig.actor.writer.close()
        await rig.actor.writer.wait_closed()  # raises where it was cut
        end = await rig.end()
    assert (end.by, end.code) == (ClosedBy.CLIENT, LOST)


async def test_a_slow_reader_gets_all_before_the_close() -> None:
    """An Actor that sends much, closes and goes: a caller that reads nothing for a while is not cut off for it."""
    async with tunnel() as rig:
        # Else the kernel takes all of it.
        rig.client_transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        rig.caller.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        rig.caller.writer.transport.pause_reading()
        last = frame(BINARY, bytes(400_000), is_masked=False) + frame(CLOSE, close_payload(1000), is_masked=False)
        rig.tunnel.actor_side.data_received(last)  # in one read
        rig.actor.writer.close()
        assert rig.client_transport.get_write_buffer_size()
        await asyncio.sleep(1.6)
        rig.caller.writer.transport.resume_reading()
        assert (await rig.caller.get()).payload == bytes(400_000)
        assert (await rig.caller.get()).code == 1000


async def test_a_caller_that_vanishes_behind_a_full_buffer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Actor that has stopped to read does not hold the socket of a caller who is gone."""
    monkeypatch.setattr("gateway.proxy.splice.tunnel._WATCH_SECS", 0.1)
    monkeypatch.setattr("gateway.proxy.splice.tunnel._STALL_SECS", 0.5)
    async with tunnel() as rig:
        rig.actor.writer.transport.pause_reading()
        for _ in range(20):
            rig.caller.send(BINARY, bytes(MIB - 100))
        await eventually(rig.actor_transport.get_write_buffer_size, what="a full buffer")
        rig.caller.reset()
        end = await rig.end()
    assert (end.by, end.code) == (ClosedBy.CLIENT, LOST)


@pytest.mark.parametrize("protocol", [b"websocket", b"some-protocol"])
async def test_who_sends_and_hangs_up_loses_nothing(protocol: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly the other one reads: it is not taken for gone as long as something moves."""
    monkeypatch.setattr("gateway.proxy.splice.tunnel._WATCH_SECS", 1.0)
    data = random.Random(5).randbytes(MIB - 100)
    async with tunnel(protocol) as rig:
        for _ in range(24):
            rig.caller.send(BINARY, data)
        rig.caller.hang_up()
        for _ in range(24):
            assert (await rig.actor.get()).payload == data
            await asyncio.sleep(0.1)
        if protocol == b"websocket":
            assert (await rig.actor.get()).code == 1001
        assert await rig.actor.rest() == b""


# -- other protocols ---------------------------------------------------------------------------------------------------


@BOTH
async def test_another_protocol_is_bytes_with_an_end_for_each_direction(first: str) -> None:
    """Frames mean nothing there; all of it is use; the other direction goes on for as long as it wants."""
    async with tunnel(b"some-protocol") as rig:
        one, other = ends(rig, first)
        one.writer.write(b"\x83\x00 anything")
        one.hang_up()
        assert await other.rest() == b"\x83\x00 anything"
        for number in range(3):
            other.writer.write(b"bye %d" % number)
            assert await one.reader.readexactly(5) == b"bye %d" % number
        assert len(rig.activity) == 4
        other.hang_up()
        assert await one.rest() == b""
        end = await rig.end()
    assert (end.by, end.code, end.messages_up) == (BY[first], 1005, 0)
    assert end.bytes_up + end.bytes_down == 11 + 3 * 5


@BOTH
async def test_a_reset_of_another_protocol_never_looks_like_its_end(first: str) -> None:
    """It is passed on as a reset."""
    async with tunnel(b"some-protocol") as rig:
        one, other = ends(rig, first)
        one.writer.write(b"half")
        assert await other.reader.readexactly(4) == b"half"
        one.reset()
        with pytest.raises(ConnectionResetError):
            await other.reader.read()
        end = await rig.end()
    assert (end.by, end.code) == (BY[first], LOST)


async def test_another_protocol_is_cut_when_greenroom_closes() -> None:
    """There is no word for it."""
    async with tunnel(b"some-protocol") as rig:
        rig.tunnel.close(1001, "going away")
        end = await rig.end()
        assert (await rig.caller.rest(), await rig.actor.rest()) == (b"", b"")
    assert (end.by, end.code, end.reason) == (ClosedBy.GATEWAY, 1001, "going away")


async def test_another_protocol_keeps_back_what_is_not_read() -> None:
    """10 MiB, there and back, with little held in between."""
    data = random.Random(4).randbytes(10 * MIB)
    async with tunnel(b"some-protocol") as rig:
        rig.caller.writer.write(data)
        rig.caller.hang_up()
        await eventually(rig.actor_transport.get_write_buffer_size, what="a full buffer")
        assert rig.actor_transport.get_write_buffer_size() <= MIB
        assert hashlib.sha256(await rig.actor.rest()).digest() == hashlib.sha256(data).digest()
        rig.actor.hang_up()
        assert await rig.caller.rest() == b""
