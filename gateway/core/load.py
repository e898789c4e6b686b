"""
No I/O: how busy a run is, from samples of what its processes have used.

The samples are taken once a second (``autoscaler.pulse``); what comes of them is told to the Actor as ``systemInfo``
and ``cpuInfo``, to the autoscaler by the signals, and stands in the run's ``stats`` when it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

OVERLOADED_ABOVE_RATIO = 0.95
# The kernel counts in hundredths of a second: over less than this a figure would be noise.
_SHORTEST_SECS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """
    What all processes of a run have used: ``cpu_secs`` since its program was started, ``memory_bytes`` at this moment.

    Memory is what belongs to the processes themselves: neither files that the kernel keeps at hand, nor what several of
    them share. ``life`` differs after each start of the program under the same run id.
    """

    life: str
    cpu_secs: float
    memory_bytes: int
    processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """
    How busy a run is. CPU is in percent of one core (two busy processes are 200), memory in bytes.

    ``current`` is the time since the sample before, about a second; ``avg`` and ``max`` are of the whole run, as far as
    it was seen. ``is_cpu_overloaded``: in that second it used more than 95 % of its share. It is not smoothed, since
    both who read it average over several themselves.
    """

    cpu_current: float
    cpu_avg: float
    cpu_max: float
    memory_current: int
    memory_avg: int
    memory_max: int
    is_cpu_overloaded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadHistory:
    """
    All that must be remembered of the samples of one run; ``load`` is None until there is something to tell.

    ``at`` is the time of the last sample; to begin with the run's start, or None where that isn't known. Times are
    seconds of a monotonic clock.
    """

    at: float | None = None
    last: Usage | None = None
    seen_secs: float = 0.0
    cpu_secs: float = 0.0
    memory_byte_secs: float = 0.0
    load: Load | None = None

    def after(self, usage: Usage, at: float, *, cpu_share: float, cores: int) -> LoadHistory:
        """
        The history with one more sample; the same one where that came too soon after the last, or before it.

        *cpu_share* is how many cores the run may use, *cores* how many there are: no more can have been used, whatever
        the two samples say.
        """
        if self.at is None:
            return replace(self, at=at, last=usage)
        secs = at - self.at
        if secs < _SHORTEST_SECS:
            return self
        used_secs = min(max(0.0, usage.cpu_secs - self._used_before(usage)), secs * cores)
        seen_secs, cpu_secs = self.seen_secs + secs, self.cpu_secs + used_secs
        memory_byte_secs = self.memory_byte_secs + usage.memory_bytes * secs
        cpu_current = 100 * used_secs / secs
        load = Load(
            cpu_current=cpu_current,
            cpu_avg=100 * cpu_secs / seen_secs,
            cpu_max=max(cpu_current, self.load.cpu_max if self.load else 0.0),
            memory_current=usage.memory_bytes,
            memory_avg=round(memory_byte_secs / seen_secs),
            memory_max=max(usage.memory_bytes, self.load.memory_max if self.load else 0),
            is_cpu_overloaded=used_secs / secs > OVERLOADED_ABOVE_RATIO * cpu_share,
        )
        return LoadHistory(
            at=at,
            last=usage,
            seen_secs=seen_secs,
            cpu_secs=cpu_secs,
            memory_byte_secs=memory_byte_secs,
            load=load,
        )

    def _used_before(self, usage: Usage) -> float:
        """
        Nothing, where the program was started since. A sum that has shrunk otherwise has lost a process that nobody
        asked for its exit code; what it says is where the next sample begins.
        """
        if self.last is None or self.last.life != usage.life:
            return 0.0
        return self.last.cpu_secs


def load_stats(load: Load | None) -> Mapping[str, Any]:
    """What a run's ``stats`` say of its load, integers where clients demand them; nothing where nothing is known."""
    if load is None:
        return {}
    return {
        "memAvgBytes": load.memory_avg,
        "memMaxBytes": load.memory_max,
        "memCurrentBytes": load.memory_current,
        "cpuAvgUsage": round(load.cpu_avg, 3),
        "cpuMaxUsage": round(load.cpu_max, 3),
        "cpuCurrentUsage": round(load.cpu_current, 3),
    }
