"""
No I/O: what workers and the holder of the events sockets say to each other, as lines of JSON over a Unix socket.

    worker → holder   Take (with the descriptor of an accepted connection), Send, Close
                      Lead: "I serve from now on", Watching: "I would hear whatever these runs are told", LetGo;
                      Alive, each second where there are several workers
    holder → worker   Held: runs with sockets, all of them for the one that is to lead, else those with a new one; Gone
                      Dismissed: another one leads now
    worker → worker   by way of the holder: Use and Told, what a worker that drains still does, and what has changed;
                      AskFigures and Figures, what all workers have counted
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, get_args

MAX_MESSAGE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Take:
    """A connection that asks for the events of a run; *head* is its request, as ASCII. Its descriptor goes along."""

    run_id: str
    head: str


@dataclass(frozen=True, slots=True)
class Send:
    """
    Frames for all sockets of a run. *name* is the first one's event.

    ``once``: not to a socket that has heard an event of this name.
    """

    run_id: str
    name: str
    frames: tuple[str, ...]
    once: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """Close all sockets of a run."""

    run_id: str
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lead:
    """The worker that says so serves from now on: it may be told to lead, at once or when another one lets go."""


@dataclass(frozen=True, slots=True)
class Watching:
    """The worker that is to lead watches all runs that it was told of: from now on it sends the events."""


@dataclass(frozen=True, slots=True)
class LetGo:
    """The worker that says so is about to end: another one is to lead. It goes on until it is dismissed."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The worker that says so is not stuck, and will say so again soon."""


@dataclass(frozen=True, slots=True)
class Dismissed:
    """Another worker sends the events now."""


@dataclass(frozen=True, slots=True)
class Held:
    """
    These runs have sockets. ``is_answer``: to Lead, hence all of them, or none where another worker leads; comes once
    more when that one is to be followed.
    """

    runs: tuple[str, ...]
    is_answer: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """A run's last socket has gone."""

    run_id: str


@dataclass(frozen=True, slots=True)
class Use:
    """
    What a worker that drains still does: for each run its id, requests, seconds of rest, viewers. It counts until that
    worker ends, or until the next; an empty one ends it.
    """

    gateway_id: str
    runs: tuple[tuple[str, int, float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """A record changed."""

    kind: str
    id: str


@dataclass(frozen=True, slots=True)
class AskFigures:
    """All other workers are asked for their figures; *question* is as good as unique."""

    question: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The answer of the worker in one *lane*, as text."""

    question: str
    lane: int
    text: str


Message = (
    Take | Send | Close | Lead | Watching | LetGo | Alive | Dismissed | Held | Gone | Use | Told | AskFigures | Figures
)

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """*message* as one line."""
    return json.dumps([type(message).__name__, asdict(message)], separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of one line. Raises ValueError for what is none."""
    try:
        name, fields = json.loads(line)
        message: Message = _KINDS[name](**{key: _frozen(value) for key, value in fields.items()})
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"no message: {line[:80]!r}") from error
    return message


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class Lines:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that *data* completes. Raises ValueError for what is none, and for one without an end."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            yield decode(line)
        if len(self._rest) > MAX_MESSAGE_BYTES:
            raise ValueError("a message without an end")
