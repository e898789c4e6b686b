"""
No I/O: the header block of a request, read strictly (RFC 9112 §5 and §6), and the facts that it states.

Whatever two servers could read in two ways is refused. What a block states never changes, so it can be remembered
(``request_cache``); what it is worth (routes, tokens, limits) is looked up for each request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.core.errors import HeadTooLarge, InvalidRequest
from gateway.proxy.headers import CHUNKED, candidates_of, framing, refuse_chunks_in_old_http, refuse_loop
from gateway.proxy.plan import Headers
from gateway.proxy.splice.request_line import HOST

LENGTH_IS_CUT = -3
"""As ``RequestHead.length``: it stands among the values that were cut out, see ``request_cache``."""

# A value takes any byte but control characters; tabs may stand in it.
_LINE = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+"
_BLOCK = re.compile(_LINE + rb"(?:\r\n" + _LINE + rb")*+")
_ONE_LINE = re.compile(_LINE)
# A tab is space too, but there are servers that then don't see the coding.
_CODING_WITH_TAB = re.compile(rb"(?:^|\n)transfer-encoding:[^\n]*\t", re.IGNORECASE)
_HOST = re.compile(HOST)
_PROTOCOL = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+(?:/[!#$%&'*+.^_`|~0-9a-z-]+)?")
# HTTP/2 is offered by TLS or prior knowledge alone (RFC 9113 §3.1); a tunnel of HTTP would pass requests by unseen.
_NO_TUNNEL = re.compile(rb"h2c?|http(?:/.*)?")
# Those that a head's facts come from; and those that admission looks at.
_STATING = frozenset({b"connection", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade", b"via"})
_TELLING = frozenset(
    {
        b"authorization",
        b"x-apify-authorization",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"origin",
        b"access-control-request-method",
        b"access-control-request-headers",
    }
)

_NO_OPTIONS: frozenset[bytes] = frozenset()  # one for all: an empty set takes more memory than most header blocks

Told = Mapping[bytes, Sequence[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """How large a header block may be."""

    max_bytes: int = 64 * 1024
    max_headers: int = 100


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, repr=False)
class RequestHead:
    """
    What one header block states. It holds tokens: it has no text of its own, so that none gets into a log.

    ``telling`` are the headers that admission looks at (tokens, CORS, addresses), names in lower case. ``host`` is
    empty only where HTTP/1.0 left it out. ``length`` is the body's Content-Length, CHUNKED or None. ``options`` are
    what ``Connection`` names, in lower case; ``keeps_alive`` is what they say of another request. ``upgrade`` is the
    one protocol that is asked for, in lower case, where ``Connection`` says so too. ``tokens`` are the candidates for a
    token in headers, most telling first.

    ``headers`` and ``lowered`` are made from ``block`` when asked for: thousands of heads are kept, and few are asked.
    ``length_at`` and ``made`` belong to ``request_cache``.
    """

    minor: int
    block: bytes
    telling: Headers
    host: bytes
    length: int | None
    options: frozenset[bytes]
    keeps_alive: bool
    upgrade: bytes | None
    expects_continue: bool
    tokens: tuple[str, ...]
    length_at: int = -1
    made: dict[tuple[bool, bool], tuple[bytes, ...]] = field(init=False, default_factory=dict)

    @property
    def headers(self) -> Headers:
        """As sent, in order and with duplicates; values are without the space around them."""
        return split_block(self.block)

    @property
    def lowered(self) -> Headers:
        """The same with names in lower case."""
        return [(name.lower(), value) for name, value in split_block(self.block)]

    @property
    def wants_close(self) -> bool:
        """Whether the connection ends with this request."""
        return b"close" in self.options

    @property
    def wants_keep_alive(self) -> bool:
        """Whether HTTP/1.0 asks to keep the connection."""
        return b"keep-alive" in self.options


def analyse(block: bytes, *, minor: int, limits: HeadLimits = HeadLimits()) -> RequestHead:
    """
    The facts of *block*: what stands between the request line and the empty line, without the line breaks around it.

    *minor* is that of HTTP/1.``minor``. Raises InvalidRequest (400), HeadTooLarge (431), CodingNotSupported (501) and
    LoopDetected (508).
    """
    if len(block) > limits.max_bytes:
        raise HeadTooLarge(f"The headers of a request may have {limits.max_bytes} bytes.")
    if block and block.count(b"\n") >= limits.max_headers:
        raise HeadTooLarge(f"A request may have {limits.max_headers} headers.")
    if block and not _BLOCK.fullmatch(block):
        raise InvalidRequest(_problem(block))
    told: dict[bytes, list[bytes]] = {}
    telling: Headers = []
    for name, value in split_block(block):
        lower = name.lower()
        if lower in _STATING:
            told.setdefault(lower, []).append(value)
        elif lower in _TELLING:
            telling.append((lower, value))
    length = framing(told.get(b"content-length", ()), told.get(b"transfer-encoding", ()))
    refuse_chunks_in_old_http(length, f"1.{minor}")
    if length == CHUNKED and _CODING_WITH_TAB.search(block):
        raise InvalidRequest("Transfer-Encoding must be 'chunked', without a tab beside it.")
    refuse_loop(told.get(b"via", ()))
    options = _options(told)
    return RequestHead(
        minor=minor,
        block=block,
        telling=telling,
        host=_host(told.get(b"host", ()), minor),
        length=length,
        options=options,
        keeps_alive=b"close" not in options if minor else b"keep-alive" in options,
        upgrade=_upgrade(told, options) if minor and not length else None,
        expects_continue=minor > 0 and b"100-continue" in [value.lower() for value in told.get(b"expect", ())],
        tokens=tuple(candidates_of(telling, b"")),
    )


def split_block(block: bytes) -> Headers:
    """The headers of a block whose grammar has been checked."""
    pairs = [line.partition(b":") for line in block.split(b"\r\n")] if block else []
    return [(name, value.strip(b" \t")) for name, _, value in pairs]


def _host(hosts: Sequence[bytes], minor: int) -> bytes:
    if not hosts and not minor:
        return b""
    if len(hosts) != 1:
        raise InvalidRequest("A request has exactly one Host header.")
    if not _HOST.fullmatch(hosts[0]):
        raise InvalidRequest("The Host header must be one name or address, with a port or without.")
    return hosts[0]


def _options(told: Told) -> frozenset[bytes]:
    if b"connection" not in told:
        return _NO_OPTIONS
    return frozenset(option.strip(b" \t").lower() for option in b",".join(told[b"connection"]).split(b","))


def _upgrade(told: Told, options: frozenset[bytes]) -> bytes | None:
    """
    The protocol to change to. Several are not offered on, nor with a body: a server may ignore any upgrade.

    (RFC 9110 §7.8, which also says that HTTP/1.0 has none.)
    """
    if b"upgrade" not in options:
        return None
    asked = [protocol.strip(b" \t").lower() for protocol in b",".join(told.get(b"upgrade", ())).split(b",")]
    protocols = [protocol for protocol in asked if _PROTOCOL.fullmatch(protocol) and not _NO_TUNNEL.fullmatch(protocol)]
    return protocols[0] if len(protocols) == 1 else None


def _problem(block: bytes) -> str:
    """What is wrong with the first wrong line, without a word of what stands in it."""
    for number, line in enumerate(block.split(b"\r\n"), 1):
        if _ONE_LINE.fullmatch(line):
            continue
        name, colon, _ = line.partition(b":")
        if b"\r" in line or b"\n" in line:
            what = "lines end with CR and LF together, and neither stands alone"
        elif line[:1] in (b" ", b"\t"):
            what = "a header stands on one line"
        elif not colon:
            what = "a header is 'Name: value'"
        elif not name:
            what = "a header has a name"
        elif name != name.rstrip(b" \t"):
            what = "no space stands before the colon"
        else:
            what = "it holds characters that may not stand there"
        return f"Header {number} of the request is malformed: {what}."
    return "The headers of the request are malformed."
