"""Colours are taken out of logs, wherever the pieces are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.api.log_text import AnsiStripper
from gateway.live_logs import strip_ansi

texts = st.lists(st.sampled_from([b"a", b"\x1b", b"[", b"31", b";", b"m", b"\x1b[0m", b"\x1b[?25l", b"\n", b" "])).map(
    b"".join
)


@given(texts, st.integers(1, 5))
def test_pieces_make_no_difference(text: bytes, size: int) -> None:
    """Stripped piece by piece is stripped as a whole."""
    stripper = AnsiStripper()
    pieces = [stripper.feed(text[at : at + size]) for at in range(0, len(text), size)]
    assert b"".join([*pieces, stripper.end()]) == strip_ansi(text)


def test_nothing_is_held_back_for_ever() -> None:
    """Something that never becomes a sequence is passed on."""
    stripper = AnsiStripper()
    given_text = b"\x1b[" + b"1;" * 500
    assert len(b"".join(stripper.feed(given_text[at : at + 10]) for at in range(0, len(given_text), 10))) > 900
