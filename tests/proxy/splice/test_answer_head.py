"""Answers' heads, read strictly. What whole answers are refused for stands in ``test_answer_reader``."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.splice.answer_head import (
    CHUNKED,
    UNTIL_EOF,
    NotHttp,
    analyse_answer,
    body_length,
    refuse_partial_head,
)

OK = b"HTTP/1.1 200 OK"


def block(*lines: bytes, first: bytes = OK) -> bytes:
    """A head without its empty line."""
    return b"\r\n".join((first, *lines))


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        pytest.param(b"HTTP/1.1 200 OK", (200, 1, b"OK"), id="the usual"),
        pytest.param(b"HTTP/1.0 404 Not Found", (404, 0, b"Not Found"), id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 299 ", (299, 1, b""), id="an empty reason"),
        pytest.param(b"HTTP/1.1 299", (299, 1, b""), id="no reason"),
        pytest.param(b"HTTP/1.1 200  a\tb ", (200, 1, b" a\tb "), id="space in the reason"),
        pytest.param(b"HTTP/1.1 200 \xc3\xa4", (200, 1, b"\xc3\xa4"), id="a reason in UTF-8"),
        pytest.param(b"HTTP/1.1 100 Continue", (100, 1, b"Continue"), id="the lowest"),
        pytest.param(b"HTTP/1.1 599 x", (599, 1, b"x"), id="the highest"),
    ],
)
@pytest.mark.parametrize("lines", [(), (b"A: b",)], ids=["alone", "with a header"])
def test_status_lines(first: bytes, expected: tuple[int, int, bytes], lines: tuple[bytes, ...]) -> None:
    """Status, version and reason as they were said."""
    facts = analyse_answer(block(*lines, first=first))
    assert (facts.status, facts.minor, facts.reason) == expected
    assert facts.headers == [(b"A", b"b")] * len(lines)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="HTTP/0.9"),
        pytest.param(b"HTTP/1.1", id="a version alone"),
        pytest.param(b"HTTP/1.1 ", id="no status"),
        pytest.param(b"HTTP/1.1 20", id="two digits"),
        pytest.param(b"HTTP/1.1 2000 OK", id="four digits"),
        pytest.param(b"HTTP/1.1 2x0 OK", id="no number"),
        pytest.param(b"HTTP/1.1 099 OK", id="below 100"),
        pytest.param(b"HTTP/1.1 600 OK", id="above 599"),
        pytest.param(b"HTTP/1.1 200\tOK", id="a tab for the space"),
        pytest.param(b"HTTP/1.1  200 OK", id="two spaces"),
        pytest.param(b" HTTP/1.1 200 OK", id="space first"),
        pytest.param(b"\r\nHTTP/1.1 200 OK", id="an empty line first"),
        pytest.param(b"HTTP/1.1 200 O\x00K", id="NUL in the reason"),
        pytest.param(b"HTTP/1.1 200 O\x7fK", id="DEL in the reason"),
        pytest.param(b"HTTP/1.1 200 O\rK", id="a bare CR in the reason"),
        pytest.param(b"HTTP/1.1 200 OK\nX: y", id="a bare LF after it"),
        pytest.param(b"HTTP/1.2 200 OK", id="a version that there is not"),
        pytest.param(b"HTTP/2 200", id="HTTP/2"),
        pytest.param(b"HTTP/2.0 200 OK", id="HTTP/2.0"),
        pytest.param(b"PRI * HTTP/2.0", id="the preface of HTTP/2"),
        pytest.param(b"http/1.1 200 OK", id="small letters"),
        pytest.param(b"ICY 200 OK", id="a relative"),
        pytest.param(b"GET / HTTP/1.1", id="a request"),
    ],
)
@pytest.mark.parametrize("lines", [(), (b"A: b",)], ids=["alone", "with a header"])
def test_no_status_lines(first: bytes, lines: tuple[bytes, ...]) -> None:
    """What is no status line is no answer."""
    with pytest.raises(NotHttp):
        analyse_answer(block(*lines, first=first))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(b"Name: value", (b"Name", b"value"), id="the usual"),
        pytest.param(b"nAmE:value", (b"nAmE", b"value"), id="spelled as it comes, no space"),
        pytest.param(b"Name: \t value \t", (b"Name", b"value"), id="the space around belongs to nobody"),
        pytest.param(b"Name:", (b"Name", b""), id="empty"),
        pytest.param(b"Name: a\tb: c", (b"Name", b"a\tb: c"), id="tab and colon inside"),
        pytest.param(b"Name: \xff\x80", (b"Name", b"\xff\x80"), id="any high byte"),
        pytest.param(b"!#$%&'*+-.^_`|~09: x", (b"!#$%&'*+-.^_`|~09", b"x"), id="every sign that a name may have"),
    ],
)
def test_headers(line: bytes, expected: tuple[bytes, bytes]) -> None:
    """Names as they are spelled, values without the space around them."""
    assert analyse_answer(block(line, b"Z: z")).headers == [expected, (b"Z", b"z")]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="an empty line"),
        pytest.param(b"Name", id="no colon"),
        pytest.param(b": value", id="no name"),
        pytest.param(b"Name : value", id="space before the colon"),
        pytest.param(b"Name\t: value", id="tab before the colon"),
        pytest.param(b" Name: value", id="space first, or folded"),
        pytest.param(b"\tName: value", id="tab first, or folded"),
        pytest.param(b"Na me: value", id="space in the name"),
        pytest.param(b"Na(me): value", id="parentheses in the name"),
        pytest.param(b"N\xc3\xa4me: value", id="a name outside of ASCII"),
        pytest.param(b"Na\x00me: value", id="NUL in the name"),
        pytest.param(b"Name: a\x00b", id="NUL"),
        pytest.param(b"Name: a\x0bb", id="a control character"),
        pytest.param(b"Name: a\x7fb", id="DEL"),
        pytest.param(b"Name: a\rb", id="a bare CR"),
        pytest.param(b"Name: a\nB: c", id="a bare LF"),
        pytest.param(b"Name: a\r", id="CR CR LF"),
        pytest.param(b"Name: a\r\n folded", id="folded"),
    ],
)
@pytest.mark.parametrize("is_last", [False, True], ids=["among others", "last"])
def test_malformed_headers(line: bytes, is_last: bool) -> None:
    """One line that two readers could read in two ways, and nothing of the head is believed."""
    with pytest.raises(NotHttp):
        analyse_answer(block(b"A: b", line, *([] if is_last else [b"C: d"])))


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        pytest.param([], UNTIL_EOF, id="none"),
        pytest.param([b"Content-Length: 0"], 0, id="zero"),
        pytest.param([b"CONTENT-LENGTH:\t007 "], 7, id="zeros first, space around"),
        pytest.param([b"Content-Length: " + b"9" * 18], 10**18 - 1, id="as large as it gets"),
        pytest.param([b"Transfer-Encoding: chunked"], CHUNKED, id="chunks"),
        pytest.param([b"transfer-encoding:CHUNKED\t"], CHUNKED, id="chunks, oddly spelled"),
        pytest.param([b"Content_Length: 3"], UNTIL_EOF, id="another name"),
    ],
)
def test_lengths(lines: list[bytes], length: int) -> None:
    """How the headers say that the body is framed."""
    assert analyse_answer(block(b"A: b", *lines, b"C: d")).length == length


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"Content-Length: 1", b"Content-Length: 2"], id="two lengths"),
        pytest.param([b"Content-Length: 1", b"content-length: 1"], id="one length twice"),
        pytest.param([b"Content-Length: 1,1"], id="a list"),
        pytest.param([b"Content-Length:"], id="empty"),
        pytest.param([b"Content-Length: +1"], id="a sign"),
        pytest.param([b"Content-Length: -1"], id="less than nothing"),
        pytest.param([b"Content-Length: 1 2"], id="two numbers"),
        pytest.param([b"Content-Length: 0x1"], id="hexadecimal"),
        pytest.param([b"Content-Length: 1.0"], id="a fraction"),
        pytest.param([b"Content-Length: \xb2"], id="a digit of another kind"),
        pytest.param([b"Content-Length: " + b"9" * 19], id="19 digits"),
        pytest.param([b"Content-Length: 1", b"Transfer-Encoding: chunked"], id="length, then chunks"),
        pytest.param([b"Transfer-Encoding: chunked", b"Content-Length: 1"], id="chunks, then length"),
        pytest.param([b"Transfer-Encoding: identity", b"Content-Length: 1"], id="identity and length"),
        pytest.param([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], id="chunks twice"),
        pytest.param([b"Transfer-Encoding: chunked, chunked"], id="chunks twice in one"),
        pytest.param([b"Transfer-Encoding: gzip, chunked"], id="another coding before"),
        pytest.param([b"Transfer-Encoding: chunked, gzip"], id="another coding after"),
        pytest.param([b"Transfer-Encoding: gzip"], id="another coding alone"),
        pytest.param([b"Transfer-Encoding: identity"], id="none, by name"),
        pytest.param([b"Transfer-Encoding: xchunked"], id="nearly"),
        pytest.param([b"Transfer-Encoding: chunked;q=1"], id="with a parameter"),
        pytest.param([b"Transfer-Encoding: \x0cchunked"], id="a form feed before it"),
        pytest.param([b"Transfer-Encoding:"], id="an empty coding"),
    ],
)
def test_ambiguous_lengths(lines: list[bytes]) -> None:
    """Framing that two readers could read in two ways is refused."""
    with pytest.raises(NotHttp):
        analyse_answer(block(*lines))


def test_no_chunks_in_old_http() -> None:
    """HTTP/1.0 knows none, so who sends them there may mean anything."""
    with pytest.raises(NotHttp):
        analyse_answer(block(b"Transfer-Encoding: chunked", first=b"HTTP/1.0 200 OK"))


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"])
@pytest.mark.parametrize(
    ("status", "method", "has_body"),
    [
        (200, b"GET", True), (200, b"HEAD", False), (204, b"GET", False), (304, b"GET", False), (100, b"GET", False),
        (103, b"POST", False), (101, b"GET", False), (404, b"HEAD", False), (205, b"POST", True), (199, b"PUT", False),
        (206, b"GET", True), (500, b"OPTIONS", True), (304, b"HEAD", False),
    ],
)  # fmt: skip
def test_what_has_no_body(status: int, method: bytes, has_body: bool, framing: bytes) -> None:
    """HEAD, 1xx, 204 and 304 end with their head whatever it says."""
    facts = analyse_answer(block(framing, first=b"HTTP/1.1 %d x" % status))
    assert body_length(facts, method) == (facts.length if has_body else 0)


@pytest.mark.parametrize(
    ("first", "lines", "keeps"),
    [
        pytest.param(OK, [], True, id="1.1"),
        pytest.param(OK, [b"Connection: close"], False, id="1.1 closes"),
        pytest.param(OK, [b"connection: X,\tClose"], False, id="1.1 closes, among others"),
        pytest.param(OK, [b"Connection: x", b"Connection: close"], False, id="1.1 closes, second line"),
        pytest.param(OK, [b"Connection: closed"], True, id="1.1 says something else"),
        pytest.param(b"HTTP/1.0 200 OK", [b"Connection: keep-alive"], False, id="1.0 never stays"),
    ],
)
def test_keep_alive(first: bytes, lines: list[bytes], keeps: bool) -> None:
    """Whether another request may follow, as far as version and Connection say."""
    assert analyse_answer(block(*lines, first=first)).keeps_alive is keeps


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        pytest.param([b"Upgrade: WebSocket", b"Connection: Upgrade"], b"websocket", id="said in both places"),
        pytest.param([b"Connection: keep-alive, upgrade", b"upgrade: x/1"], b"x/1", id="among others"),
        pytest.param([b"Upgrade: websocket"], None, id="not named by Connection"),
        pytest.param([b"Connection: upgrade"], None, id="to nothing"),
        pytest.param([b"Upgrade: a", b"Upgrade: b", b"Connection: upgrade"], None, id="to two"),
    ],
)
def test_upgrades(lines: list[bytes], upgrade: bytes | None) -> None:
    """A switch of protocols says to which, once, and that it is meant for us."""
    assert analyse_answer(block(*lines, first=b"HTTP/1.1 101 x")).upgrade == upgrade


def test_bounds() -> None:
    """64 KiB and 1000 headers are allowed, and no more."""
    assert len(analyse_answer(block(*[b"A: b"] * 1000)).headers) == 1000
    with pytest.raises(NotHttp, match="1000 headers"):
        analyse_answer(block(*[b"A: b"] * 1001))
    largest = block(b"A: " + b"b" * (64 * 1024 - len(OK) - len(b"\r\nA: ")))
    assert len(largest) == 64 * 1024
    analyse_answer(largest)
    with pytest.raises(NotHttp, match="65536 bytes"):
        analyse_answer(largest + b"b")


@pytest.mark.parametrize(
    ("data", "since", "is_refused"),
    [
        pytest.param(b"", 0, False, id="nothing yet"),
        pytest.param(b"HTT", 0, False, id="a beginning"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n", 0, False, id="nearly all"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r", 0, False, id="half a line break"),
        pytest.param(b"HTTX", 0, True, id="no beginning"),
        pytest.param(b"\r", 0, True, id="a line break first"),
        pytest.param(b"HTTP/2", 0, True, id="another version"),
        pytest.param(b"HTTP/1.1 200 OK\nA: b", 0, True, id="a bare LF"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA\n", 17, True, id="a bare LF, first of what is new"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA", 15, False, id="the old CR before the new LF"),
        pytest.param(b"HTTP/1.1 " + b"x" * (64 * 1024), 0, True, id="too long"),
    ],
)
def test_partial_heads(data: bytes, since: int, is_refused: bool) -> None:
    """What can't become a good head is refused before its end has come."""
    if is_refused:
        with pytest.raises(NotHttp):
            refuse_partial_head(data, since)
    else:
        refuse_partial_head(data, since)


@given(st.binary(max_size=40), st.binary(max_size=40), st.data())
def test_no_byte_slips_through(name: bytes, value: bytes, data: st.DataObject) -> None:
    """Of any bytes as name and value: refused, or one header in which neither can end a line or hide a control."""
    line = data.draw(st.sampled_from([name + b": " + value, b"A: " + value, name + b": b"]))
    try:
        facts = analyse_answer(block(line))
    except NotHttp:
        return
    assert len(facts.headers) == 1
    got_name, got_value = facts.headers[0]
    assert line.startswith(got_name + b":")
    assert line.endswith(got_value) or line.rstrip(b" \t").endswith(got_value)
    assert all(byte > 0x20 and byte < 0x7F for byte in got_name)
    assert all((byte >= 0x20 or byte == 0x09) and byte != 0x7F for byte in got_value)


class _Heard:
    """What httptools hears of a head."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_head_over = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.is_head_over = True


@given(
    st.lists(st.sampled_from([b"A:b", b"A: \tb ", b"A :b", b"A", b" b: c", b"\xc4: b", b"A: \xc4", b"A: b\x01", b""]))
)
def test_no_laxer_than_httptools(lines: list[bytes]) -> None:
    """What is a head for us is one for httptools, with the same headers."""
    try:
        facts = analyse_answer(block(*lines))
    except NotHttp:
        return
    heard = _Heard()
    httptools.HttpResponseParser(heard).feed_data(block(*lines) + b"\r\n\r\n")
    assert heard.is_head_over
    assert heard.headers == facts.headers
