"""
No I/O: answers' heads remembered by their bytes, with what of them goes to the caller.

Reading a head strictly and writing it anew costs several times what all else does for an answer, and an Actor's
answers begin alike but for a few values: the date, the body's length, entity tags, cookies. These are cut out of the
head by one regular expression, and what is left is looked up. Nothing is believed of a cut value but what the
expression has checked: it holds no control character, and a Content-Length is a decimal number. A value that fails is
not cut, so its bytes stay in the key, where no remembered head has them.

Values are never remembered, cookies least of all: each answer gets its own, kept to the host that it is for. So what is
remembered serves every host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.proxy.headers import as_text, lines_for_caller, with_own_domain
from gateway.proxy.plan import Headers
from gateway.proxy.splice.answer_head import MAX_HEAD_BYTES, AnswerFacts, NotHttp, analyse_answer
from gateway.proxy.splice.request_head import split_block

CUT = b"\x00"
"""What stands for a cut value in the headers of a remembered head. No header can hold it."""

_MAX_ENTRIES = 8192
_MAX_BLOCK_BYTES = 4096

_NAMES = "|".join(
    [
        "date",
        r"content-length(?=:[ \t]*[0-9]{1,18}[ \t]*(?:\r|\Z))",
        "set-cookie",
        "etag",
        "last-modified",
        "expires",
        "age",
        "server-timing",
        "sec-websocket-accept",
        "x-(?:request-id|process-time|response-time|runtime)",
    ]
)
# The space around a value belongs to nobody: before it, it is skipped; after it, it stays in the key.
_cut: Callable[[bytes], list[Any]] = re.compile(
    rf"(\n(?i:{_NAMES}):)[ \t]*((?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)".encode("latin-1")
).split


class SeenAnswer(NamedTuple):
    """
    An answer's head.

    ``facts`` are this answer's own, but ``facts.headers`` hold ``CUT`` in place of what was cut out. ``head`` is its
    status line and its headers for the caller, line breaks included, without the empty line. Neither ``Connection``
    nor ``Transfer-Encoding`` is among them: who sends it adds the caller's. A 101 alone has its ``Connection`` and
    ``Upgrade``.
    """

    facts: AnswerFacts
    head: bytes


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Known:
    """
    A head without its cut values.

    ``parts`` are its text for the caller, with a gap at every odd place; ``shown`` says which value goes into each of
    them (None: all, in order), ``cookies`` which gaps hold a cookie, ``length_at`` which value is the body's length.
    """

    stem: tuple[Any, ...]  # the facts but for the length, which is their last
    length: int
    length_at: int
    parts: list[bytes]
    shown: tuple[int, ...] | None
    cookies: tuple[int, ...]


@dataclass(slots=True, repr=False)
class AnswerHeads:
    """
    What the process has seen of answers' heads; of bounded size, and dropped whole when it is full.

    At most *max_entries*, each of a head of at most *max_block_bytes* without its cut values.
    """

    max_entries: int = _MAX_ENTRIES
    max_block_bytes: int = _MAX_BLOCK_BYTES
    hits: int = 0
    misses: int = 0
    _known: dict[tuple[bytes, ...], _Known] = field(default_factory=dict)

    def look(self, block: bytes, host: bytes) -> SeenAnswer:
        """
        What ``analyse_answer`` says of *block*, from memory where it can be, and its text for a caller who asked
        *host*. Raises NotHttp.
        """
        if len(block) > MAX_HEAD_BYTES:
            raise NotHttp(f"its head is longer than {MAX_HEAD_BYTES} bytes")
        pieces = _cut(block)
        values = pieces[2::3]
        del pieces[2::3]
        key = tuple(pieces)
        known = self._known.get(key)
        if known is None:
            self.misses += 1
            known = _without_values(analyse_answer(block), pieces)
            if sum(map(len, pieces)) <= self.max_block_bytes:
                if len(self._known) >= self.max_entries:
                    self._known.clear()
                self._known[key] = known
        else:
            self.hits += 1
        return _seen(known, values, host)

    def clear(self) -> None:
        """Forget everything; the counts stay."""
        self._known.clear()

    def __len__(self) -> int:
        return len(self._known)


def _seen(known: _Known, values: list[bytes], host: bytes) -> SeenAnswer:
    length = known.length
    if known.length_at >= 0:
        length = int(values[known.length_at])
        values[known.length_at] = b"%d" % length  # said in one way only: without leading zeros
    if known.shown is not None:
        values = [values[at] for at in known.shown]
    for at in known.cookies:
        values[at] = with_own_domain(values[at], host)
    parts = known.parts.copy()
    parts[1::2] = values
    return SeenAnswer(AnswerFacts._make((*known.stem, length)), b"".join(parts))


def _without_values(facts: AnswerFacts, pieces: Sequence[bytes]) -> _Known:
    """*facts* as they are for any values between *pieces*, which are text and the name of a cut header in turn."""
    names = [name[1:-1].lower() for name in pieces[1::2]]
    block = b"".join([piece + CUT if at % 2 else piece for at, piece in enumerate(pieces)])
    facts = facts._replace(headers=split_block(block.partition(b"\r\n")[2]))
    lines = _lines(facts)
    # What becomes of a header hangs on its name alone.
    kept = {name.lower() for name, _ in lines}
    shown = [at for at, name in enumerate(names) if name in kept]
    texts = (b"HTTP/1.1 %d %b\r\n%b" % (facts.status, facts.reason, as_text(lines))).split(CUT)
    parts = [b""] * (2 * len(texts) - 1)
    parts[::2] = texts
    return _Known(
        stem=facts[:-1],
        length=facts.length,
        length_at=names.index(b"content-length") if b"content-length" in names else -1,
        parts=parts,
        shown=None if len(shown) == len(names) else tuple(shown),
        cookies=tuple(gap for gap, at in enumerate(shown) if names[at] == b"set-cookie"),
    )


def _lines(facts: AnswerFacts) -> Headers:
    """For the caller, in which every cookie is cut out."""
    lines = lines_for_caller(facts.headers, b"")
    if facts.status < 200 or facts.status == 204:  # they have no length, not even a wrong one (RFC 9110 §8.6)
        lines = [(name, value) for name, value in lines if name.lower() != b"content-length"]
    if facts.status == 101 and facts.upgrade is not None:
        lines += [(b"Connection", b"Upgrade"), (b"Upgrade", facts.upgrade)]
    return lines
