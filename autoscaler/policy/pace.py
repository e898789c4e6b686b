"""No I/O: how fast runs may be started, and how long a pool whose runs fail is left alone when nobody asks."""

from __future__ import annotations

from gateway.core.standby import PoolKey

_FIRST_PAUSE_SECS = 2.0
_LONGEST_PAUSE_SECS = 300.0


class Pace:
    """
    A token bucket over all starts (one second's worth may come at once), and pauses after failures.

    All times are seconds on one monotonic clock, passed in.
    """

    def __init__(self, *, starts_per_sec: float) -> None:
        self._rate = starts_per_sec
        self._capacity = max(1.0, starts_per_sec)
        self._tokens = self._capacity
        self._filled_at: float | None = None
        self._failures: dict[PoolKey, tuple[int, float]] = {}

    def allowance(self, now: float) -> int:
        """How many runs may be started now."""
        self._fill(now)
        return int(self._tokens)

    def started(self, now: float) -> None:
        """One was."""
        self._fill(now)
        self._tokens -= 1

    def start_went(self, pool: PoolKey, served: bool, now: float) -> None:
        """A start of *pool* ended in a serving run, or in none."""
        if served:
            self._failures.pop(pool, None)
            return
        count, _ = self._failures.get(pool, (0, now))
        self._failures[pool] = (count + 1, now)

    def may_start_unasked(self, pool: PoolKey, now: float) -> bool:
        """
        Whether a run may be started that no request waits for (``minRuns``, a new build).

        After n failures in a row only min(300, 2ⁿ) seconds after the last one: 2 s, 4 s, 8 s, …
        """
        count, last = self._failures.get(pool, (0, 0.0))
        return count == 0 or now - last >= min(_LONGEST_PAUSE_SECS, _FIRST_PAUSE_SECS ** min(count, 10))

    def _fill(self, now: float) -> None:
        if self._filled_at is not None:
            self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
