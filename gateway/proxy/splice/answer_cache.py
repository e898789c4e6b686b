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
from gateway.proxy.splice.shapes import Shape, shape_of

LENGTH_IS_CUT = -4
"""As ``AnswerFacts.length``: it stands among the values that were cut out."""

CUT = b"\x00"
"""What stands for a cut value in the headers of a remembered head. No header can hold it."""

_MAX_ENTRIES = 8192
_MAX_BLOCK_BYTES = 4096
_MAX_BYTES = 2 * 1024 * 1024  # of heads as they came; in memory it is some eight times as much
_MAX_SHAPES = 512  # some kilobytes each


def _any_case(initial: str, rest: str) -> str:
    """The first letter stands apart, so that a header of another name is passed over after one comparison."""
    return f"[{initial}{initial.lower()}](?i:{rest})"


_NAMES = "|".join(
    [
        _any_case("D", "ate"),
        _any_case("C", "ontent-length") + r"(?=:[ \t]*[0-9]{1,18}[ \t]*(?:\r|\Z))",
        _any_case("E", "tag|xpires"),
        _any_case("S", "et-cookie|ec-websocket-accept|erver-timing"),
        _any_case("L", "ast-modified"),
        _any_case("A", "ge"),
        _any_case("X", "-(?:request-id|process-time|response-time|runtime)"),
    ]
)
# The space around a value belongs to nobody: before it, it is skipped; after it, it stays in the key.
_cut: Callable[[bytes], list[Any]] = re.compile(
    rf"(\n(?:{_NAMES}):)[ \t]*((?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)".encode("latin-1")
).split
_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long


class SeenAnswer(NamedTuple):
    """
    An answer's head.

    ``facts`` are those of all answers that differ only in what was cut out: ``facts.headers`` hold ``CUT`` in its
    place, ``facts.length`` is ``LENGTH_IS_CUT`` where that was. ``length`` is this answer's own. ``head`` is its status
    line and its headers for the caller, line breaks included, without the empty line. Neither ``Connection`` nor
    ``Transfer-Encoding`` is among them: who sends it adds the caller's. A 101 alone has its ``Connection`` and
    ``Upgrade``.
    """

    known: KnownAnswer
    facts: AnswerFacts
    length: int
    head: bytes


class KnownAnswer(NamedTuple):
    """
    A head without its cut values: ``pieces`` are its text, in turn with the beginnings of the lines they stood on.

    ``parts`` are its text for the caller, with a gap at every odd place; ``shown`` says which value goes into each of
    them (None: all, in order), ``cookies`` which gaps hold a cookie, ``length_at`` which value is the body's length.
    """

    pieces: tuple[bytes, ...]
    facts: AnswerFacts
    length_at: int
    parts: list[bytes]
    shown: tuple[int, ...] | None
    cookies: tuple[int, ...]


@dataclass(slots=True, repr=False)
class AnswerHeads:
    """
    What the process has seen of answers' heads; of bounded size, and dropped whole when it is full.

    At most *max_entries*, each of a head of at most *max_block_bytes* without its cut values, and *max_bytes* in all.
    """

    max_entries: int = _MAX_ENTRIES
    max_block_bytes: int = _MAX_BLOCK_BYTES
    max_bytes: int = _MAX_BYTES
    hits: int = 0
    misses: int = 0
    _known: dict[tuple[bytes, ...], KnownAnswer] = field(default_factory=dict)
    _bytes: int = 0
    _shapes: dict[tuple[bytes, ...], Shape] = field(default_factory=dict)

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
            known = _without_values(analyse_answer(block), key)
            size = sum(map(len, pieces))
            if size <= self.max_block_bytes:
                if len(self._known) >= self.max_entries or self._bytes + size > self.max_bytes:
                    self.clear()
                self._known[key] = known
                self._bytes += size
        else:
            self.hits += 1
        return seen_with(known, values, host)

    def shape(self, known: KnownAnswer, is_to_make: bool = True) -> Shape | None:
        """
        What matches heads with the empty line that ``look`` would say *known* of; its groups are for ``seen_with``.

        None where it has none, or nobody has asked to make it yet.
        """
        shape = self._shapes.get(known.pieces)
        if shape is None and is_to_make:
            *texts, last = known.pieces
            lines = [text + name for text, name in zip(texts[::2], texts[1::2], strict=True)]
            shape = shape_of([*lines, last], known.length_at)
            if shape is not None:
                if len(self._shapes) >= _MAX_SHAPES:
                    self._shapes.clear()
                self._shapes[known.pieces] = shape
        return shape

    def clear(self) -> None:
        """Forget everything; the counts stay."""
        self._known.clear()
        self._shapes.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._known)


def seen_with(known: KnownAnswer, values: Sequence[bytes], host: bytes) -> SeenAnswer:
    """What *known* is with *values*, for a caller who asked *host*."""
    _, facts, length_at, gaps, shown, cookies = known
    length = facts.length
    if length_at >= 0:
        text = values[length_at]
        length = int(text)
        if text[:1] == b"0":  # said in one way only: without leading zeros
            values = [*values[:length_at], b"%d" % length, *values[length_at + 1 :]]
    if shown is not None:
        values = [values[at] for at in shown]
    parts = gaps.copy()
    parts[1::2] = values
    for at in cookies:
        parts[2 * at + 1] = with_own_domain(values[at], host)
    return _new(SeenAnswer, (known, facts, length, b"".join(parts)))


def _without_values(facts: AnswerFacts, pieces: tuple[bytes, ...]) -> KnownAnswer:
    """*facts* as they are for any values between *pieces*."""
    names = [name[1:-1].lower() for name in pieces[1::2]]
    cut = frozenset(names)
    headers = [(name, CUT if name.lower() in cut else value) for name, value in facts.headers]
    length = LENGTH_IS_CUT if b"content-length" in cut else facts.length
    facts = _new(AnswerFacts, (*facts[:-2], headers, length))
    lines = _lines(facts)
    kept = {name.lower() for name, _ in lines}
    shown = [at for at, name in enumerate(names) if name in kept]  # what becomes of a header hangs on its name alone
    texts = (b"HTTP/1.1 %d %b\r\n%b" % (facts.status, facts.reason, as_text(lines))).split(CUT)
    parts = [b""] * (2 * len(texts) - 1)
    parts[::2] = texts
    return KnownAnswer(
        pieces=pieces,
        facts=facts,
        length_at=names.index(b"content-length") if b"content-length" in cut else -1,
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
