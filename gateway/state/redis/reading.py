"""No I/O: what comes out of Redis, read, or refused in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gateway.state.ports import StateUnavailable

T = TypeVar("T")


def reading(decode: Callable[[bytes], T], data: bytes) -> T:
    """What *decode* makes of what Redis has. Raises StateUnavailable where it can't be read."""
    try:
        return decode(data)
    except ValueError as error:
        raise StateUnavailable(
            f"What Redis holds can't be read ({error!s:.200}). Does another program use the same namespace?"
        ) from error
