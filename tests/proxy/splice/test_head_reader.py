"""Where a head ends: however it is cut into pieces, whatever came before it, and what can't become one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import GreenroomError, HeadTooLarge, InvalidRequest
from gateway.proxy.splice.head_reader import HeadReader
from gateway.proxy.splice.request_cache import RequestHeads

HEADS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\nY: c\r\n\r\n",
    b"GET http://A/y HTTP/1.1\r\nHost: a\r\n\r\n",
]


@given(st.lists(st.sampled_from(HEADS), max_size=8), st.binary(max_size=8), st.data())
def test_heads_are_found_however_they_are_cut(heads: list[bytes], after: bytes, data: st.DataObject) -> None:
    """One after the other on a connection: each as if it were alone, in whatever pieces it comes."""
    reader = HeadReader(RequestHeads())
    for head in heads:
        alone = HeadReader(RequestHeads()).read(head)
        assert alone is not None
        cuts = sorted(data.draw(st.sets(st.integers(1, len(head) - 1), max_size=4)))
        pieces = [head[start:end] for start, end in zip([0, *cuts], [*cuts, len(head)], strict=True)]
        for piece in pieces[:-1]:
            assert reader.read(piece) is None
        found = reader.read(pieces[-1] + after)
        assert found is not None
        line, seen, host, whole, at = found
        assert (line, host, seen.length, seen.values) == (alone[0], alone[2], alone[1].length, alone[1].values)
        assert whole[:at] == head
        assert whole[at:] == after
        assert reader.held == b""


def test_headers_that_came_last_are_known_in_their_version_only() -> None:
    """The same headers in HTTP/1.0 state other facts."""
    reader = HeadReader(RequestHeads())
    for minor in (1, 0, 1):
        found = reader.read(b"GET / HTTP/1.%d\r\nHost: a\r\n\r\n" % minor)
        assert found is not None
        assert found[1].head.minor == minor


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(b"GET / HTTP/1.1\nHost: a\n\n", id="bare line feeds"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\nX", id="a bare line feed among headers"),
        pytest.param(b"\x16\x03\x01\x02\x00", id="TLS"),
        pytest.param(b"\x00", id="NUL"),
        pytest.param(b"\r\n" * 5 + b"G", id="nothing but blank lines"),
        pytest.param(b"{}", id="JSON"),
    ],
)
def test_what_can_not_become_a_head_is_refused_before_it_ends(begin: bytes) -> None:
    """Nobody has to wait for the time limit."""
    with pytest.raises(InvalidRequest):
        HeadReader(RequestHeads()).read(begin)


@pytest.mark.parametrize("begin", [b"", b"\r", b"\r\n", b"\r\n\r", b"G", b"GET", b"GET ", b"GET /x", b"M-SEARCH *"])
def test_what_may_become_a_head_is_waited_for(begin: bytes) -> None:
    """Also after some blank lines."""
    assert HeadReader(RequestHeads()).read(begin) is None


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_limit_is_for_the_head_alone(is_whole: bool) -> None:
    """With its first line, whether or not it ends; what comes after it has no part in it."""
    requests = RequestHeads()
    limit = requests.limits.max_bytes
    around = len(b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n")
    fits = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"v" * (limit - around) + b"\r\n\r\n"
    found = HeadReader(requests).read(fits + b"b" * 200_000)
    assert found is not None
    assert found[4] == limit
    too_large = fits.replace(b"X: ", b"X: v" if is_whole else b"X: vvvv")
    with pytest.raises(HeadTooLarge):
        HeadReader(requests).read(too_large if is_whole else too_large[:-3])


def test_a_refusal_forgets_nothing_of_the_connection() -> None:
    """What is refused is refused each time, known headers or not."""
    reader = HeadReader(RequestHeads())
    assert reader.read(HEADS[0]) is not None
    for _ in range(2):
        with pytest.raises(GreenroomError):
            reader.read(b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n")
