"""Chunked bodies: the same data and trailers whatever the spelling and the cuts, in one spelling; or refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.proxy.splice.chunks import BadChunk, ChunkWalker, may_come_late

Trailers = list[tuple[bytes, bytes]]


def walk(wire: bytes, cuts: Iterable[int] = (), *, bare: bool = False) -> tuple[ChunkWalker, bytes, bytes]:
    """*wire* in pieces of *cuts* bytes, then the rest: the walker, what it passes on, and what is none of the body."""
    walker = ChunkWalker(bare=bare)
    out, at = b"", 0
    for data in _pieces(wire, cuts):
        pieces, end = walker.feed(data)
        out += b"".join(pieces)
        at += end
        if walker.is_complete:
            break
        assert end == len(data)
    return walker, out, wire[at:]


def _pieces(wire: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    at = 0
    for cut in cuts:
        if at + cut >= len(wire):
            break
        yield wire[at : at + cut]
        at += cut
    yield wire[at:]


def byte_by_byte(wire: bytes) -> list[int]:
    """The cuts for it."""
    return [1] * len(wire)


def heard(wire: bytes) -> tuple[bytes, Trailers, bytes]:
    """What h11 reads of a chunked body: data, trailers, and what is left over."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + wire)
    data = b""
    while True:
        event = reader.next_event()
        if isinstance(event, h11.Data):
            data += event.data
        elif isinstance(event, h11.EndOfMessage):
            return data, [(bytes(name), bytes(value)) for name, value in event.headers], reader.trailing_data[0]
        else:
            assert isinstance(event, h11.Request), event


WIRES = [
    pytest.param(b"0\r\n\r\n", b"0\r\n\r\n", b"", id="nothing"),
    pytest.param(b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="the usual"),
    pytest.param(b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc", id="several"),
    pytest.param(b"A\r\n0123456789\r\n0\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", id="large digits"),
    pytest.param(b"003\r\nabc\r\n000\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="leading zeros"),
    pytest.param(b"0000000000000003\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="16 digits"),
    pytest.param(b'3;x=y;z="a;b"\r\nabc\r\n0;last\r\n\r\n', b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="extensions"),
    pytest.param(b"3 \t;x\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="space before an extension"),
    pytest.param(b"3;\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"abc", id="an empty extension"),
    pytest.param(b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n", id="data of line breaks"),
    pytest.param(b"3\r\n0\r\n\r\n0\r\n\r\n", b"3\r\n0\r\n\r\n0\r\n\r\n", b"0\r\n", id="data that looks like the end"),
    pytest.param(
        b"1\r\na\r\n0\r\nX-Sum: 1 \r\nx-sum:2\r\n\r\n",
        b"1\r\na\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n",
        b"a",
        id="a trailer, in order, with duplicates",
    ),
    pytest.param(
        b"0\r\nContent-Length: 5\r\nA:\r\nHost: x\r\n\r\n", b"0\r\nA: \r\n\r\n", b"", id="a trailer of which some stays"
    ),
]


@pytest.mark.parametrize("is_cut", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(("wire", "expected", "data"), WIRES)
def test_one_spelling(wire: bytes, expected: bytes, data: bytes, is_cut: bool) -> None:
    """What goes on is spelled in one way, and what follows the body is none of it."""
    walker, out, rest = walk(wire + b"GET /", byte_by_byte(wire) if is_cut else ())
    assert (out, rest, walker.is_complete, walker.data_bytes) == (expected, b"GET /", True, len(data))
    bare, got, rest = walk(wire + b"GET /", byte_by_byte(wire) if is_cut else (), bare=True)
    assert (got, rest, bare.is_complete, bare.data_bytes) == (data, b"GET /", True, len(data))


@pytest.mark.parametrize("start", [1, 5, 30])
def test_it_may_begin_anywhere(start: int) -> None:
    """A read brings a head first; the index that is given back is one in the same bytes."""
    wire = b"3;x\r\nabc\r\n0\r\n\r\n"
    walker = ChunkWalker()
    pieces, end = walker.feed(b"h" * start + wire + b"rest", start)
    assert b"".join(pieces) == b"3\r\nabc\r\n0\r\n\r\n"
    assert end == start + len(wire)


def test_nothing_is_taken_after_the_end() -> None:
    """What comes later is the next message's."""
    walker, _, _ = walk(b"0\r\n\r\n")
    assert walker.feed(b"0\r\n\r\n") == ([], 0)
    assert walker.feed(b"abc", 1) == ([], 1)


def test_large_data_is_not_copied() -> None:
    """A read within one chunk, or of many chunks in their usual spelling, goes on as the very same bytes."""
    walker = ChunkWalker()
    data = bytes(256 * 1024)
    assert walker.feed(b"100000\r\n")[0] == [b"100000\r\n"]
    for _ in range(3):
        pieces, _ = walker.feed(data)
        assert len(pieces) == 1
        assert pieces[0] is data
    many = b"".join([b"4000\r\n" + bytes(0x4000) + b"\r\n"] * 16)
    pieces, end = ChunkWalker().feed(many)
    assert (len(pieces), end) == (1, len(many))
    assert pieces[0] is many


def test_only_the_odd_line_is_written_anew() -> None:
    """Around it, what came goes on as it came, in few pieces."""
    usual = b"1\r\na\r\n" * 10
    pieces, _ = ChunkWalker().feed(usual + b"01\r\na\r\n" + usual)
    assert pieces == [usual, b"1\r\n", b"a\r\n" + usual]


def test_data_is_passed_on_before_its_chunk_is_whole() -> None:
    """An event stream does not wait."""
    walker = ChunkWalker()
    assert walker.feed(b"a\r\nda") == ([b"a\r\nda"], 5)
    assert walker.feed(b"ta") == ([b"ta"], 2)
    assert walker.data_bytes == 4


BAD = [
    pytest.param(b"\r\n", id="no size"),
    pytest.param(b"x\r\n", id="no number"),
    pytest.param(b"-1\r\n", id="less than nothing"),
    pytest.param(b"+1\r\n", id="a sign"),
    pytest.param(b"0x1\r\n", id="a prefix"),
    pytest.param(b"1_0\r\n", id="an underscore"),
    pytest.param(b" 1\r\n", id="space first"),
    pytest.param(b"1 \r\n", id="space last"),
    pytest.param(b"1\t\r\n", id="tab last"),
    pytest.param(b"1 2\r\n", id="two sizes"),
    pytest.param(b"1,x\r\n", id="something else for a semicolon"),
    pytest.param(b"1\n", id="a bare LF"),
    pytest.param(b"1\r\ra", id="CR without LF"),
    pytest.param(b"1\r\r\n", id="CR CR LF"),
    pytest.param(b"1\ra\r\n", id="CR in the line"),
    pytest.param(b"1;x\n", id="a bare LF after an extension"),
    pytest.param(b"1;x\ny\r\n", id="a bare LF in an extension"),
    pytest.param(b"1;x\ry\r\n", id="a bare CR in an extension"),
    pytest.param(b"1;x\x00\r\n", id="NUL in an extension"),
    pytest.param(b"1;x\x7f\r\n", id="DEL in an extension"),
    pytest.param(b"1\x00\r\n", id="NUL after the size"),
    pytest.param(b"\xef\xbc\x91\r\n", id="a digit of another kind"),
    pytest.param(b"0" * 17 + b"\r\n", id="17 digits"),
    pytest.param(b"0" * 16 + b"1\r\n", id="17 digits, a number all the same"),
    pytest.param(b"8000000000000000\r\n", id="too large for a sign"),
    pytest.param(b"ffffffffffffffff\r\n", id="all bits"),
    pytest.param(b"10000000000000001\r\n", id="an overflow"),
    pytest.param(b"1;" + b"x" * 4095 + b"\r\n", id="a long extension"),
    pytest.param(b"1;" + b"x" * 4096, id="an extension without end"),
    pytest.param(b"1\r\nab\r\n", id="longer than its size"),
    pytest.param(b"3\r\nab\r\n0\r\n\r\n", id="shorter than its size"),
    pytest.param(b"1\r\na\n", id="a bare LF after data"),
    pytest.param(b"1\r\na\rb", id="a bare CR after data"),
    pytest.param(b"1\r\na\r\r\n", id="CR CR LF after data"),
    pytest.param(b"1\r\na1\r\nb\r\n", id="nothing after data"),
    pytest.param(b"1\r\na\r\n\r\n", id="an empty line between chunks"),
    pytest.param(b"0\n\r\n", id="a bare LF after the last size"),
    pytest.param(b"0\r\n\n", id="a bare LF at the end"),
    pytest.param(b"0\r\nX\r\n", id="a trailer without colon"),
    pytest.param(b"0\r\n: x\r\n", id="a trailer without name"),
    pytest.param(b"0\r\nX : y\r\n", id="space before the colon"),
    pytest.param(b"0\r\n X: y\r\n", id="a folded trailer, or space first"),
    pytest.param(b"0\r\nA: b\r\n c\r\n", id="a folded trailer"),
    pytest.param(b"0\r\nX: y\nZ: z\r\n", id="a bare LF in a trailer"),
    pytest.param(b"0\r\nX: y\rz\r\n", id="a bare CR in a trailer"),
    pytest.param(b"0\r\nX: \x00\r\n", id="NUL in a trailer"),
    pytest.param(b"0\r\nX\xff: y\r\n", id="a name outside of ASCII"),
    pytest.param(b"0\r\nGET / HTTP/1.1\r\n", id="a request for a trailer"),
    pytest.param(b"0\r\n" + b"X: y\r\n" * 101, id="101 trailers"),
    pytest.param(b"0\r\n" + b"Host: y\r\n" * 101, id="101 trailers that go nowhere"),
    pytest.param(b"0\r\nX: " + b"y" * (16 * 1024) + b"\r\n", id="a long trailer"),
    pytest.param(b"0\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 17, id="long trailers"),
    pytest.param(b"0\r\nX: " + b"y" * (17 * 1024), id="a trailer without end"),
]


@pytest.mark.parametrize("bare", [False, True], ids=["framed", "bare"])
@pytest.mark.parametrize("before", [b"", b"2\r\nok\r\n"], ids=["first", "later"])
@pytest.mark.parametrize("step", [0, 1, 2, 1000])
@pytest.mark.parametrize("wire", BAD)
def test_what_is_refused(wire: bytes, step: int, before: bytes, bare: bool) -> None:
    """However it is cut; and nothing of a bad end goes on."""
    walker = ChunkWalker(bare=bare)
    out = b""

    def feed() -> None:
        nonlocal out
        for data in _pieces(before + wire, [step or 1] * (len(before + wire) if step else 0)):
            out += b"".join(walker.feed(data)[0])

    with pytest.raises(BadChunk):
        feed()
    assert not walker.is_complete
    assert not out.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "wire", [b"g", b"1x", b"1 x", b"00000000000000000", b"1;\x00", b"1\r1", b"1\r\nab", b"0\r\nX ", b"0\r\n("]
)
def test_refused_as_soon_as_it_can_be(wire: bytes) -> None:
    """Where no end of the line could make it good, its end is not waited for."""
    with pytest.raises(BadChunk):
        walk(wire, byte_by_byte(wire))


def test_bounds_of_the_trailer() -> None:
    """As many as are allowed pass, and the limits are given."""
    trailers = b"X: y\r\n" * 100
    assert walk(b"0\r\n" + trailers + b"\r\n")[1] == b"0\r\n" + trailers + b"\r\n"
    line = b"X: " + b"y" * (16 * 1024 - 5) + b"\r\n"
    assert walk(b"0\r\n" + line + b"\r\n")[0].is_complete
    walker = ChunkWalker(max_trailers=1, max_trailer_bytes=10)
    with pytest.raises(BadChunk):
        walker.feed(b"0\r\nA: b\r\nA: b\r\n")
    with pytest.raises(BadChunk):
        ChunkWalker(max_trailers=1, max_trailer_bytes=10).feed(b"0\r\nA: 456789\r\n")


def test_extensions_may_not_be_the_most_of_it() -> None:
    """One for each usual chunk is fine for ever; a stream of little else is refused (as in CVE-2023-39326)."""
    signature = b";chunk-signature=" + b"0" * 64
    signed = b"10000" + signature + b"\r\n" + bytes(0x10000) + b"\r\n"
    walker = ChunkWalker()
    for _ in range(300):
        walker.feed(signed)
    mean = b"1" + signature + b"\r\nx\r\n"
    with pytest.raises(BadChunk, match="extensions"):
        walker.feed(mean * 300)


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length", "transfer-encoding", "Host", "Authorization", "X-Apify-Authorization", "Cookie", "Set-Cookie",
        "Connection", "Keep-Alive", "Proxy-Authorization", "TE", "Trailer", "Upgrade", "Forwarded", "X-Forwarded-For",
        "X-Forwarded-Whatever", "Via", "X-Actor-Request-ID", "Content-Type", "Content-Encoding", "Content-Range",
        "Expect", "Cache-Control", "Sec-WebSocket-Key", "Access-Control-Allow-Origin", "Content_Length",
        "X_Forwarded_For", "X-Apify-Container-Server-Readiness-Probe",
    ],
)  # fmt: skip
def test_what_may_not_come_late(name: str) -> None:
    """Nothing that would change what was already decided, and no credential."""
    assert not may_come_late(name.encode())
    assert walk(b"0\r\n%b: x\r\nX-Sum: 1\r\n\r\n" % name.encode())[1] == b"0\r\nX-Sum: 1\r\n\r\n"


@pytest.mark.parametrize(
    "name", ["X-Checksum", "Server-Timing", "ETag", "grpc-status", "Grpc-Message", "Digest", "X-Host"]
)
def test_what_may_come_late(name: str) -> None:
    """What is known only at the end: sums, statuses, timings."""
    assert may_come_late(name.encode())


_EXTENSIONS = st.sampled_from([b"", b"", b"", b";", b";x", b" ;x=y", b'\t; x="1"'])
_ZEROS = st.integers(0, 3).map(lambda count: b"0" * count)
_CHUNKS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), _EXTENSIONS, _ZEROS, st.sampled_from([b"%x", b"%X"])), max_size=6
)
_TRAILERS = st.lists(
    st.tuples(
        st.sampled_from([b"X-Sum", b"x-a", b"Content-Length", b"Host", b"ETag"]),
        st.sampled_from([b"1", b"", b"a b", b"\xff"]),
        st.sampled_from([b":", b": ", b":\t"]),
        st.sampled_from([b"", b" "]),
    ),
    max_size=4,
)


@given(_CHUNKS, _ZEROS, _EXTENSIONS, _TRAILERS, st.lists(st.integers(1, 12), max_size=60), st.binary(max_size=5))
def test_any_body_cut_anywhere(
    chunks: list[tuple[bytes, bytes, bytes, bytes]],
    zeros: bytes,
    extension: bytes,
    trailers: list[tuple[bytes, bytes, bytes, bytes]],
    cuts: list[int],
    rest: bytes,
) -> None:
    """Another reader finds in what goes on the same data and, of the trailer, what may come late; in one spelling."""
    wire = b"".join(
        zero + spelling % len(data) + ext + b"\r\n" + data + b"\r\n" for data, ext, zero, spelling in chunks
    )
    wire += zeros + b"0" + extension + b"\r\n"
    wire += b"".join(name + colon + value + after + b"\r\n" for name, value, colon, after in trailers) + b"\r\n"
    late = [(name, value) for name, value, _, _ in trailers if may_come_late(name)]
    walker, out, left = walk(wire + rest, cuts)
    assert walker.is_complete
    assert left == rest
    assert out == (
        b"".join(b"%x\r\n%b\r\n" % (len(data), data) for data, *_ in chunks)
        + b"0\r\n"
        + b"".join(b"%b: %b\r\n" % pair for pair in late)
        + b"\r\n"
    )
    assert heard(out) == (b"".join(data for data, *_ in chunks), [(name.lower(), value) for name, value in late], b"")
    assert walker.data_bytes == sum(len(data) for data, *_ in chunks)
    assert walk(wire + rest, cuts, bare=True)[1:] == (b"".join(data for data, *_ in chunks), rest)
    assert walk(out)[1] == out


_NOISE = st.lists(
    st.sampled_from(
        [
            b"0",
            b"1",
            b"2",
            b"a",
            b"A",
            b"\r\n",
            b"\r",
            b"\n",
            b";",
            b" ",
            b"\t",
            b"x",
            b":",
            b"X: y",
            b"\x00",
            b"0\r\n\r\n",
        ]
    ),
    max_size=14,
).map(b"".join)


@given(_NOISE, st.lists(st.integers(1, 4), max_size=20))
@example(b"1\r\na\r\n0\r\n\r\n", [1] * 20)
@example(b"1\r\na\r", [])
@example(b"0\r\nX: y", [])
def test_cuts_change_nothing(wire: bytes, cuts: list[int]) -> None:
    """Whole or in pieces, the same goes on or the same is refused; and what goes on is one chunked body, or less."""
    try:
        whole = walk(wire)
    except BadChunk:
        with pytest.raises(BadChunk):
            walk(wire, cuts)
        return
    again = walk(wire, cuts)
    assert again[1:] == whole[1:]
    assert again[0].is_complete == whole[0].is_complete
    if whole[0].is_complete:
        assert heard(whole[1])[2] == b""
    else:
        assert whole[2] == b""
