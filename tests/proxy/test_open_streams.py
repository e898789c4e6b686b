"""What of a stream is more than a sign of life, and from when on a silent one is no use."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.open_streams import EventText, OpenStream, ear_for
from gateway.proxy.plan import Headers

EVENTS: Headers = [(b"Content-Type", b"text/event-stream; charset=utf-8")]
LINES = [b": ping", b":", b"", b"data: 1", b"event: x", b"retry", b" :x", b"data", b": data: 1"]


def stream(headers: Headers, *, is_chunked: bool = False) -> OpenStream:
    """One that was heard at 0 and is no use after 10 seconds."""
    return OpenStream(10.0, 0.0, lambda _code, _reason: None, ear_for(headers, is_chunked=is_chunked))


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        pytest.param([b": ping\n\n"], False, id="a comment"),
        pytest.param([b":\r\r"], False, id="an empty comment"),
        pytest.param([b"\r\n\r\n"], False, id="empty lines"),
        pytest.param([b"data: 1\n\n"], True, id="data"),
        pytest.param([b": ping\r\ndata: 1\r\n"], True, id="data after a comment"),
        pytest.param([b"data: 1\n: ping\n"], True, id="a comment after data"),
        pytest.param([b": a", b"b: c", b"\n"], False, id="a comment in pieces"),
        pytest.param([b"id: 1", b""], True, id="any field"),
        pytest.param([b": a:\ndata"], True, id="a line that has not ended"),
    ],
)
def test_what_an_event_stream_says(pieces: list[bytes], says: bool) -> None:
    """Comments and empty lines say nothing."""
    text = EventText()
    heard = [text.feed(piece) for piece in pieces]
    assert any(heard) is says


@given(
    st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=12),
    st.lists(st.integers(0, 200), max_size=6),
)
def test_an_event_stream_says_the_same_however_it_is_cut(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    """A line that is neither empty nor begins with a colon says something, wherever the pieces of its text end."""
    whole = b"".join(line + end for line, end in lines)
    ends = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    text = EventText()
    heard = [text.feed(whole[begin:end]) for begin, end in pairwise(ends)]
    assert any(heard) is any(line and not line.startswith(b":") for line, _ in lines)


def test_every_byte_of_other_answers_says_something() -> None:
    """Only an event stream has signs of life, and only one whose text can be read."""
    for headers in ([], [(b"content-type", b"text/plain")], [*EVENTS, (b"Content-Encoding", b"gzip")]):
        one = stream(headers)
        one.hear([b": ping\n\n"], 5.0)
        assert one.silent_at == 15.0
    same = stream([*EVENTS, (b"content-encoding", b"identity")])
    same.hear([b": ping\n\n"], 5.0)
    assert same.silent_at == 10.0


def test_chunks_are_looked_into() -> None:
    """On a spliced answer the pieces are chunks as they stand on the wire, perhaps cut; their sizes say nothing."""
    one = stream(EVENTS, is_chunked=True)
    one.hear([b"8\r\n: ping\n\n\r\n8\r\n: p"], 5.0)
    one.hear([b"ing\n\n\r\n"], 6.0)
    one.hear((), 7.0)
    assert one.silent_at == 10.0
    one.hear([b"9\r\ndata: 1\n\n", b"\r\n0\r\n\r\n"], 8.0)
    assert one.silent_at == 18.0
