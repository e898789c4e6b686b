"""
No I/O: from the engine's log of a container to the lines of a run's log, with nothing twice and nothing missing.

The engine gives records: a time in nanoseconds, a space, and a piece of output, whole lines or 16 KiB pieces of longer
ones. What a run's log holds already, after a restart of Greenroom, is told by its last lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

_STAMP_CHARS = len("2026-01-02T03:04:05.678Z ")
_OWN_PREFIX = b"ACTOR: "


def line_stamp(engine_time: bytes) -> bytes:
    """``2026-01-02T03:04:05.678901234Z`` as it stands before a line of a run's log: with milliseconds and a space."""
    whole, _, fraction = engine_time.partition(b".")
    return whole.removesuffix(b"Z") + b"." + fraction.removesuffix(b"Z")[:3].ljust(3, b"0") + b"Z "


class Assembler:
    """Puts the engine's records together: each ``add`` gives the lines that are whole by now, each with its stamp."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[bytes, bytearray]] = {}

    def add(self, stream: int, record: bytes) -> Iterator[tuple[bytes, bytes]]:
        """One record of standard output (1) or error (2); a piece without a line end waits for the rest of its line."""
        time, _, text = record.partition(b" ")
        begun = self._begun.pop(stream, None)
        stamp, line = begun if begun is not None else (line_stamp(time), bytearray())
        line += text
        if text.endswith(b"\n"):
            yield stamp, bytes(line[:-1]).removesuffix(b"\r")
        else:
            self._begun[stream] = stamp, line

    def rest(self) -> Iterator[tuple[bytes, bytes]]:
        """The output has ended: what was begun is a line."""
        for stamp, line in self._begun.values():
            yield stamp, bytes(line).removesuffix(b"\r")
        self._begun.clear()


class AlreadyKept:
    """
    What of the container's log the run's log holds: *tail* is the end of that, in whole lines.

    Lines from the stamp ``since`` on (None: all of them) may stand there already. Greenroom's own lines say nothing
    about how far the container's have come.
    """

    def __init__(self, tail: Iterable[bytes]) -> None:
        lines = [line for line in tail if line[_STAMP_CHARS - 2 : _STAMP_CHARS] == b"Z "]
        theirs = [line[:_STAMP_CHARS] for line in lines if not line[_STAMP_CHARS:].startswith(_OWN_PREFIX)]
        self.since: bytes | None = max(theirs, default=None)
        self._left = Counter(line for line in lines if self.since is not None and line[:_STAMP_CHARS] >= self.since)

    def is_new(self, line: bytes) -> bool:
        """Whether *line* is to be written; each that stands there already is found once."""
        if self.since is None:
            return True
        if line[:_STAMP_CHARS] < self.since:
            return False
        if self._left[line] > 0:
            self._left[line] -= 1
            return False
        return True
