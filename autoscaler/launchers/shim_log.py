"""How what an Actor prints gets into its run's log, line by line. Standard library only, since the shim uses it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

_MAX_LINE_BYTES = 64 * 1024


class Log:
    """
    Appends whole, stamped lines to the log file, each batch in one write; never raises and never grows past its limit.

    A line longer than 64 KiB becomes several, cut between characters. Bytes go through as they are, without the
    carriage return at a line's end. A full disk loses lines, which is said in the log as soon as there is room again.
    """

    def __init__(self, fd: int, max_chars: int) -> None:
        self._fd = fd
        self._max_chars = max_chars
        self._room = max_chars - os.fstat(fd).st_size
        self._told_limit = self._room < 0  # by whoever wrote to it before
        self._pending = b""
        self._lost_lines = 0
        self._in_broken_line = False

    @property
    def is_full(self) -> bool:
        """Whether it takes no more lines."""
        return self._told_limit

    def feed(self, chunk: bytes) -> None:
        """Take output as it comes; what follows the last newline waits for its end."""
        if self._told_limit:
            return
        lines = (self._pending + chunk).split(b"\n")
        self._pending = lines.pop()
        while len(self._pending) > _MAX_LINE_BYTES:
            piece, self._pending = _cut(self._pending)
            lines.append(piece)
        self.write(_now(), [piece for line in lines for piece in pieces(line)])

    def flush(self) -> None:
        """The output has ended: what is pending is the last line."""
        if self._pending:
            self.write(_now(), [*pieces(self._pending)])
            self._pending = b""

    def write(self, stamp: bytes, lines: list[bytes]) -> None:
        """Append *lines* (no longer than ``pieces`` makes them), each behind *stamp*, a time and a space."""
        if not lines or self._told_limit:
            return
        stamped = [stamp + line.removesuffix(b"\r") + b"\n" for line in lines]
        text = b"".join(stamped)
        if (chars := _chars(text)) <= self._room:
            self._room -= chars
            self._append(stamp, text)
            return
        kept = []
        for line in stamped:
            if (chars := _chars(line)) > self._room:
                break
            self._room -= chars
            kept.append(line)
        self._told_limit = True
        self._pending = b""
        notice = f"[Greenroom] The log is full ({self._max_chars} characters); what follows is not kept.\n".encode()
        self._append(stamp, b"".join(kept) + stamp + notice)

    def _append(self, stamp: bytes, lines: bytes) -> None:
        text = lines
        if self._lost_lines:
            text = stamp + f"[Greenroom] {self._lost_lines} lines could not be written here.\n".encode() + text
        if self._in_broken_line:
            text = b"\n" + text
        written = 0
        try:
            while written < len(text):
                written += os.write(self._fd, text[written:] if written else text)
        except OSError:
            if written:
                self._in_broken_line = text[written - 1 : written] != b"\n"
            new_lines, not_written = lines.count(b"\n"), text.count(b"\n", written)
            was_told = not_written <= new_lines  # that earlier lines were lost
            self._lost_lines = not_written if was_told else self._lost_lines + new_lines
            return
        self._lost_lines, self._in_broken_line = 0, False


def _chars(text: bytes) -> int:
    return len(text.decode("utf-8", "ignore"))


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """The first piece of a too long line, up to 64 KiB, and the rest; no UTF-8 character is cut in two."""
    end = _MAX_LINE_BYTES
    while end > _MAX_LINE_BYTES - 4 and line[end] & 0xC0 == 0x80:
        end -= 1
    return line[:end], line[end:]


def pieces(line: bytes) -> Iterator[bytes]:
    """*line* in pieces of at most 64 KiB."""
    while len(line) > _MAX_LINE_BYTES:
        piece, line = _cut(line)
        yield piece
    yield line


def now() -> str:
    """The present time as it stands in logs and in the API, e.g. ``2026-01-02T03:04:05.678Z``."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def _now() -> bytes:
    return now().encode() + b" "
