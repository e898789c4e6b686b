"""
No I/O: requests as raw bytes that two servers could read in two ways, and what has to become of each.

``@HOST@`` stands for the host of a public Actor. What is refused is answered with the status, the connection is closed,
and nothing reaches the Actor; what passes reaches it as exactly the requests that are named.
"""

from __future__ import annotations

from dataclasses import dataclass

HOST = b"Host: @HOST@\r\n"
_AS_BODY = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """One request as the Actor has to read it: *has* are headers (name in lower case), *lacks* are names."""

    method: bytes = b"GET"
    target: bytes = b"/case"
    body: bytes = b""
    has: tuple[tuple[bytes, bytes], ...] = ()
    lacks: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """
    One of *statuses*, then the connection is closed; *after* are requests before it that are good.

    *begins*: its head is good and may have reached the Actor before its body turned out to be bad; then the Actor sees
    a connection that breaks off, and the caller may, too (no answer at all).
    """

    statuses: tuple[int, ...]
    after: tuple[Meaning, ...] = ()
    begins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Each of these reaches the Actor, is answered 200, and the connection stays in step (or *ends*)."""

    meanings: tuple[Meaning, ...]
    ends: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Nowhere:
    """A good request to a host that nobody has: the answer has one of *statuses*, and the connection may stay."""

    statuses: tuple[int, ...] = (400, 404)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A request that never becomes whole, whose caller leaves: the Actor never sees a whole one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """*data* as it is sent; *expect* what has to become of it."""

    name: str
    data: bytes
    expect: Refused | Passes | Nowhere | Unfinished


_cases: list[Case] = []


def _refused(name: str, data: bytes, *statuses: int, after: tuple[Meaning, ...] = (), begins: bool = False) -> None:
    _cases.append(Case(name=name, data=data, expect=Refused(statuses=statuses or (400,), after=after, begins=begins)))


def _passes(name: str, data: bytes, *meanings: Meaning, ends: bool = False) -> None:
    _cases.append(Case(name=name, data=data, expect=Passes(meanings=meanings or (Meaning(),), ends=ends)))


def _nowhere(name: str, data: bytes, *statuses: int) -> None:
    _cases.append(Case(name=name, data=data, expect=Nowhere(statuses=statuses or (400, 404))))


def _unfinished(name: str, data: bytes) -> None:
    _cases.append(Case(name=name, data=data, expect=Unfinished()))


def get(*lines: bytes, first: bytes = b"GET /case HTTP/1.1") -> bytes:
    """A request without a body."""
    return b"".join((first, b"\r\n", HOST, *(line + b"\r\n" for line in lines), b"\r\n"))


def post(body: bytes, *lines: bytes, first: bytes = b"POST /case HTTP/1.1") -> bytes:
    """A request with a body as its lines frame it."""
    return get(*lines, first=first) + body


def posted(body: bytes, **facts: tuple[bytes, ...]) -> Meaning:
    """What a POST of *body* means."""
    return Meaning(method=b"POST", body=body, **facts)  # type: ignore[arg-type]


TE = b"Transfer-Encoding: chunked"
HELLO = b"5\r\nhello\r\n"
LAST = b"0\r\n\r\n"

# -- two lengths -------------------------------------------------------------------------------------------------------

_refused("CL.TE", post(LAST + b"G", b"Content-Length: 6", TE))
_refused("TE.CL", post(b"5c\r\nGPOST / HTTP/1.1\r\n" + LAST, TE, b"Content-Length: 4"))
_refused("CL 0 and TE", post(LAST, b"Content-Length: 0", TE))
_refused("CL.TE with a smuggled request", post(LAST + SMUGGLED, b"Content-Length: %d" % len(LAST + SMUGGLED), TE))
_refused("CL and TE with a space before the colon", post(LAST, b"Content-Length: 5", b"Transfer-Encoding : chunked"))
_refused("CL and an unknown coding", post(b"hello", b"Content-Length: 5", b"Transfer-Encoding: cow"), 400, 501)
_refused("CL and identity", post(b"hello", b"Content-Length: 5", b"Transfer-Encoding: identity"), 400, 501)

for _value in (
    b"xchunked", b"chunke", b"chunkedx", b"chunked, chunked", b"chunked,chunked", b"identity", b"gzip",
    b"gzip, chunked",
    b"chunked, gzip", b"identity, chunked", b"chunked;q=1", b'"chunked"', b"chunked,", b",chunked", b"",
    b"chunked chunked",
    b"\xe4chunked", b"cow",
):  # fmt: skip
    _refused(f"TE is {_value.decode('latin-1')!r}", post(LAST, b"Transfer-Encoding: " + _value), 400, 501)
for _name, _value in (
    ("a tab before it", b"\tchunked"),
    ("a tab after it", b"chunked\t"),
    ("a vertical tab before it", b"\x0bchunked"),
    ("a vertical tab after it", b"chunked\x0b"),
    ("a form feed after it", b"chunked\x0c"),
    ("a NUL after it", b"chunked\x00"),
    ("a bare CR after it", b"chunked\r"),
    ("a bare CR amid it", b"chun\rked"),
    ("a fold before it", b"\r\n chunked"),
    ("a fold after it", b"chunked\r\n , identity"),
):
    _refused(f"TE with {_name}", post(LAST, b"Transfer-Encoding: " + _value), 400, 501)
for _value in (b"chunked", b"Chunked", b"CHUNKED", b"  chunked  "):
    _passes(f"TE is {_value.decode()!r}", post(HELLO + LAST, b"Transfer-Encoding: " + _value), posted(b"hello"))
_refused("TE twice", post(LAST, TE, TE))
_refused("TE identity, then TE chunked", post(LAST, b"Transfer-Encoding: identity", TE), 400, 501)
_refused("TE chunked, then TE identity", post(LAST, TE, b"Transfer-Encoding: identity"), 400, 501)
_refused("TE chunked, then TE empty", post(LAST, TE, b"Transfer-Encoding:"), 400, 501)
_refused("TE in HTTP/1.0", post(LAST, TE, first=b"POST /case HTTP/1.0"))
_refused("TE after a leading space", b"POST /case HTTP/1.1\r\n" + b" " + TE + b"\r\n" + HOST + b"\r\n" + LAST)
_refused("TE with a NUL in its name", post(LAST, b"Transfer-Encoding\x00: chunked"))
_refused("TE with a letter outside ASCII", post(LAST, b"Transfer-Encod\xefng: chunked"))
_passes(
    "TE with an underscore",
    get(b"Transfer_Encoding: chunked"),
    Meaning(lacks=(b"transfer_encoding", b"transfer-encoding")),
)
_passes("chunked on a GET", post(HELLO + LAST, TE, first=b"GET /case HTTP/1.1"), Meaning(body=b"hello"))

for _value in (
    b"+5", b"-5", b"0x5", b"5 5", b"5, 5", b"5,5", b"5, 6", b"5.0", b"5e0", b"1_0", b"", b"five", b"5;q=1", b'"5"',
    b"\xb5",
    b"99999999999999999999", b"18446744073709551621", b"5\x00", b"5\x0b", b"5\r", b",5", b"5,",
):  # fmt: skip
    _refused(f"CL is {_value.decode('latin-1')!r}", post(b"hello", b"Content-Length: " + _value), 400, 413)
_passes("CL with spaces around it", post(b"hello", b"Content-Length: \t 5 \t"), posted(b"hello"))
_passes("CL with a leading zero", post(b"hello", b"Content-Length: 05"), posted(b"hello"))
_refused("CL twice, equal", post(b"hello", b"Content-Length: 5", b"Content-Length: 5"))
_refused("CL twice, unequal", post(b"hello", b"Content-Length: 5", b"Content-Length: 6"))
_refused("CL twice, with a zero", post(SMUGGLED, b"Content-Length: 0", b"Content-Length: %d" % len(SMUGGLED)))
_refused("CL twice in two spellings", post(b"hello", b"content-length: 5", b"Content-Length: 6"))
_refused("CL with a space before the colon", post(b"hello", b"Content-Length : 5"))
_refused("CL in a fold", post(b"hello", b"X-A: b", b" Content-Length: 5"))
_passes("CL with an underscore", get(b"Content_Length: 5"), Meaning(lacks=(b"content_length", b"content-length")))
_passes(
    "CL with an underscore beside the true one",
    post(b"hello", b"Content_Length: 9", b"Content-Length: 5"),
    posted(b"hello"),
)
_passes("a body on a GET", post(b"hello", b"Content-Length: 5", first=b"GET /case HTTP/1.1"), Meaning(body=b"hello"))
_passes("CL 0", post(b"", b"Content-Length: 0"), posted(b""))
_passes(
    "a request after a body",
    post(b"hello" + SMUGGLED, b"Content-Length: 5"),
    posted(b"hello"),
    Meaning(target=b"/smuggled"),
)
_passes("a request that is a body", post(_AS_BODY, b"Content-Length: %d" % len(_AS_BODY)), posted(_AS_BODY))
_refused(
    "garbage after a body",
    post(b"hello" + b"\x00\x01GARBAGE\r\n\r\n", b"Content-Length: 5"),
    400,
    505,
    after=(posted(b"hello"),),
)
_refused("a body after a request without one", get() + b"hello: world\r\n\r\n", 400, 505, after=(Meaning(),))
_unfinished("a body that is shorter than it says", post(b"hello", b"Content-Length: 6"))
_unfinished("a chunked body without an end", post(HELLO, TE))
_unfinished("a chunked body without its last line", post(HELLO + b"0\r\n", TE))
_unfinished("a head without an end", b"GET /case HTTP/1.1\r\n" + HOST)

# -- lines -------------------------------------------------------------------------------------------------------------

_refused("bare LF everywhere", get().replace(b"\r\n", b"\n"))
_refused("bare LF after the request line", get().replace(b"\r\n", b"\n", 1))
_refused("bare LF after a header", get(b"X-A: b\nX-B: c"))
_refused("bare LF before a framing header", post(b"hello", b"X-A: b\nContent-Length: 5"))
_refused("bare LF as the empty line", b"GET /case HTTP/1.1\r\n" + HOST + b"\n")
_refused("bare LF after the empty line's CR LF", b"GET /case HTTP/1.1\r\n" + HOST + b"X-A: b\n\r\n")
_refused("bare CR after the request line", b"GET /case HTTP/1.1\r" + HOST + b"\r\n")
_refused("bare CR in a value", get(b"X-A: b\rX-B: c"))
_refused("bare CR in a name", get(b"X-\rA: b"))
_refused("bare CR before a name", get(b"\rX-A: b"))
_refused("two CRs before an LF", get(b"X-A: b\r"))
_refused("bare CR in the target", get(first=b"GET /ca\rse HTTP/1.1"))
_refused("bare LF in the target", get(first=b"GET /ca\nse HTTP/1.1"))
for _code in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F):
    _refused(f"control {_code:#04x} in a value", get(b"X-A: b%cc" % _code))
    _refused(f"control {_code:#04x} in a name", get(b"X-%cA: b" % _code))
    _refused(f"control {_code:#04x} in the target", get(first=b"GET /ca%cse HTTP/1.1" % _code))
_refused("a fold with a space", get(b"X-A: b", b" c"))
_refused("a fold with a tab", get(b"X-A: b", b"\tc"))
_refused("a fold of nothing", get(b"X-A: b", b" "))
_refused("a fold as the first line", b"GET /case HTTP/1.1\r\n X-A: b\r\n" + HOST + b"\r\n")
_refused("a fold of the host", b"GET /case HTTP/1.1\r\nHost:\r\n @HOST@\r\n\r\n")
_refused("a space as the first line", b"GET /case HTTP/1.1\r\n \r\n" + HOST + b"\r\n")
_refused("a space before the colon", get(b"X-A : b"))
_refused("a tab before the colon", get(b"X-A\t: b"))
_refused("no colon", get(b"X-A b"))
_refused("no colon in the last line", get(b"X-A: b", b"GET /smuggled HTTP/1.1"))
_refused("an empty name", get(b": b"))
_refused("a space in a name", get(b"X A: b"))
for _code in (*b'@()[]{}<>/\\?=";,', 0x80, 0xE4, 0xFF):
    _refused(f"byte {_code:#04x} in a name", get(b"X-%cA: b" % _code))
_passes("bytes outside ASCII in a value", get(b"X-A: \xe4\xff"), Meaning(has=((b"x-a", b"\xe4\xff"),)))
_passes("an empty value", get(b"X-A:"), Meaning(has=((b"x-a", b""),)))
_passes("a value of colons", get(b"X-A: :b: c:"), Meaning(has=((b"x-a", b":b: c:"),)))
_passes("no space after the colon", get(b"X-A:b"), Meaning(has=((b"x-a", b"b"),)))
_passes("a tab within a value", get(b"X-A: b\tc"), Meaning(has=((b"x-a", b"b\tc"),)))
_passes("all letters of a token as a name", get(b"X!#$%&'*+.^`|~-9: b"), Meaning(has=((b"x!#$%&'*+.^`|~-9", b"b"),)))
_passes("an empty line before the request", b"\r\n" + get())
_passes("an empty line between requests", get() + b"\r\n" + get(), Meaning(), Meaning())
_refused("a space before the request", b" " + get())
_refused("a space and an empty line before the request", b" \r\n" + get())
_refused("a NUL before the request", b"\x00" + get())
_refused("a header before the request line", b"X-A: b\r\n" + get(), 400, 505)

# -- the host ----------------------------------------------------------------------------------------------------------

_refused("no Host", b"GET /case HTTP/1.1\r\nX-A: b\r\n\r\n")
_refused("two Hosts, equal", get(b"Host: @HOST@"))
_refused("two Hosts, the second another", get(b"Host: other.localhost"))
_refused("two Hosts, the first another", b"GET /case HTTP/1.1\r\nHost: localhost\r\n" + HOST + b"\r\n")
_refused("two Hosts in two spellings", get(b"hOST: localhost"))
_nowhere("a list of hosts", b"GET /case HTTP/1.1\r\nHost: @HOST@, localhost\r\n\r\n")
_nowhere("two hosts with a space", b"GET /case HTTP/1.1\r\nHost: @HOST@ localhost\r\n\r\n")
_nowhere("an empty Host", b"GET /case HTTP/1.1\r\nHost:\r\n\r\n")
_nowhere("user information in Host", b"GET /case HTTP/1.1\r\nHost: bob@@HOST@\r\n\r\n")
_nowhere("a path in Host", b"GET /case HTTP/1.1\r\nHost: @HOST@/x\r\n\r\n")
_nowhere("a port that is none in Host", b"GET /case HTTP/1.1\r\nHost: @HOST@:8a\r\n\r\n")
_nowhere("two ports in Host", b"GET /case HTTP/1.1\r\nHost: @HOST@:80:80\r\n\r\n")
_nowhere("percent signs in Host", b"GET /case HTTP/1.1\r\nHost: %62@HOST@\r\n\r\n")
_nowhere("letters outside ASCII in Host", b"GET /case HTTP/1.1\r\nHost: \xe4@HOST@\r\n\r\n")
_nowhere("an underscore in Host", b"GET /case HTTP/1.1\r\nHost: _@HOST@\r\n\r\n")
_nowhere("another host", b"GET /case HTTP/1.1\r\nHost: www.example.com\r\n\r\n", 404)
_refused("a NUL in Host", b"GET /case HTTP/1.1\r\nHost: @HOST@\x00\r\n\r\n")
_refused("Host with a space before the colon", b"GET /case HTTP/1.1\r\nHost : @HOST@\r\n\r\n")
_passes("a port in Host", b"GET /case HTTP/1.1\r\nHost: @HOST@:8010\r\n\r\n", Meaning(has=((b"host", b"@HOST@:8010"),)))
_passes("a trailing dot in Host", b"GET /case HTTP/1.1\r\nHost: @HOST@.\r\n\r\n")
_passes("spaces around Host", b"GET /case HTTP/1.1\r\nHost:  @HOST@ \t\r\n\r\n", Meaning(has=((b"host", b"@HOST@"),)))
_passes("absolute form", get(first=b"GET http://@HOST@/case HTTP/1.1"))
_passes("absolute form of https", get(first=b"GET https://@HOST@/case HTTP/1.1"))
_passes("absolute form in capitals", get(first=b"GET HTTP://@HOST@/case HTTP/1.1"))
_passes("absolute form without a path", get(first=b"GET http://@HOST@ HTTP/1.1"), Meaning(target=b"/"))
_passes("absolute form with a query alone", get(first=b"GET http://@HOST@?x=1 HTTP/1.1"), Meaning(target=b"/?x=1"))
_refused("absolute form of another host", get(first=b"GET http://localhost/case HTTP/1.1"))
_refused("absolute form of an unknown host", get(first=b"GET http://www.example.com/case HTTP/1.1"))
_refused("absolute form of our host, Host of another", b"GET http://@HOST@/case HTTP/1.1\r\nHost: localhost\r\n\r\n")
_refused("absolute form without Host", b"GET http://@HOST@/case HTTP/1.1\r\n\r\n")
_refused("absolute form with user information", get(first=b"GET http://bob@@HOST@/case HTTP/1.1"))
_refused("absolute form of another scheme", get(first=b"GET ftp://@HOST@/case HTTP/1.1"))
_refused("absolute form without an authority", get(first=b"GET http:///case HTTP/1.1"))
_refused("absolute form with a backslash", get(first=b"GET http://@HOST@\\@localhost/case HTTP/1.1"))

# -- the request line --------------------------------------------------------------------------------------------------

_refused("two spaces after the method", get(first=b"GET  /case HTTP/1.1"))
_refused("a tab after the method", get(first=b"GET\t/case HTTP/1.1"))
_refused("two spaces before the version", get(first=b"GET /case  HTTP/1.1"))
_refused("a space after the version", get(first=b"GET /case HTTP/1.1 "))
_refused("a space in the target", get(first=b"GET /ca se HTTP/1.1"))
_refused("two targets", get(first=b"GET /case /smuggled HTTP/1.1"))
_refused("no target", get(first=b"GET HTTP/1.1"))
_refused("an empty target", get(first=b"GET  HTTP/1.1"))
_refused("a target without a slash", get(first=b"GET case HTTP/1.1"))
_refused("an asterisk for GET", get(first=b"GET * HTTP/1.1"))
_refused("a fragment", get(first=b"GET /case#smuggled HTTP/1.1"))
_passes("a target of two slashes", get(first=b"GET //localhost/case HTTP/1.1"), Meaning(target=b"//localhost/case"))
_passes("dots in the target", get(first=b"GET /a/../b/./case HTTP/1.1"), Meaning(target=b"/a/../b/./case"))
_passes("bytes outside ASCII in the target", get(first=b"GET /\xe4 HTTP/1.1"), Meaning(target=b"/\xe4"))
_passes("a backslash in the target", get(first=b"GET /a\\b HTTP/1.1"), Meaning(target=b"/a\\b"))
_refused("no version", b"GET /case\r\n\r\n", 400, 505)
_refused("no version, with headers", get(first=b"GET /case"), 400, 505)
for _version in (
    b"HTTP/0.9", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/9.9", b"HTTP/1.10", b"HTTP/1.", b"HTTP/1", b"HTTP/01.1", b"HTTP/1,1",
    b"HTTP/1.1x", b"http/1.1", b"HTTP /1.1", b"HTTP/ 1.1", b"HTTPS/1.1", b"ICE/1.0", b"HTTP/a.b", b"HTTP/-1.1",
):  # fmt: skip
    _refused(f"version {_version.decode()}", get(first=b"GET /case " + _version), 400, 505)
_refused("a NUL in the method", get(first=b"G\x00T /case HTTP/1.1"))
_refused("an at sign in the method", get(first=b"G@T /case HTTP/1.1"), 400, 501)
_refused("no method", get(first=b" /case HTTP/1.1"))
_refused("CONNECT", b"CONNECT @HOST@:443 HTTP/1.1\r\n" + HOST + b"\r\n", 400, 405, 501)
_refused("CONNECT of a path", get(first=b"CONNECT /case HTTP/1.1"), 400, 405, 501)
_refused("TRACE", get(first=b"TRACE /case HTTP/1.1"), 400, 405, 501)
_refused("a method in small letters", get(first=b"get /case HTTP/1.1"), 400, 501)
_passes("a method of our own", get(first=b"BREW /case HTTP/1.1"), Meaning(method=b"BREW"))
_passes("PROPFIND", get(first=b"PROPFIND /case HTTP/1.1"), Meaning(method=b"PROPFIND"))
_refused(
    "HTTP/2's first bytes amid a connection", get() + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 505, after=(Meaning(),)
)

# -- sizes -------------------------------------------------------------------------------------------------------------

_refused("a head of 70,000 bytes", get(b"X-A: " + b"b" * 70_000), 431)
_refused("a name of 70,000 bytes", get(b"X" * 70_000 + b": b"), 431)
_refused("a target of 70,000 bytes", get(first=b"GET /" + b"t" * 70_000 + b" HTTP/1.1"), 414, 431)
_refused("a method of 70,000 bytes", get(first=b"G" * 70_000 + b" /case HTTP/1.1"), 400, 414, 431, 501)
_refused("101 headers", get(*[b"X-%d: v" % number for number in range(100)]), 431)
_refused("3,000 headers", get(*[b"X-%d: v" % number for number in range(3000)]), 431)
_passes("100 headers", get(*[b"X-%d: v" % number for number in range(99)]), Meaning(has=((b"x-98", b"v"),)))
_passes("a head of 60,000 bytes", get(b"X-A: " + b"b" * 60_000), Meaning(has=((b"x-a", b"b" * 60_000),)))
_refused(
    "a head beyond 64 KiB without an end", get(*[b"X-%d: %s" % (number, b"v" * 1000) for number in range(80)])[:-2], 431
)

# -- what belongs to the connection ------------------------------------------------------------------------------------

_passes(
    "Connection names Content-Length",
    post(b"hello", b"Connection: content-length", b"Content-Length: 5"),
    posted(b"hello"),
)
_passes(
    "Connection names Transfer-Encoding", post(HELLO + LAST, b"Connection: transfer-encoding", TE), posted(b"hello")
)
_passes("Connection names Host", get(b"Connection: host"))
_passes(
    "Connection names what only we say",
    get(b"Connection: x-actor-request-id, x-forwarded-for, forwarded", b"X-Forwarded-For: 6.6.6.6"),
    Meaning(has=((b"x-forwarded-for", b"127.0.0.1"),)),
)
_passes(
    "Connection with odd commas",
    get(b"Connection: ,, x-gone ,", b"X-Gone: 1"),
    Meaning(lacks=(b"x-gone", b"connection")),
)
_passes("close", get(b"Connection: close"), ends=True)
_passes(
    "an upgrade to h2c",
    get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    Meaning(lacks=(b"upgrade", b"connection", b"http2-settings")),
)
_passes(
    "an upgrade to h2c with a body",
    post(b"hello", b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5"),
    posted(b"hello", lacks=(b"upgrade", b"connection")),
)
_passes(
    "what only we say, with underscores",
    get(b"X_Forwarded_For: 6.6.6.6", b"X-Forwarded_Host: evil", b"X_Actor_Request_ID: 1", b"X_Forwarded_Proto: https"),
    Meaning(lacks=(b"x_forwarded_for", b"x-forwarded_host", b"x_actor_request_id", b"x_forwarded_proto")),
)
_passes("Keep-Alive and TE", get(b"Keep-Alive: 5", b"TE: trailers", b"Connection: TE"), Meaning(lacks=(b"keep-alive",)))
_passes("Expect with the body at once", post(b"hello", b"Expect: 100-continue", b"Content-Length: 5"), posted(b"hello"))
_passes("HTTP/1.0", b"GET /case HTTP/1.0\r\n" + HOST + b"\r\n", ends=True)
_refused("HTTP/1.0 with TE and CL", b"POST /case HTTP/1.0\r\n" + HOST + TE + b"\r\nContent-Length: 5\r\n\r\n" + LAST)
_passes("ten requests in one write", get() * 10, *[Meaning()] * 10)
_passes(
    "a chunked body and another request",
    post(HELLO + LAST + SMUGGLED, TE),
    posted(b"hello"),
    Meaning(target=b"/smuggled"),
)

# -- chunks ------------------------------------------------------------------------------------------------------------


def _bad_chunk(name: str, body: bytes) -> None:
    _refused(name, post(body, TE), begins=True)


for _size in (
    b"+5", b"-5", b"0x5", b" 5", b"5 ", b"\t5", b"5\t", b"", b"G", b"5g", b"5.", b"5_", b"00000000000000005",
    b"0" * 40 + b"5",
    b"10000000000000005", b"5;\x00", b"5;x\x7f", b"5\x00", b"5\r", b"5\x0b", b"5,5", b"\xb5", b"5 5",
):  # fmt: skip
    _bad_chunk(f"a chunk's size is {_size.decode('latin-1')[:20]!r}", _size + b"\r\nhello\r\n" + LAST)
_bad_chunk("a chunk's size ends with a bare LF", b"5\nhello\r\n" + LAST)
_bad_chunk("a chunk's size ends with a bare CR", b"5\rhello\r\n" + LAST)
_bad_chunk("a chunk's extension holds a bare LF", b"5;x\ny\r\nhello\r\n" + LAST)
_bad_chunk("a chunk's extension holds a bare CR", b"5;x\ry\r\nhello\r\n" + LAST)
_bad_chunk("a quoted extension holds a bare LF", b'5;x="\n"\r\nhello\r\n' + LAST)
_bad_chunk("an extension of 20,000 bytes", b"5;" + b"x" * 20_000 + b"\r\nhello\r\n" + LAST)
_bad_chunk("a chunk is longer than its size", b"5\r\nhello!\r\n" + LAST)
_bad_chunk("a chunk is shorter than its size", b"6\r\nhello\r\n" + LAST)
_bad_chunk("no CR LF after a chunk's data", b"5\r\nhello0\r\n\r\n")
_bad_chunk("a bare LF after a chunk's data", b"5\r\nhello\n" + LAST)
_bad_chunk("a bare CR after a chunk's data", b"5\r\nhello\r" + LAST)
_bad_chunk("a size beyond 63 bits", b"FFFFFFFFFFFFFFFF\r\nhello\r\n" + LAST)
_bad_chunk("a bare LF after the last chunk's size", HELLO + b"0\n\r\n")
_bad_chunk("a bare LF as the end", HELLO + b"0\r\n\n")
_bad_chunk("a trailer without a colon", HELLO + b"0\r\nbad trailer\r\n\r\n")
_bad_chunk("a trailer with a space before the colon", HELLO + b"0\r\nX-A : b\r\n\r\n")
_bad_chunk("a trailer with a fold", HELLO + b"0\r\nX-A: b\r\n c\r\n\r\n")
_bad_chunk("a trailer with a bare LF", HELLO + b"0\r\nX-A: b\nX-B: c\r\n\r\n")
_bad_chunk("a trailer with a NUL", HELLO + b"0\r\nX-A: b\x00\r\n\r\n")
_bad_chunk("a trailer with an empty name", HELLO + b"0\r\n: b\r\n\r\n")
_bad_chunk("a trailer of 20,000 bytes", HELLO + b"0\r\nX-A: " + b"b" * 20_000 + b"\r\n\r\n")
_bad_chunk("101 trailers", HELLO + b"0\r\n" + b"X-A: b\r\n" * 101 + b"\r\n")
for _extension in (b";x", b";x=y", b';x="y"', b';x="a;b\\"c"', b" ;x=y", b";x=y;z"):
    _passes(
        f"a chunk's extension {_extension.decode()}",
        post(b"5" + _extension + b"\r\nhello\r\n" + LAST, TE),
        posted(b"hello"),
    )
_passes("a chunk's size with zeros before it", post(b"0005\r\nhello\r\n" + b"000\r\n\r\n", TE), posted(b"hello"))
_passes(
    "chunks in hex of both cases", post(b"a\r\n0123456789\r\nA\r\n0123456789\r\n" + LAST, TE), posted(b"0123456789" * 2)
)
_passes("a chunked body of nothing", post(LAST, TE), posted(b""))
for _trailer in (
    b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: localhost", b"Authorization: Bearer x",
    b"X-Forwarded-For: 6.6.6.6", b"X-Actor-Request-ID: forged", b"Connection: close", b"Trailer: x",
    b"X-Apify-Authorization: Bearer x",
):  # fmt: skip
    _passes(
        f"a trailer {_trailer.partition(b':')[0].decode()}",
        post(HELLO + b"0\r\n" + _trailer + b"\r\n\r\n", TE),
        posted(b"hello"),
    )
_refused("a last chunk twice", post(HELLO + LAST + LAST, TE), 400, 505, after=(posted(b"hello"),))

CASES = tuple(_cases)
