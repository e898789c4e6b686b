"""
No I/O: sockets and streams whose silence has a limit, and what of an event stream is more than a sign of life.

Such a one is use of its run only as long as something passes on it: pings and pongs of a WebSocket and the comment
lines of an event stream, by which both keep their connections from being cut, are nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.proxy.plan import Headers
from gateway.proxy.splice.chunks import ChunkWalker


@dataclass(slots=True, eq=False)
class OpenStream:
    """
    One that is open: it holds one slot of its run.

    ``heard_at`` is when something passed on it last, on the monotonic clock. *close* asks both its ends to leave, with
    a close code and a reason; where there is no word for it, it is cut. ``ear`` None: all that comes says something.
    ``wake`` is called when the caller says something to a run that stands still.
    """

    limit_secs: float
    heard_at: float
    close: Callable[[int, str], None]
    ear: Ear | None = None
    wake: Callable[[], None] | None = None

    @property
    def silent_at(self) -> float:
        """From when on it is no use, if nothing passes until then."""
        return self.heard_at + self.limit_secs

    def heard(self, now: float) -> None:
        """Something passed."""
        self.heard_at = now
        if self.wake is not None:
            self.wake()

    def hear(self, pieces: Sequence[bytes], now: float) -> None:
        """*pieces* of an answer's body pass."""
        if pieces and (self.ear is None or self.ear.hears(pieces)):
            self.heard_at = now


# In the text of an event stream (HTML §9.2.6): where a line begins that is neither empty nor a comment.
_FIELD_LINE = re.compile(rb"[\r\n][^:\r\n]")
_LINE_ENDS = b"\r\n"


class EventText:
    """The text of one event stream, as it comes: cut at any byte."""

    __slots__ = ("_is_comment", "_is_line_begun")

    def __init__(self) -> None:
        self._is_line_begun = False
        self._is_comment = False

    def feed(self, data: bytes) -> bool:
        """Whether there is anything in *data* but comments and empty lines."""
        if not data:
            return False
        first = data[:1]
        if not self._is_line_begun:
            self._is_comment = first == b":"
        has_field = (not self._is_comment and first not in _LINE_ENDS) or _FIELD_LINE.search(data) is not None
        begins = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if begins:
            self._is_comment = data[begins : begins + 1] == b":"
        self._is_line_begun = begins < len(data)
        return has_field


class Ear:
    """Hears of the pieces of an event stream's body, which are *is_chunked* or bare, whether they say anything."""

    __slots__ = ("_text", "_walker")

    def __init__(self, *, is_chunked: bool) -> None:
        self._text = EventText()
        self._walker = ChunkWalker(bare=True) if is_chunked else None

    def hears(self, pieces: Sequence[bytes]) -> bool:
        """Whether there is anything in them but comments and empty lines."""
        if self._walker is not None:
            # They have been walked before, so there is nothing in them to refuse.
            pieces = [data for piece in pieces for data in self._walker.feed(piece)[0]]
        return self._text.feed(b"".join(pieces))


def ear_for(headers: Headers, *, is_chunked: bool) -> Ear | None:
    """What hears of an answer with these headers; None: all that comes of it says something."""
    kinds = [(name.lower(), value.lower()) for name, value in headers]
    is_events = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in kinds)
    is_coded = any(name == b"content-encoding" and value != b"identity" for name, value in kinds)
    return Ear(is_chunked=is_chunked) if is_events and not is_coded else None
