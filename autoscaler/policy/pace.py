"""No I/O: how fast runs may be started."""

from __future__ import annotations


class Pace:
    """
    A token bucket over all starts: one second's worth may come at once.

    All times are seconds on one monotonic clock, passed in.
    """

    def __init__(self, *, starts_per_sec: float) -> None:
        self._rate = starts_per_sec
        self._capacity = max(1.0, starts_per_sec)
        self._tokens = self._capacity
        self._filled_at: float | None = None

    def allowance(self, now: float) -> int:
        """How many runs may be started now."""
        self._fill(now)
        return int(self._tokens)

    def started(self, now: float) -> None:
        """One was."""
        self._fill(now)
        self._tokens -= 1

    def _fill(self, now: float) -> None:
        if self._filled_at is not None:
            self._tokens = min(self._capacity, self._tokens + max(0.0, now - self._filled_at) * self._rate)
        self._filled_at = now
