"""No I/O: texts from outside that go on record."""

from __future__ import annotations

import re

# Half a character, which no UTF-8 has, and the character 0, which PostgreSQL does not keep.
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str, max_chars: int) -> str:
    """The beginning of *text* as every database takes it: what programs and file names say may hold anything."""
    return _NOT_STORABLE.sub("\ufffd", text[:max_chars])
