"""No I/O: the ``Range`` header of a request for bytes. Source: RFC 9110 §14."""

from __future__ import annotations

import re

_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)


class NotSatisfiable(Exception):
    """The range begins behind the last byte."""


def asked_range(header: str | None, size: int) -> tuple[int, int] | None:
    """
    First byte and end (excluded) of what *header* asks of *size* bytes; None: all of them.

    What is not one range of bytes asks for all, as the RFC allows. Raises NotSatisfiable.
    """
    found = _ONE_RANGE.fullmatch(header.replace(" ", "")) if header is not None else None
    if found is None or found[1] == found[2] == "":
        return None
    if not found[1]:
        length = int(found[2])
        if length == 0 or size == 0:
            raise NotSatisfiable
        return max(0, size - length), size
    start = int(found[1])
    end = int(found[2]) + 1 if found[2] else None
    if end is not None and end <= start:
        return None
    if start >= size:
        raise NotSatisfiable
    return start, size if end is None else min(end, size)
