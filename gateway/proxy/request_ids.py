"""The id of each proxied request: in the log, in what the Actor gets, and in what the caller gets."""

from __future__ import annotations

import os

_LAST_DIGITS = tuple(b"%03x" % number for number in range(0x1000))  # an id is to be had for one concatenation
_COUNTED = 0x10_0000  # of the five digits before them


class RequestIds:
    """
    24 hexadecimal digits, each id another one: 64 random bits of this process, then a count.

    An id is a name and no secret, so it needs no fresh randomness; asking the kernel for that costs as much as a lookup
    of the whole route.
    """

    __slots__ = ("_at", "_count", "_lead", "_prefix")

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._count = int.from_bytes(os.urandom(2))
        self._at = 0
        self._lead = f"{self._prefix}{self._count:05x}".encode()

    def next(self) -> str:
        """A new one."""
        return self.next_bytes().decode()

    def next_bytes(self) -> bytes:
        """A new one, as it is sent."""
        at = self._at
        if at == len(_LAST_DIGITS):
            at = 0
            self._count += 1
            if self._count >= _COUNTED:
                self._prefix, self._count = os.urandom(8).hex(), 0
            self._lead = f"{self._prefix}{self._count:05x}".encode()
        self._at = at + 1
        return self._lead + _LAST_DIGITS[at]
