"""
No I/O: request heads remembered by their bytes, and what of a head goes to the Actor.

Analysing a header block costs several times what all else does for a request, and callers send the same block again and
again, but for a few values: the body's length, cookies, trace and request ids. These are cut out of the block by one
regular expression, and what is left is looked up. Nothing is believed of a cut value but what the expression has
checked: it holds no control character, and a Content-Length is a decimal number. A value that fails is not cut, so its
bytes stay in the key, where no remembered block has them.

Remembered are facts about bytes alone, never what a request may do. They hold tokens: ``clear`` them, never print them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.core.errors import HeadTooLarge
from gateway.proxy.headers import as_text, candidates_of, lines_for_actor, said_by_us, without_token
from gateway.proxy.plan import ForwardPlan
from gateway.proxy.splice.request_head import LENGTH_IS_CUT, HeadLimits, RequestHead, analyse
from gateway.proxy.splice.shapes import Shape, shape_of

CUT = b"\x00"
"""What stands for a cut value in a remembered head. No header can hold it."""

_MAX_ENTRIES = 4096
_MAX_BLOCK_BYTES = 4096
_MAX_TOTAL_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 64  # what the smallest piece of a key takes up in memory
_MAX_SHAPES = 512  # some kilobytes each
_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long


def _any_of(*names: str) -> str:
    """*names* as clients spell them: what is a capital letter here may be a small one."""
    return "|".join(re.sub("[A-Z]", lambda letter: f"[{letter[0]}{letter[0].lower()}]", name) for name in names)


# Grouped by first letter, so that a header of another name is passed over after one comparison or two.
_X_NAMES = _any_of(
    "Request-ID", "Correlation-ID", "Request-Start", "Amzn-Trace-ID", "Cloud-Trace-Context", "B3-TraceID", "B3-SpanID",
    "B3-ParentSpanID",
)  # fmt: skip
_NAMES = "|".join(
    [
        _any_of("Cookie"),
        _any_of("Traceparent", "Tracestate"),
        _any_of("If-None-Match", "If-Modified-Since", "If-Range", "Idempotency-Key"),
        f"[Xx]-(?:{_X_NAMES})",
        _any_of("Sec-WebSocket-Key", "Sentry-Trace"),
        _any_of("Range", "Baggage", "Last-Event-ID"),
    ]
)
_LENGTH = _any_of("Content-Length") + r":(?=[ \t]*[0-9]{1,18}[ \t]*(?:\r|\Z))"
# The space around a value belongs to nobody: before it, it is skipped; after it, it stays in the key.
_cut: Callable[[bytes], list[Any]] = re.compile(
    rf"(\n(?:{_LENGTH}|(?:{_NAMES}):))[ \t]*((?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)".encode("latin-1")
).split


class Seen(NamedTuple):
    """
    A request's head: ``head``, and the values that were cut out of it, in order, as they go to the Actor.

    Where something was cut, ``head.headers`` hold ``CUT`` in its place, and ``head`` is the same object for all
    requests that differ in nothing else. ``length`` is this request's own.
    """

    head: RequestHead
    values: tuple[bytes, ...]
    length: int | None


@dataclass(slots=True, repr=False)
class RequestHeads:
    """
    What the process has seen of request heads; of bounded size, and dropped whole when it is full.

    At most *max_entries*, each of a block of at most *max_block_bytes* without its cut values, and all of them together
    of at most *max_total_bytes*; in memory a block takes up to four times its size.
    """

    limits: HeadLimits = field(default_factory=HeadLimits)
    max_entries: int = _MAX_ENTRIES
    max_block_bytes: int = _MAX_BLOCK_BYTES
    max_total_bytes: int = _MAX_TOTAL_BYTES
    hits: int = 0
    misses: int = 0
    _known: dict[tuple[int | bytes, ...], RequestHead] = field(default_factory=dict)
    _total_bytes: int = 0
    _shapes: dict[RequestHead, Shape] = field(default_factory=dict)

    def look(self, block: bytes, minor: int) -> Seen:
        """What ``analyse`` says of *block*, from memory where it can be; raises what that raises."""
        if len(block) > self.limits.max_bytes:
            raise HeadTooLarge(f"The headers of a request may have {self.limits.max_bytes} bytes.")
        pieces = _cut(block)
        values = pieces[2::3]
        del pieces[2::3]
        head = self._known.get((minor, *pieces))
        if head is None:
            return self._learn(block, minor, pieces, values)
        self.hits += 1
        return seen_with(head, tuple(values))

    def shape(self, head: RequestHead, is_to_make: bool = True) -> Shape | None:
        """
        What matches heads with the empty line that ``look`` would say *head* of; its groups are for ``seen_with``.

        None where it has none, or nobody has asked to make it yet.
        """
        shape = self._shapes.get(head)
        if shape is None and is_to_make:
            shape = shape_of(head.block.split(CUT), head.length_at)
            if shape is not None:
                if len(self._shapes) >= _MAX_SHAPES:
                    self._shapes.clear()
                self._shapes[head] = shape
        return shape

    def clear(self) -> None:
        """Forget everything; the counts stay."""
        self._known.clear()
        self._shapes.clear()
        self._total_bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def _learn(self, block: bytes, minor: int, pieces: list[bytes], values: list[bytes]) -> Seen:
        head = analyse(block, minor=minor, limits=self.limits)
        self.misses += 1
        names = [name[1:-1].lower() for name in pieces[1::2]]
        size = sum(map(len, pieces))
        if size > self.max_block_bytes or _must_stay_whole(head, names):
            return Seen(head, (), head.length)
        if values:
            head = _without_values(head, pieces, names)
        size += _PIECE_BYTES * len(pieces)
        if len(self._known) >= self.max_entries or self._total_bytes + size > self.max_total_bytes:
            self.clear()
        self._total_bytes += size
        self._known[(minor, *pieces)] = head
        return seen_with(head, tuple(values))


def actor_segments(head: RequestHead, plan: ForwardPlan) -> tuple[bytes, ...]:
    """
    The lines of the head for the Actor, cut open where the values that belong to *head* go in: one more than these.

    What the Actor gets is the request line, segment, value, segment, …, and after the last segment the line with the
    request id and the empty line. *plan* decides with its credentials, addresses, scheme and host; its request id is
    not looked at, nor are its prefix and sandbox: the path form does not come this way.
    """
    kept = head.made.get(key := (plan.credentials.in_authorization, plan.keep_credentials))
    if kept is None:
        lines = lines_for_actor(head.headers, plan)
        if head.upgrade is not None:
            lines += [(b"Connection", b"Upgrade"), (b"Upgrade", head.upgrade)]
        kept = tuple(as_text(lines).split(CUT))
        if head.host:  # else a Host is among them that the next request need not ask for
            head.made[key] = kept
    return (*kept[:-1], kept[-1] + _said(plan.client_host, plan.proxies, plan.host, plan.scheme, head.minor))


def target_for_actor(target: bytes, keep_credentials: bool) -> bytes:
    """*target* without our token in its query, unless the owner has credentials forwarded."""
    if keep_credentials or (b"token" not in target and b"%" not in target):
        return target
    path, _, query = target.partition(b"?")
    left = without_token(query)
    return target if left == query else path + b"?" + left if left else path


def query_tokens(target: bytes) -> tuple[str, ...]:
    """The candidates for a token in the query of *target*, in order."""
    if b"token" not in target and b"%" not in target:
        return ()
    return tuple(candidates_of((), target.partition(b"?")[2]))


@lru_cache(maxsize=4096)
def _said(client_host: str, proxies: tuple[str, ...], host: str, scheme: str, minor: int) -> bytes:
    lines = said_by_us(client_host=client_host, proxies=proxies, host=host, scheme=scheme, version=f"1.{minor}")
    return as_text(lines)


def seen_with(head: RequestHead, values: tuple[bytes, ...]) -> Seen:
    """What *head* states where *values* were cut out of it."""
    at = head.length_at
    if at < 0:
        return _new(Seen, (head, values, head.length))
    length = int(values[at])
    if values[at][:1] == b"0":  # as framing goes to the Actor: in one spelling
        values = (*values[:at], b"%d" % length, *values[at + 1 :])
    return _new(Seen, (head, values, length))


def _must_stay_whole(head: RequestHead, names: list[bytes]) -> bool:
    """Whether a fact hangs on a value that would be cut, or a header that would be is not for the Actor."""
    if not names:
        return False
    return not head.options.isdisjoint(names) or (b"upgrade" in head.options and b"content-length" in names)


def _without_values(head: RequestHead, pieces: list[bytes], names: list[bytes]) -> RequestHead:
    """*head* as it is for any values between *pieces*, which alternate between text and the name of a cut header."""
    at = names.index(b"content-length") if b"content-length" in names else -1
    return replace(
        head,
        block=b"".join([piece + CUT if at % 2 else piece for at, piece in enumerate(pieces)]),
        length=LENGTH_IS_CUT if at >= 0 else head.length,
        length_at=at,
    )
