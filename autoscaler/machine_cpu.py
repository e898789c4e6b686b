"""
How much of this machine's CPU lies idle, over the last seconds, as the kernel counts it.

Not the sum of what the runs use: others work here too (builds, Greenroom itself, whatever else there is), and one run
more gets nothing of what those take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.settings import Settings

_STAT = Path("/proc/stat")
_WINDOW_SECS = 5.0
_EVERY_SECS = 0.9
_IDLE, _IO_WAIT = 3, 4
_GUESTS_FROM = 8


def read_times() -> tuple[float, float] | None:
    """Ticks that were idle and all ticks, since the machine's start, over all cores; None where nobody tells."""
    try:
        with _STAT.open(encoding="ascii") as stat:
            words = stat.readline().split()
        ticks = [int(word) for word in words[1:]]
    except (OSError, ValueError):
        return None
    if words[:1] != ["cpu"] or len(ticks) <= _IO_WAIT:
        return None
    # What guests get is in the user's time already.
    return ticks[_IDLE] + ticks[_IO_WAIT], sum(ticks[:_GUESTS_FROM])


@dataclass(slots=True)
class MachineCpu:
    """Samples of ``read``, taken when somebody asks, and at most about one a second."""

    read: Callable[[], tuple[float, float] | None] = read_times
    _samples: deque[tuple[float, float, float]] = field(default_factory=deque)

    def idle_ratio(self, now: float) -> float | None:
        """The share of all CPU time of the last seconds that was idle; None: nobody knows (yet)."""
        if not self._samples or now - self._samples[-1][0] >= _EVERY_SECS:
            times = self.read()
            if times is None:
                return None
            self._samples.append((now, *times))
            while len(self._samples) > 2 and now - self._samples[1][0] >= _WINDOW_SECS:
                self._samples.popleft()
        _, idle_before, all_before = self._samples[0]
        _, idle, total = self._samples[-1]
        return (idle - idle_before) / (total - all_before) if total > all_before else None

    @classmethod
    def where_runs_are(cls, settings: Settings) -> MachineCpu:
        """That of the machine that runs are started on; one that nobody knows where that is another one."""
        host = settings.docker_host or ""
        is_here = settings.launcher == "process" or (settings.launcher == "docker" and not host.startswith("tcp:"))
        return cls() if is_here else cls(read=lambda: None)

    def has_cpu_left(self, now: float, least_ratio: float) -> bool:
        """Whether at least so much is idle; where nobody knows, it is."""
        idle = self.idle_ratio(now)
        return idle is None or idle >= least_ratio
