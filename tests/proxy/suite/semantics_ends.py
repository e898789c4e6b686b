"""Scenes: what becomes of a connection and of the one behind it when either side breaks off."""

from __future__ import annotations

import time

from proxy.suite.recorder import Turn
from proxy.suite.scenes import (
    GONE_SECS,
    OK,
    ask,
    dying_run,
    only_request,
    own_scene,
    plays,
    request_of,
    says,
    scene,
    wait_gone,
)
from proxy.suite.stage import Door

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


def _run_that_has_died(name: str, *lines: bytes, method: bytes, body: bytes) -> None:
    def play(door: Door) -> None:
        with dying_run(door) as host:
            assert ask(door, target=b"/warm-up", host=host).status == 200
            answer = ask(door, *lines, method=method, host=host, body=body)
            assert (answer.status, answer.body) == (200, b"/x")
        assert only_request(door).message.body == (b"hello" if body else b"")

    play.__name__ = name
    play.__doc__ = "Whoever may be asked twice is asked at the next run, with the whole body that the first one had."
    own_scene(play)


_run_that_has_died("a run that has died and a GET", method=b"GET", body=b"")
_run_that_has_died("a run that has died and a PUT", b"Content-Length: 5", method=b"PUT", body=b"hello")
_run_that_has_died(
    "a run that has died and a DELETE in chunks",
    b"Transfer-Encoding: chunked",
    method=b"DELETE",
    body=b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
)


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
    wait_gone(door, number)


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
    wait_gone(door, number)


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
    wait_gone(door, number)


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
    wait_gone(door, number)
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
    wait_gone(door, request.connection.number)
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
        assert time.monotonic() - began < GONE_SECS + 1.0
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
