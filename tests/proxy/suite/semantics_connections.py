"""Scenes: several requests over one connection, and several connections."""

from __future__ import annotations

from proxy.suite.recorder import Turn
from proxy.suite.scenes import OK, ask, is_in_step, own_scene, plays, request_of, says, scene
from proxy.suite.stage import Door


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
