"""
No I/O: answers as raw bytes that two readers could read in two ways, and what has to become of each.

The Actor sends them to a GET (or *method*) and, where *closes*, ends its connection.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCase:
    """
    What the caller gets: *status* 502 where the answer may not be believed, else that of the answer with *body*.

    *may_be_cut*: its head is good, so the caller may have it already when the body turns out to be bad; then the answer
    breaks off. *is_reused*: the Actor's connection serves the next request; else it must be closed and never used.
    """

    name: str
    data: bytes
    status: int = 502
    body: bytes = b""
    method: bytes = b"GET"
    closes: bool = False
    may_be_cut: bool = False
    is_reused: bool = False


_cases: list[AnswerCase] = []


def _bad(name: str, data: bytes, *, closes: bool = False, method: bytes = b"GET") -> None:
    _cases.append(AnswerCase(name=name, data=data, closes=closes, method=method))


def _breaks(name: str, data: bytes, *, closes: bool = False) -> None:
    _cases.append(AnswerCase(name=name, data=data, may_be_cut=True, closes=closes))


def _good(
    name: str,
    data: bytes,
    *,
    status: int = 200,
    body: bytes = b"hello",
    method: bytes = b"GET",
    closes: bool = False,
    is_reused: bool = False,
) -> None:
    _cases.append(
        AnswerCase(name=name, data=data, status=status, body=body, method=method, closes=closes, is_reused=is_reused)
    )


OK = b"HTTP/1.1 200 OK\r\n"
CL = b"Content-Length: 5\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
HELLO = b"5\r\nhello\r\n"
LAST = b"0\r\n\r\n"


def _with(*lines: bytes, body: bytes = b"hello") -> bytes:
    return OK + b"".join(lines) + b"\r\n" + body


# -- lengths -----------------------------------------------------------------------------------------------------------

_bad("CL and TE", _with(CL, TE, body=HELLO + LAST))
_bad("TE and CL", _with(TE, CL, body=HELLO + LAST))
_bad("CL twice, equal", _with(CL, CL))
_bad("CL twice, unequal", _with(CL, b"Content-Length: 6\r\n"))
for _value in (b"5, 5", b"+5", b"-5", b"0x5", b"5 5", b"5.0", b"", b"five", b"99999999999999999999", b"\xb5"):
    _bad(f"CL is {_value.decode('latin-1')!r}", _with(b"Content-Length: " + _value + b"\r\n"))
_bad("TE twice", _with(TE, TE, body=HELLO + LAST))
for _value in (
    b"gzip, chunked",
    b"chunked, gzip",
    b"identity",
    b"xchunked",
    b"chunked, chunked",
    b"",
    b"\x0bchunked",
    b"chunked;q=1",
):
    _bad(f"TE is {_value.decode()!r}", _with(b"Transfer-Encoding: " + _value + b"\r\n", body=HELLO + LAST))
_bad("TE in HTTP/1.0", b"HTTP/1.0 200 OK\r\n" + TE + b"\r\n" + HELLO + LAST)
_bad("CL in a fold", _with(b"X-A: b\r\n Content-Length: 5\r\n"))
_bad("CL with a space before the colon", _with(b"Content-Length : 5\r\n"))

# -- lines -------------------------------------------------------------------------------------------------------------

_bad("bare LF everywhere", _with(CL).replace(b"\r\n", b"\n"), closes=True)
_bad("bare LF after the status line", _with(CL).replace(b"\r\n", b"\n", 1))
_bad("bare LF after a header", _with(b"X-A: b\nX-B: c\r\n", CL))
_bad("bare CR in a value", _with(b"X-A: b\rX-B: c\r\n", CL))
_bad("NUL in a value", _with(b"X-A: b\x00c\r\n", CL))
_bad("a control in a value", _with(b"X-A: b\x01c\r\n", CL))
_bad("DEL in a value", _with(b"X-A: b\x7fc\r\n", CL))
_bad("a fold", _with(b"X-A: b\r\n c\r\n", CL))
_bad("a space before the colon", _with(b"X-A : b\r\n", CL))
_bad("no colon", _with(b"X-A b\r\n", CL))
_bad("an empty name", _with(b": b\r\n", CL))
_bad("a letter outside ASCII in a name", _with(b"X-\xe4: b\r\n", CL))
_bad("a space in a name", _with(b"X A: b\r\n", CL))
_bad("an empty line before the status line", b"\r\n" + _with(CL))
_bad("a space before the status line", b" " + _with(CL))

# -- the status line ---------------------------------------------------------------------------------------------------

for _line in (
    b"HTTP/1.1 2000 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 99 OK", b"HTTP/1.1 600 OK", b"HTTP/1.1 000 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1 200OK", b"HTTP/1.1 2x0 OK", b"HTTP/2 200", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.10 200 OK",
    b"http/1.1 200 OK", b"ICY 200 OK", b"200 OK", b"HTTP/1.1", b"GET / HTTP/1.1", b"HTTP/1.1 -20 OK",
    b"HTTP/1.1 200 O\x00K",
    b"HTTP/1.1\t200 OK",
):  # fmt: skip
    _bad(f"the status line is {_line.decode()!r}", _line + b"\r\n" + CL + b"\r\nhello")
_bad("no HTTP at all", b"SSH-2.0-OpenSSH_9.2\r\n")
_bad("HTTP/2's first bytes", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64")
_bad("only a body", b"<html>hello</html>", closes=True)
_bad("nothing", b"", closes=True, method=b"POST")  # what can't be repeated: a GET would be, on a connection used before
_bad("half a head", OK + b"X-A: b\r\n", closes=True)
_bad("a head of 70,000 bytes", _with(b"X-A: " + b"b" * 70_000 + b"\r\n", CL))
_bad("a head without an end", OK + b"X-A: " + b"b" * 140_000)
_bad("1,001 headers", _with(b"X: v\r\n" * 1001, CL))
_bad(
    "a switch of protocols unasked",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
)
_bad("an interim answer that is bad", b"HTTP/1.1 103 Early\r\nX A: b\r\n\r\n" + _with(CL))
_bad("an interim answer and nothing more", b"HTTP/1.1 103 Early\r\n\r\n", closes=True)

# -- chunks ------------------------------------------------------------------------------------------------------------

for _size in (b"+5", b"0x5", b" 5", b"", b"G", b"5g", b"10000000000000005", b"5 5", b"5\x00", b"-5"):
    _breaks(f"a chunk's size is {_size.decode()!r}", _with(TE, body=_size + b"\r\nhello\r\n" + LAST))
_breaks("a chunk's size ends with a bare LF", _with(TE, body=b"5\nhello\r\n" + LAST))
_breaks("a chunk's extension holds a bare LF", _with(TE, body=b"5;x\ny\r\nhello\r\n" + LAST))
_breaks("a chunk's extension holds a NUL", _with(TE, body=b"5;\x00\r\nhello\r\n" + LAST))
_breaks("a chunk is longer than its size", _with(TE, body=b"5\r\nhello!\r\n" + LAST))
_breaks("no CR LF after a chunk's data", _with(TE, body=b"5\r\nhello0\r\n\r\n"))
_breaks("a bare LF after a chunk's data", _with(TE, body=b"5\r\nhello\n" + LAST))
_breaks("a trailer without a colon", _with(TE, body=HELLO + b"0\r\nbad trailer\r\n\r\n"))
_breaks("a trailer with a fold", _with(TE, body=HELLO + b"0\r\nX-A: b\r\n c\r\n\r\n"))
_breaks("a trailer with a bare LF", _with(TE, body=HELLO + b"0\r\nX-A: b\nX-B: c\r\n\r\n"))
_breaks("a trailer of 20,000 bytes", _with(TE, body=HELLO + b"0\r\nX-A: " + b"b" * 20_000 + b"\r\n\r\n"))
_breaks("a chunked body without an end", _with(TE, body=HELLO), closes=True)
_breaks("a body shorter than its length", _with(CL, body=b"hel"), closes=True)

# -- good, and yet not to be trusted any further -----------------------------------------------------------------------

_good("a plain answer", _with(CL), is_reused=True)
_good("a chunked answer", _with(TE, body=HELLO + LAST), is_reused=True)
_good("no reason", b"HTTP/1.1 200\r\n" + CL + b"\r\nhello", is_reused=True)
_good("an empty reason", b"HTTP/1.1 200 \r\n" + CL + b"\r\nhello", is_reused=True)
_good("a body longer than its length", _with(CL, body=b"hello and more"))
_good("a second answer behind the first", _with(CL) + _with(CL, body=b"OTHER"))
_good("a second answer behind a chunked one", _with(TE, body=HELLO + LAST) + _with(CL, body=b"OTHER"))
_good("a last chunk twice", _with(TE, body=HELLO + LAST + LAST))
_good("a body on a 204", b"HTTP/1.1 204 No\r\n\r\nhello", status=204, body=b"")
_good("a body on a 304", b"HTTP/1.1 304 No\r\n" + CL + b"\r\nhello", status=304, body=b"")
_good("a body on an answer to HEAD", _with(CL), body=b"", method=b"HEAD")
_good(
    "an interim answer with a length", b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" + _with(CL), is_reused=True
)
_good("an interim answer with TE", b"HTTP/1.1 103 Early\r\n" + TE + b"\r\n" + _with(CL), is_reused=True)
_good("until the end of the connection", _with(b"X-A: b\r\n"), closes=True)
_good("HTTP/1.0 until the end of the connection", b"HTTP/1.0 200 OK\r\n\r\nhello", closes=True)
_good("HTTP/1.0 with a length", b"HTTP/1.0 200 OK\r\n" + CL + b"\r\nhello")
_good("Connection: close", _with(b"Connection: close\r\n", CL))
_good("Connection: close in a list", _with(b"Connection: x, Close\r\n", CL))
_good("Connection names Content-Length", _with(b"Connection: content-length\r\n", CL), is_reused=True)
_good(
    "Connection names Transfer-Encoding",
    _with(b"Connection: transfer-encoding\r\n", TE, body=HELLO + LAST),
    is_reused=True,
)
_good("a status without a name of its own", b"HTTP/1.1 599 \xe4\r\n" + CL + b"\r\nhello", status=599, is_reused=True)
_good("999 headers", _with(b"X: v\r\n" * 999, CL), is_reused=True)

ANSWER_CASES = tuple(_cases)
