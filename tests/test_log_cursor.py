"""Logs read in parts and from several copies: each line comes once, whatever breaks off where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.log_cursor import LogCursor

PART_BYTES = 700


def line(ms: int, text: str) -> bytes:
    return f"2026-01-01T00:00:{ms // 1000:02}.{ms % 1000:03}Z {text}\n".encode()


class Copy:
    """One copy of a log, of which so much is there by now."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def part(self, start: int) -> bytes:
        return self.data[start : start + PART_BYTES]


def read(cursor: LogCursor, copy: Copy) -> bytes:
    """What a reader passes on that reads a copy until it holds nothing new."""
    passed = b""
    while True:
        fresh = cursor.fresh(copy.part(cursor.start))
        if fresh == b"":
            return passed
        if fresh is not None:
            passed += cursor.take(fresh)


A, B, B2, C = line(1, "a"), line(5, "b"), line(5, "b"), line(7, "c")

# Times that stand still, as those of many lines in one millisecond, and lines that are alike.
steps = st.lists(st.tuples(st.integers(0, 2), st.text("ab\r \x85", max_size=60)), max_size=60)


def log_of(given: list[tuple[int, str]]) -> list[bytes]:
    ms, lines = 10, []
    for step, text in given:
        ms += step
        lines.append(line(ms, text))
    return lines


@given(steps, st.lists(st.integers(0, 4000), max_size=6))
def test_the_same_copy_grows(given: list[tuple[int, str]], lengths: list[int]) -> None:
    """Looked at now and then, also amid a line: what is passed on are whole lines, and all of them once."""
    whole = b"".join(log_of(given))
    cursor, passed = LogCursor(), b""
    for length in sorted(lengths):
        passed += read(cursor, Copy(whole[:length]))
        assert passed == b"" or passed.endswith(b"\n")
    passed += read(cursor, Copy(whole))
    assert passed + cursor.end() == whole


@given(steps, st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), max_size=4))
def test_another_copy_takes_over(given: list[tuple[int, str]], breaks: list[tuple[int, int]]) -> None:
    """
    A copy ends anywhere, even amid a line, and the next one, which is not the same byte for byte, goes on: the lines of
    the log come once each, in order, and none of another copy's earlier ones.
    """
    lines = log_of(given)
    cursor, passed = LogCursor(), b""
    for number, (count, cut) in enumerate(sorted(breaks)):
        there = b"".join(lines[:count]) + (lines[count][:cut] if count < len(lines) else b"")
        passed += read(cursor, Copy(line(number, "this copy begins") + there))
    passed += read(cursor, Copy(line(9, "this copy begins") + b"".join(lines))) + cursor.end()
    heard = [one for one in passed.split(b"\n") if b" this copy begins" not in one]
    assert heard == b"".join(lines).split(b"\n")


@pytest.mark.parametrize(
    ("first", "second", "added"),
    [
        pytest.param([A, B], [A, B, B2], [B2], id="several of one millisecond"),
        pytest.param([A, B], [C], [C], id="only later lines"),
        pytest.param([B], [A, B], [], id="older lines that never came"),
        pytest.param([A], [], [], id="an empty copy"),
        pytest.param([], [b"no time\n"], [b"no time\n"], id="a line without a time"),
        pytest.param(
            [A, b"no time\n"], [A, b"no time\n", B], [B], id="a line without a time has that of the one before"
        ),
        pytest.param([B], [B, C, A], [C, A], id="not in order, once it is new"),
    ],
)
def test_two_copies(first: list[bytes], second: list[bytes], added: list[bytes]) -> None:
    """What the second one adds to the first; its own first line, of an early time, makes it another one."""
    cursor = LogCursor()
    assert read(cursor, Copy(b"".join(first))) == b"".join(first)
    begin = [line(0, "another copy")]
    assert read(cursor, Copy(b"".join(begin + second))) == b"".join(added if first else begin + added)


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    """Memory is bounded; what is too long is passed on in pieces."""
    cursor = LogCursor()
    passed = b"".join(cursor.take(b"x" * 100_000) for _ in range(25))
    assert len(passed) >= 1_000_000
    assert passed + cursor.end() == b"x" * 2_500_000
