"""The log's lines do not depend on how the output happened to arrive."""

from __future__ import annotations

import errno
import os
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.launchers import shim_log
from autoscaler.launchers.shim_log import Log


def logged(chunks: list[bytes], max_chars: int = 10_000_000) -> list[bytes]:
    """The lines, without their times, that these chunks leave in a fresh log."""
    with tempfile.TemporaryFile() as file:
        log = Log(file.fileno(), max_chars)
        for chunk in chunks:
            log.feed(chunk)
        log.flush()
        file.seek(0)
        text = file.read()
    assert text == b"" or text.endswith(b"\n")
    return [line[25:] for line in text.split(b"\n")[:-1]]


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b"\r\n", b"ab\nc"]), max_size=20))
def test_chunks_do_not_matter(chunks):
    """However output is cut into reads, its lines are the same bytes, less a carriage return at their end."""
    whole = b"".join(chunks)
    lines = whole.split(b"\n")
    if not lines[-1]:
        lines.pop()
    assert logged(chunks) == [line.removesuffix(b"\r") for line in lines]


@given(st.text(alphabet="a\u017e\u20ac\U0001f600", min_size=1, max_size=50), st.integers(65_000, 140_000))
def test_long_lines_are_cut_between_characters(pattern, chars):
    """Every piece of a too long line is valid UTF-8 of at most 64 KiB, and together they are the line."""
    text = (pattern * chars)[:chars]
    pieces = logged([text.encode()[:70_000], text.encode()[70_000:]])
    assert "".join(piece.decode() for piece in pieces) == text
    assert all(len(piece) <= 64 * 1024 for piece in pieces)


@given(st.lists(st.integers(0, 200), max_size=30), st.integers(0, 2000))
def test_limit(lengths, max_chars):
    """The log is complete, or a beginning of whole lines within the limit and one line that says so."""
    lines = [b"x" * length for length in lengths]
    kept = logged([line + b"\n" for line in lines], max_chars)
    if kept != lines:
        assert b"The log is full" in kept.pop()
        assert kept == lines[: len(kept)]
    assert sum(len(line) + 26 for line in kept) <= max_chars


def test_limit_counts_what_is_there(tmp_path):
    """A run that is started again goes on in the same log, under the same limit."""
    path = tmp_path / "log"
    path.write_bytes(b"y" * 99 + b"\n")
    with path.open("ab", buffering=0) as file:
        Log(file.fileno(), 110).feed(b"one line\n")
    assert b"one line" not in path.read_bytes()


class SmallDisk:
    """Takes ``room`` bytes, then none."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._write = os.write

    def write(self, fd: int, text: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self._write(fd, text[: self.room])
        self.room -= taken
        return taken


@pytest.mark.parametrize(
    ("room", "kept", "lost"),
    [
        pytest.param(0, 0, 3, id="nothing written"),
        pytest.param(30, 1, 3, id="half a line written"),
        pytest.param(36 + 30, 2, 2, id="one line and a half"),
    ],
)
def test_full_disk(monkeypatch, tmp_path, room, kept, lost):
    """Lines lost to a full disk are counted in the log as soon as there is room again, and no line is glued."""
    path = tmp_path / "log"
    disk = SmallDisk(room)
    with path.open("ab", buffering=0) as file:
        log = Log(file.fileno(), 10_000)
        monkeypatch.setattr(shim_log.os, "write", disk.write)
        log.feed(b"first line\nsecond line\n")
        log.feed(b"third line\n")
        disk.room = 1_000
        log.feed(b"fourth line\n")
        monkeypatch.undo()
    lines = [line[25:] for line in path.read_text().splitlines()]
    assert lines[kept:] == [f"[Greenroom] {lost} lines could not be written here.", "fourth line"]
