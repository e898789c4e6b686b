"""
No I/O: how far a log was passed on, so that another copy of it is taken up where this one broke off, no line twice.

The same log may be read in parts, from a live file, from that of another machine, and from the blob that it ends as.
Where the bytes before the place are those that were passed on, it is the same copy and the place holds. Where they are
not, it is another one, and its lines up to the last one passed on are known by the times that they begin with.
"""

from __future__ import annotations

import re

_TAIL_BYTES = 512
_MAX_LINE_BYTES = 1024 * 1024
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z(?= )")


class LogCursor:
    """The place in one log. Parts are asked for from ``start`` on; they are new beyond ``offset``."""

    def __init__(self) -> None:
        self.offset = 0
        self._tail = b""
        self._held = b""
        # The time of the last line passed on, and how many lines with just this time were.
        self._stamp = b""
        self._same = 0
        self._before = b""  # the time of the line before, in this copy: that of a line which has none
        # While another copy is read from its beginning: how many lines with that time are still to be left out.
        self._to_skip: int | None = None

    @property
    def start(self) -> int:
        """Where to read from: a little before what is new, for ``fresh`` to compare."""
        return self.offset - len(self._tail)

    def fresh(self, part: bytes) -> bytes | None:
        """
        What is new of *part*, which was read from ``start`` on, to be given to ``take``.

        None where it is of another copy, which is to be read from the (new) ``start`` on.
        """
        if part.startswith(self._tail):
            return part[len(self._tail) :]
        self.offset = 0
        self._tail = self._held = self._before = b""
        self._to_skip = self._same
        return None

    def take(self, data: bytes) -> bytes:
        """The next bytes of this copy: what of them is to be passed on, in whole lines."""
        self.offset += len(data)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        *whole, self._held = (self._held + data).split(b"\n")
        lines = [line + b"\n" for line in whole]
        if len(self._held) > _MAX_LINE_BYTES:  # nobody of ours writes such lines
            lines.append(self._held)
            self._held = b""
        return b"".join(line for line in lines if self._is_new(line))

    def end(self) -> bytes:
        """What was held back: the log ends in the middle of a line."""
        held, self._held = self._held, b""
        return held if held and self._is_new(held) else b""

    def _is_new(self, line: bytes) -> bool:
        found = _STAMP.match(line)
        stamp = self._before = found[0] if found else self._before
        if self._to_skip is not None:
            if stamp < self._stamp:
                return False
            if stamp == self._stamp and self._to_skip > 0:
                self._to_skip -= 1
                return False
            self._to_skip = None
        if stamp == self._stamp:
            self._same += 1
        else:
            self._stamp, self._same = stamp, 1
        return True
