"""
No I/O: heads that keep coming on a connection but for a few values, each as one regular expression.

To cut the values out of a head and to look up what is left costs several calls and as many copies; where the next head
is most likely like one before, it can be asked for at one stroke. What a shape matches is what would have been cut out
and looked up, with the same values, so it decides nothing by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

# So many heads in a row have to be alike before a shape is made of them. Making one takes up to a millisecond within
# these bounds, and whoever wants to waste ours may send other heads without end.
_MADE_AFTER = 64
_MOST_BYTES = 2048
_MOST_VALUES = 16
_DROPPED_AFTER = 64  # of so many others
_MOST = 8  # for a connection

# The space around a value belongs to nobody: see the expressions that cut. Atomic: there is one way to match.
_VALUE = rb"[ \t]*+((?>(?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?))"
_LENGTH = rb"[ \t]*+([0-9]{1,18}+)"
_END = b"\r\n\r\n"

# Told what came and where a head begins in it: the values as groups, and the end of the empty line as the end.
Shape = Callable[[bytes, int], re.Match[bytes] | None]
Known = TypeVar("Known")


def shape_of(texts: Sequence[bytes], length_at: int) -> Shape | None:
    """
    The shape of a head that consists of *texts* with a value between each two of them, and of its empty line.

    The value at index *length_at* is a Content-Length; -1: none is. None where no value was cut out, or where it would
    take too long to make.
    """
    if not 1 < len(texts) <= _MOST_VALUES + 1 or sum(map(len, texts)) > _MOST_BYTES:
        return None
    pattern = re.escape(texts[0])
    for at, text in enumerate(texts[1:]):
        pattern += (_LENGTH if at == length_at else _VALUE) + re.escape(text)
    made = re.compile(pattern + re.escape(_END))
    re.purge()  # heads hold tokens, and re itself would remember them as part of the expression
    return made.match


class _Slot(Generic[Known]):
    """What begins with one line: what is known of the last that came, and its shape, once it is worth while."""

    __slots__ = ("count", "known", "shape")

    def __init__(self, known: Known, shape: Shape | None) -> None:
        self.known = known
        self.shape = shape
        self.count = 1  # in a row, without a shape; with one, how many were others


class Shapes(Generic[Known]):
    """
    Those of one connection, by the first lines of its heads, which tell hosts apart, or statuses.

    *shape* is asked for the shape of what is known of a head, and whether to make it where nobody has yet; it may have
    none.
    """

    __slots__ = ("_shape", "_slots")

    def __init__(self, shape: Callable[[Known, bool], Shape | None]) -> None:
        self._shape = shape
        self._slots: dict[bytes, _Slot[Known]] = {}

    def find(self, data: bytes, start: int) -> tuple[Known, re.Match[bytes]] | None:
        """What is known of the head that begins at *start*, and its values; None where it has no shape here."""
        slot = self._slots.get(data[start : data.find(b"\r\n", start)])
        if slot is None or slot.shape is None:
            return None
        found = slot.shape(data, start)
        return None if found is None else (slot.known, found)

    def note(self, data: bytes, start: int, known: Known) -> None:
        """*known* was looked up for the head that begins at *start*, of which no shape was found."""
        first = data[start : data.find(b"\r\n", start)]
        slot = self._slots.get(first)
        if slot is None:
            if len(self._slots) >= _MOST:
                self._slots.clear()
            self._slots[first] = _Slot(known, self._shape(known, False))
        elif slot.shape is not None:
            slot.count += 1
            if slot.count > _DROPPED_AFTER:
                del self._slots[first]
        elif slot.known is not known:
            self._slots[first] = _Slot(known, self._shape(known, False))
        else:
            slot.count += 1
            if slot.count == _MADE_AFTER:
                slot.shape, slot.count = self._shape(known, True), 0
