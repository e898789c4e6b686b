"""The id of each proxied request: in the log, in what the Actor gets, and in what the caller gets."""

from __future__ import annotations

import os

_COUNTED = 0x1_0000_0000


class RequestIds:
    """
    24 hexadecimal digits, each id another one: 64 random bits of this process, then a count.

    An id is a name and no secret, so it needs no fresh randomness; asking the kernel for that costs as much as a lookup
    of the whole route.
    """

    __slots__ = ("_count", "_prefix")

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._count = int.from_bytes(os.urandom(3))

    def next(self) -> str:
        """A new one."""
        self._count += 1
        if self._count >= _COUNTED:
            self._prefix, self._count = os.urandom(8).hex(), 0
        return f"{self._prefix}{self._count:08x}"
