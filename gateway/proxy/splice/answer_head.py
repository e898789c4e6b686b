"""
No I/O: the head of an Actor's answer, read strictly (RFC 9112 §4 to §6), and the facts that it states.

Strict on purpose: whatever two readers could frame in two ways (bare line feeds, Content-Length twice or beside
Transfer-Encoding, folded lines) is refused, so that no answer can be taken for the next one on the same connection.
Both ways of proxying read answers by these functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from gateway.proxy.plan import Headers

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 1000

CHUNKED = -1
"""As a body's length: it comes in chunks."""

UNTIL_EOF = -2
"""As a body's length: it ends with the connection."""

_BEGINNING = b"HTTP/1."
# A value takes any byte but control characters; tabs may stand in it.
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*+"
_STATUS_LINE = rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: (" + _TEXT + rb"))?"
_BLOCK = re.compile(_STATUS_LINE + rb"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]++:" + _TEXT + rb")*+")
_FIRST_LINE = re.compile(_STATUS_LINE + rb"(?:\r\n.*)?", re.DOTALL)
_BARE_LF = re.compile(rb"(?:^|[^\r])\n")
_LONGEST_LENGTH = 18


class NotHttp(Exception):
    """These bytes are no HTTP/1.1 answer that can be trusted; the text says why."""


class AnswerFacts(NamedTuple):
    """
    What the head of one answer states.

    ``headers`` are as sent, in order and with duplicates, their values without the space around. ``keeps_alive`` says
    whether the connection may stay open as far as version and ``Connection`` go; a body that ends with it closes it
    too. ``upgrade`` is what the one ``Upgrade`` header says, in lower case, where ``Connection`` names it; a 101
    without it switches to nobody knows what. ``options`` are what ``Connection`` names, in lower case. ``length`` is as
    the headers say: a Content-Length, CHUNKED or UNTIL_EOF; ``body_length`` knows which have no body all the same.
    """

    status: int
    minor: int
    reason: bytes
    keeps_alive: bool
    upgrade: bytes | None
    options: frozenset[bytes]
    headers: Headers
    length: int


def analyse_answer(block: bytes) -> AnswerFacts:
    """The facts of *block*: status line and headers, without the line break and the empty line at its end. NotHttp."""
    if len(block) > MAX_HEAD_BYTES:
        raise NotHttp(f"its head is longer than {MAX_HEAD_BYTES} bytes")
    if block.count(b"\n") > MAX_HEADERS:
        raise NotHttp(f"it has more than {MAX_HEADERS} headers")
    found = _BLOCK.fullmatch(block)
    if found is None:
        if _FIRST_LINE.fullmatch(block):
            raise NotHttp("a line of its head is malformed")
        raise NotHttp("its status line is malformed, or has none of the statuses from 100 to 599")
    minor, status, reason = int(found[1]), int(found[2]), found[3] or b""
    headers: Headers = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    options: list[bytes] = []
    protocols: list[bytes] = []
    for line in block.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        headers.append((name, value))
        name = name.lower()
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
        elif name == b"connection":
            options += [option.strip(b" \t").lower() for option in value.split(b",")]
        elif name == b"upgrade":
            protocols.append(value.lower())
    upgrade = protocols[0] if b"upgrade" in options and len(protocols) == 1 else None
    return AnswerFacts(
        status=status,
        minor=minor,
        reason=reason,
        keeps_alive=minor == 1 and b"close" not in options,
        upgrade=upgrade,
        options=frozenset(options),
        headers=headers,
        length=_length(lengths, codings, minor),
    )


def body_length(facts: AnswerFacts, method: bytes) -> int:
    """
    How long the body is that follows the head in answer to a *method* request, or CHUNKED or UNTIL_EOF.

    HEAD, 1xx, 204 and 304 have no body whatever their headers say (RFC 9112 §6.3).
    """
    return facts.length if may_have_body(facts.status, method) else 0


def may_have_body(status: int, method: bytes) -> bool:
    """Whether what answers a *method* request with *status* goes on after its head."""
    return method != b"HEAD" and not never_has_body(status)


def never_has_body(status: int) -> bool:
    """Whether an answer of *status* ends with its head."""
    return status < 200 or status == 204 or status == 304


def refuse_partial_head(data: bytes, since: int) -> None:
    """
    Raise NotHttp for the beginning *data* of a head whose end has not come, where no end could make it a good one.

    Of line ends, only those from index *since* on are looked at: the last byte that was there before.
    """
    if not _BEGINNING.startswith(data[: len(_BEGINNING)]):
        raise NotHttp(f"it begins with {data[:7]!r}")
    if len(data) > MAX_HEAD_BYTES:
        raise NotHttp(f"its head is longer than {MAX_HEAD_BYTES} bytes")
    if _BARE_LF.search(data, max(0, since)):
        raise NotHttp("a line of its head ends without a carriage return")


def _length(lengths: Sequence[bytes], codings: Sequence[bytes], minor: int) -> int:
    if codings:
        if lengths:
            raise NotHttp("it has both Content-Length and Transfer-Encoding")
        if list(codings) != [b"chunked"] or not minor:
            raise NotHttp("its Transfer-Encoding is not plain 'chunked'")
        return CHUNKED
    if not lengths:
        return UNTIL_EOF
    if len(lengths) > 1:
        raise NotHttp("it has several Content-Length headers")
    if not lengths[0].isdigit() or len(lengths[0]) > _LONGEST_LENGTH:
        raise NotHttp("its Content-Length is no number")
    return int(lengths[0])
