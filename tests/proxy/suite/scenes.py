"""
What a semantics scene is, the list of all, and what most of them do.

A scene is a function of a door; its docstring is the promise. ``needs_greenroom`` marks those that are about hosts,
tokens, runs or errors of Greenroom: the others are asked of nginx and HAProxy as well.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from proxy.suite.client import Client
from proxy.suite.recorder import Request, Script, Turn
from proxy.suite.stage import Door, greenroom_door
from proxy.suite.wire import Message

Play = Callable[[Door], None]
GONE_SECS = 1.0
"""So soon the gateway ends a connection to the Actor that nobody needs any more."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One promise and how to see whether it is kept."""

    name: str
    play: Play
    needs_greenroom: bool = False


SCENES: dict[str, Scene] = {}


def scene(play: Play) -> Play:
    """This is a scene."""
    return _add(play, needs_greenroom=False)


def own_scene(play: Play) -> Play:
    """This is a scene that only Greenroom can play."""
    return _add(play, needs_greenroom=True)


def _add(play: Play, *, needs_greenroom: bool) -> Play:
    name = play.__name__.replace("_", " ")
    assert name not in SCENES, name
    SCENES[name] = Scene(name=name, play=play, needs_greenroom=needs_greenroom)
    return play


def request_of(
    door: Door, *lines: bytes, method: bytes = b"GET", target: bytes = b"/x", host: bytes = b"@HOST@", minor: int = 1
) -> bytes:
    """A request's head; with *lines* that may hold the door's placeholders."""
    first = method + b" " + target + b" HTTP/1.%d\r\n" % minor
    return door.fill(b"".join((first, b"Host: ", host, b"\r\n", *(line + b"\r\n" for line in lines), b"\r\n")))


def ask(door: Door, *lines: bytes, body: bytes = b"", **options: Any) -> Message:
    """The final answer to one request on a connection of its own."""
    with door.connect() as client:
        client.send(request_of(door, *lines, **options) + body)
        return client.final(options.get("method", b"GET"))


def only_request(door: Door) -> Request:
    """The one request that has come."""
    assert len(door.recorder.requests) == 1, door.recorder.seen()
    return door.recorder.requests[0]


def seen_of(door: Door, *lines: bytes, **options: Any) -> Message:
    """One request as the Actor got it."""
    answer = ask(door, *lines, **options)
    assert answer.status == 200, answer
    return only_request(door).message


def says(door: Door, *pieces: bytes, path: bytes = b"/x", closes: bool = False) -> None:
    """The Actor reads a request for *path* and answers with these very bytes."""

    async def script(turn: Turn) -> None:
        await turn.body()
        for piece in pieces:
            await turn.write(piece)
        if closes:
            turn.close()

    plays(door, script, path=path)


def plays(door: Door, script: Script, *, path: bytes = b"/x") -> None:
    """The Actor does this upon a request for *path*."""
    door.recorder.scripts[path] = script


def wait_gone(door: Door, number: int) -> None:
    """The gateway has ended that connection to the Actor, within the second that is promised (and a busy machine's)."""
    ends = [one for one in door.recorder.connections if one.number == number]
    began = time.monotonic()
    door.recorder.wait_until(lambda: all(one.has_ended for one in ends), "the end of the Actor's connection")
    assert time.monotonic() - began < GONE_SECS + 1.0


@contextlib.contextmanager
def dying_run(door: Door) -> Iterator[bytes]:
    """
    The host of an Actor whose run dies upon a request for /x: its connection and its server are gone, and another run,
    whose recorder is the door's, is there. Ask for something else before, so that the connection is one that was kept.
    """
    stand, stage, host = door.stand, door.stage, b"bob--open-spare.localhost"
    assert stand is not None
    assert stage is not None
    recorder, runs = stage.recorder(), list[str]()

    async def die(turn: Turn) -> None:
        await turn.body()
        recorder.listen_no_more()
        runs.append(await stand.put_run("open-spare", door.recorder.port))
        turn.reset()

    recorder.scripts[b"/x"] = die
    runs.append(stage.call(stand.put_run("open-spare", recorder.port)))
    try:
        yield host
    finally:
        stage.call(stand.settle())
        for run in runs:
            stage.call(stand.end_run(run))
    assert len({request.connection.number for request in recorder.requests}) == 1, recorder.seen()


def is_in_step(door: Door, client: Client) -> None:
    """The connection still serves a request, and answers it with its own answer."""
    client.send(request_of(door, target=b"/in-step"))
    answer = client.final()
    assert (answer.status, answer.body) == (200, b"/in-step"), answer


def other_door(door: Door, **settings: Any) -> Door:
    """The same way through a Greenroom that has other *settings*."""
    assert door.stage is not None
    other = greenroom_door(door.stage, door.path, is_cold=door.is_cold, **settings)
    other.settle()
    other.recorder.forget()
    return replace(other, name=door.name)
