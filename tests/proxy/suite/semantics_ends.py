"""Scenes: connections, bodies and what becomes of both when one side breaks off."""

from __future__ import annotations

import hashlib
import threading
import time

from proxy.suite.recorder import Turn
from proxy.suite.scenes import OK, ask, is_in_step, only_request, own_scene, plays, request_of, says, scene
from proxy.suite.stage import Door

MIB = 1024 * 1024
_BLOCK = bytes(range(256)) * 256
_GONE_SECS = 1.0
# The kernel's buffers of four sockets may take 20 MiB of it, the gateway's own little more: never all of the flood.
_FLOOD = 128 * MIB
_MOST_WAITING = 48 * MIB


def _blocks(count: int) -> bytes:
    total = hashlib.sha256()
    for _ in range(count):
        total.update(_BLOCK)
    return total.digest()


def _wait_gone(door: Door, number: int) -> None:
    """The gateway has ended that connection to the Actor, within the second that is promised (and a busy machine's)."""
    ends = [one for one in door.recorder.connections if one.number == number]
    began = time.monotonic()
    door.recorder.wait_until(lambda: all(one.has_ended for one in ends), "the end of the Actor's connection")
    assert time.monotonic() - began < _GONE_SECS + 1.0


@scene
def fifty_requests_in_one_write(door: Door) -> None:
    """Pipelined requests are answered in order."""
    with door.connect() as client:
        client.send(b"".join(request_of(door, target=b"/%d" % number) for number in range(50)))
        assert [client.final().body for _ in range(50)] == [b"/%d" % number for number in range(50)]


@scene
def a_slow_answer_before_a_quick_one(door: Door) -> None:
    """A pipelined request waits for its turn."""

    async def slow(turn: Turn) -> None:
        await turn.body()
        await go.opened()
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")

    go = door.recorder.gate()
    plays(door, slow, path=b"/slow")
    with door.connect() as client:
        client.send(request_of(door, target=b"/slow") + request_of(door, target=b"/quick"))
        door.recorder.wait_until(lambda: door.recorder.requests, "the slow request")
        go.open()
        assert [client.final().body for _ in range(2)] == [b"slow", b"/quick"]


@scene
def answers_without_bodies_in_a_row(door: Door) -> None:
    """HEAD, 204 and 304 in one write, then a GET: none takes the other's bytes for its body."""
    says(door, b"HTTP/1.1 204 No\r\n\r\n", path=b"/204")
    says(door, b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", path=b"/304")
    with door.connect() as client:
        client.send(
            request_of(door, method=b"HEAD")
            + request_of(door, target=b"/204")
            + request_of(door, target=b"/304")
            + request_of(door, target=b"/last")
        )
        statuses = [client.final(method).status for method in (b"HEAD", b"GET", b"GET")]
        assert statuses == [200, 204, 304]
        assert client.final().body == b"/last"


@own_scene
def a_page_of_greenrooms_own_between_two_of_an_actor(door: Door) -> None:
    """Requests to both on one connection, in one write, are answered in order."""
    with door.connect() as client:
        own = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
        client.send(request_of(door, target=b"/1") + own + request_of(door, target=b"/2") + own)
        assert [client.final().body for _ in range(4)] == [b"/1", b"live\n", b"/2", b"live\n"]


@scene
def connections_to_the_actor_are_used_again(door: Door) -> None:
    """Requests one after the other share one, whoever sends them."""
    for _ in range(5):
        assert ask(door).status == 200
    assert len({request.connection.number for request in door.recorder.requests}) == 1


@scene
def two_requests_at_once(door: Door) -> None:
    """They don't wait for each other."""

    async def slow(turn: Turn) -> None:
        await turn.body()
        await go.opened()
        await turn.write(OK)

    go = door.recorder.gate()
    plays(door, slow)
    with door.connect() as first, door.connect() as second:
        first.send(request_of(door))
        second.send(request_of(door))
        door.recorder.wait_until(lambda: len(door.recorder.requests) == 2, "both requests")
        go.open()
        assert first.final().status == second.final().status == 200


@scene
def the_caller_asks_to_close(door: Door) -> None:
    """Connection: close is told to be heard, and done."""
    with door.connect() as client:
        client.send(request_of(door, b"Connection: close"))
        answer = client.final()
        assert (answer.body, answer.keeps_alive) == (b"/x", False)
        assert client.rest() == b""


@scene
def http_1_0_with_keep_alive(door: Door) -> None:
    """The answer can be told from the next, or the connection ends."""
    with door.connect() as client:
        client.send(request_of(door, b"Connection: keep-alive", minor=0))
        answer = client.final()
        assert answer.body == b"/x"
        if answer.keeps_alive:
            is_in_step(door, client)
        else:
            assert client.rest() == b""


# -- bodies ------------------------------------------------------------------------------------------------------------


async def _digest(turn: Turn) -> None:
    """Answer with the checksum of the body."""
    body = await turn.body()
    await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n" + hashlib.sha256(body).digest())


@scene
def ten_mib_up(door: Door) -> None:
    """A large body of known length arrives as it was sent."""
    plays(door, _digest)
    with door.connect() as client:
        client.send(request_of(door, b"Content-Length: %d" % (10 * MIB), method=b"POST") + _BLOCK * 160)
        assert client.final().body == _blocks(160)
        is_in_step(door, client)


@scene
def ten_mib_up_in_chunks(door: Door) -> None:
    """A large body of unknown length arrives as it was sent."""
    plays(door, _digest)
    with door.connect() as client:
        client.send(request_of(door, b"Transfer-Encoding: chunked", method=b"POST"))
        client.send((b"10000\r\n" + _BLOCK + b"\r\n") * 160 + b"0\r\n\r\n")
        assert client.final().body == _blocks(160)
        is_in_step(door, client)


@scene
def ten_mib_down(door: Door) -> None:
    """A large answer of known length arrives as it was sent."""
    says(door, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (10 * MIB), *[_BLOCK] * 160)
    with door.connect() as client:
        client.send(request_of(door))
        assert hashlib.sha256(client.final().body).digest() == _blocks(160)
        is_in_step(door, client)


@scene
def ten_mib_down_in_chunks(door: Door) -> None:
    """A large answer of unknown length arrives as it was sent."""
    chunk = b"10000\r\n" + _BLOCK + b"\r\n"
    says(door, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk] * 160, b"0\r\n\r\n")
    with door.connect() as client:
        client.send(request_of(door))
        assert hashlib.sha256(client.final().body).digest() == _blocks(160)
        is_in_step(door, client)


@scene
def ten_mib_both_ways_at_once(door: Door) -> None:
    """An Actor that sends back what it gets, while it gets it, is no dead-lock."""

    async def echo(turn: Turn) -> None:
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (10 * MIB))
        left = 10 * MIB
        while left:
            piece = await turn.some_body()
            left -= len(piece)
            await turn.write(piece)
        turn.close()

    plays(door, echo)
    with door.connect() as client:
        sender = threading.Thread(
            target=client.send,
            args=(request_of(door, b"Content-Length: %d" % (10 * MIB), method=b"POST") + _BLOCK * 160,),
        )
        sender.start()
        try:
            assert hashlib.sha256(client.final().body).digest() == _blocks(160)
        finally:
            sender.join(20)


@scene
def a_caller_who_reads_slowly(door: Door) -> None:
    """The Actor is slowed down: not more than some MiB wait between the two."""
    written = 0

    async def flood(turn: Turn) -> None:
        nonlocal written
        await turn.body()
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (_FLOOD))
        for _ in range(_FLOOD // len(_BLOCK)):
            await turn.write(_BLOCK)
            written += len(_BLOCK)

    plays(door, flood)
    with door.connect(read_buffer_bytes=65_536) as client:
        client.send(request_of(door))
        client.head()
        before = -1
        while before != written:  # until nothing moves any more
            before = written
            time.sleep(0.1)
        assert written < _MOST_WAITING
        number = only_request(door).connection.number
    _wait_gone(door, number)


@scene
def an_actor_that_reads_slowly(door: Door) -> None:
    """The caller is slowed down: not more than some MiB wait between the two."""

    async def stall(turn: Turn) -> None:
        begun.open()
        await go.opened()
        turn.reset()

    begun, go = door.recorder.gate(), door.recorder.gate()
    plays(door, stall)
    with door.connect() as client:
        client.send(request_of(door, b"Content-Length: %d" % (_FLOOD), method=b"POST"))
        begun.wait()
        client.sock.settimeout(0.3)
        sent = 0
        try:
            while sent < _FLOOD:
                sent += client.sock.send(_BLOCK)
        except TimeoutError:
            pass
        finally:
            go.open()
        assert sent < _MOST_WAITING


# -- the Actor breaks off ----------------------------------------------------------------------------------------------


def _cut(name: str, head: bytes, *, resets: bool) -> None:
    def play(door: Door) -> None:
        async def script(turn: Turn) -> None:
            await turn.body()
            await turn.write(b"HTTP/1.1 200 OK\r\n" + head)
            await begun.opened()
            if resets:
                turn.reset()
            turn.close()

        begun = door.recorder.gate()
        plays(door, script)
        with door.connect() as client:
            client.send(request_of(door))
            answer_head = client.head()
            begun.open()
            answer = client.body(answer_head)
            assert not answer.is_whole or client.was_reset, answer
            assert client.rest() == b""

    play.__name__ = name
    play.__doc__ = "An answer that breaks off never looks whole."
    scene(play)


_cut("an answer cut short", b"Content-Length: 10\r\n\r\nhalf", resets=False)
_cut("an answer reset", b"Content-Length: 10\r\n\r\nhalf", resets=True)
_cut("a chunked answer cut between chunks", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", resets=False)
_cut("a chunked answer cut amid a chunk", b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf", resets=False)
_cut("a chunked answer without its last line", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", resets=False)
_cut("a chunked answer reset", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", resets=True)
_cut("an answer without a length reset", b"X-A: b\r\n\r\nhalf", resets=True)


@scene
def an_actor_that_closes_without_a_word(door: Door) -> None:
    """On a connection of its own that is no staleness: the request is not repeated, and the caller is told 502."""

    async def script(turn: Turn) -> None:
        await turn.body()
        turn.close()

    plays(door, script)
    door.recorder.cut()  # whatever earlier scenes have left open to the Actor
    assert ask(door).status == 502
    only_request(door)


@own_scene
def an_actor_that_switches_to_something_else(door: Door) -> None:
    """A protocol that nobody asked for is none: 502."""
    says(door, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n")
    assert ask(door, b"Connection: Upgrade", b"Upgrade: chat").status == 502


@scene
def an_actor_that_breaks_off_amid_its_head(door: Door) -> None:
    """502."""
    says(door, b"HTTP/1.1 200 OK\r\nContent-Le", closes=True)
    assert ask(door).status == 502


@scene
def an_actor_that_breaks_off_after_early_hints(door: Door) -> None:
    """502, after them."""
    says(door, b"HTTP/1.1 103 Early Hints\r\n\r\n", closes=True)
    assert ask(door).status == 502


def _warmed(door: Door, second: bytes, *, target: bytes = b"/x") -> list[int]:
    """
    A connection to the Actor is used once, then the Actor ends it upon its next request; the numbers of those that
    *target* was asked on.
    """
    assert ask(door, target=b"/warm-up").status == 200
    first = door.recorder.requests[0].connection.number

    async def script(turn: Turn) -> None:
        await turn.body()
        if turn.request.connection.number == first:
            turn.reset()
        else:
            await turn.write(OK)

    plays(door, script)
    with door.connect() as client:
        client.send(second)
        assert client.final().status == (200 if second.startswith(b"GET") else 502)
    return [request.connection.number for request in door.recorder.requests if request.message.target == target]


@scene
def a_stale_connection_and_a_get(door: Door) -> None:
    """It is sent once more, on a new connection."""
    assert len(_warmed(door, request_of(door))) == 2


@scene
def a_stale_connection_and_a_post(door: Door) -> None:
    """It is never sent twice: the Actor may have acted upon it."""
    assert len(_warmed(door, request_of(door, b"Content-Length: 5", method=b"POST") + b"hello")) == 1


@scene
def a_connection_that_the_actor_has_closed(door: Door) -> None:
    """Twenty rounds with an Actor that closes after each answer without saying so: nobody notices."""
    says(door, OK, closes=True)
    with door.connect() as client:
        for number in range(20):
            client.send(request_of(door, b"Content-Length: 1", method=b"POST" if number % 2 else b"GET") + b"1")
            assert client.final().status == 200
            door.recorder.wait_until(lambda: door.recorder.requests[-1].connection.has_ended, "its closing")
    assert len(door.recorder.requests) == 20


@scene
def an_answer_of_half_and_then_nothing_is_not_repeated(door: Door) -> None:
    """Once a byte of the answer was seen the request is not sent again."""
    assert ask(door, target=b"/warm-up").status == 200

    async def script(turn: Turn) -> None:
        await turn.body()
        await turn.write(b"HTTP/1.1 2")
        turn.close()

    plays(door, script)
    assert ask(door).status == 502
    assert [request.message.target for request in door.recorder.requests] == [b"/warm-up", b"/x"]


# -- the caller breaks off ---------------------------------------------------------------------------------------------


@scene
def a_caller_who_leaves_while_the_actor_thinks(door: Door) -> None:
    """The Actor's connection ends within a second."""

    async def script(turn: Turn) -> None:
        await turn.body()
        await turn.until_gone()

    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door))
        door.recorder.wait_until(lambda: door.recorder.requests, "the request")
        number = only_request(door).connection.number
    _wait_gone(door, number)


@scene
def a_caller_who_leaves_amid_an_answer(door: Door) -> None:
    """The Actor's connection ends within a second."""

    async def script(turn: Turn) -> None:
        await turn.body()
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
        await turn.until_gone()

    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door))
        client.head()
        number = only_request(door).connection.number
    _wait_gone(door, number)


@scene
def a_caller_who_leaves_amid_a_stream_that_is_silent(door: Door) -> None:
    """Nothing has to be written for it to be noticed."""

    async def script(turn: Turn) -> None:
        await turn.body()
        await turn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await turn.until_gone()

    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door))
        client.head()
        number = only_request(door).connection.number
        client.reset()
    _wait_gone(door, number)


@scene
def a_caller_who_leaves_amid_his_body(door: Door) -> None:
    """The Actor never sees a whole request."""

    async def script(turn: Turn) -> None:
        await turn.some_body()
        begun.open()
        await turn.until_gone()

    begun = door.recorder.gate()
    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door, b"Content-Length: 100", method=b"POST") + b"half")
        begun.wait()
        number = only_request(door).connection.number
    _wait_gone(door, number)
    assert not only_request(door).is_whole


@scene
def a_caller_who_leaves_amid_a_chunked_body(door: Door) -> None:
    """No last chunk is made up for him."""

    async def script(turn: Turn) -> None:
        await turn.some_body()
        begun.open()
        await turn.until_gone()

    begun = door.recorder.gate()
    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door, b"Transfer-Encoding: chunked", method=b"POST") + b"4\r\nhalf\r\n")
        begun.wait()
        request = only_request(door)
    _wait_gone(door, request.connection.number)
    assert b"0\r\n\r\n" not in bytes(request.connection.raw).partition(b"\r\n\r\n")[2]


@own_scene
def a_caller_who_leaves_while_he_waits_for_a_run(door: Door) -> None:
    """He makes room in the waiting room within a second, and his request never reaches an Actor."""
    stand = door.stand
    assert stand is not None
    assert door.stage is not None
    if not door.is_cold:
        return
    stand.supplies_cold = False
    try:
        with door.connect() as client:
            client.send(request_of(door))
            door.stage.call(stand.until(lambda: stand.gateway.desk.held == 1))
        began = time.monotonic()
        door.stage.call(stand.until(lambda: not stand.gateway.desk.held))
        assert time.monotonic() - began < _GONE_SECS + 1.0
    finally:
        stand.supplies_cold = True
    assert ask(door, target=b"/next").status == 200
    assert door.recorder.seen() == [b"GET /next HTTP/1.1"]


@scene
def a_caller_who_closes_his_half(door: Door) -> None:
    """Having sent all that he has to say, he either gets his answer or counts as gone; nothing hangs."""

    async def script(turn: Turn) -> None:
        await turn.body()
        await go.opened()
        await turn.write(OK)

    go = door.recorder.gate()
    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door))
        door.recorder.wait_until(lambda: door.recorder.requests, "the request")
        client.half_close()
        go.open()
        rest = client.rest()
        assert rest == b"" or rest.endswith(b"ok")


@scene
def nonsense_behind_a_good_request(door: Door) -> None:
    """Whatever becomes of the good one, nothing of its answer is left for the next caller."""
    with door.connect() as client:
        client.send(request_of(door, target=b"/first") + request_of(door, target=b"/second") + b"\x00\r\n\r\n")
        client.rest()
    for number in range(3):
        assert ask(door, target=b"/%d" % number).body == b"/%d" % number


@scene
def a_caller_who_is_gone_when_his_answer_comes(door: Door) -> None:
    """Nothing of it is left for the next caller."""

    async def script(turn: Turn) -> None:
        await turn.body()
        await go.opened()
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")

    for ends in ("reset", "half_close"):
        go = door.recorder.gate()
        door.recorder.requests.clear()
        plays(door, script)
        with door.connect() as client:
            client.send(request_of(door))
            door.recorder.wait_until(lambda: door.recorder.requests, "the request")
            getattr(client, ends)()
            go.open()
        for number in range(3):
            assert ask(door, target=b"/%d" % number).body == b"/%d" % number
