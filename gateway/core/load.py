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
RECENT_SECS = 15.0
# A run that is given less to do may be overloaded by what it has for a while yet: between the two it stays what it was.
_OVERLOADED_FROM_RATIO = 0.5
_OVERLOADED_UNTIL_RATIO = 0.2
# The kernel counts in hundredths of a second: over less than this a figure would be noise.
_SHORTEST_SECS = 0.1
# A limited share is dealt out anew in each such period; who has used his up is held back until the next one.
_PERIOD_SECS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """
    What all processes of a run have used: ``cpu_secs`` since its program was started, ``memory_bytes`` at this moment.

    Memory is what belongs to the processes themselves, as exactly as the launcher can tell: without files that the
    kernel keeps at hand. ``life`` differs after each start of the program under the same run id.

    What follows is of that life too, None where it can't be told. ``throttled_periods``: periods of 100 ms in which it
    was held back, since it had used up its share. ``net_rx_bytes`` and ``net_tx_bytes``: what it has received and sent.
    ``is_booting``: it still has the larger share that it was given for its start.
    """

    life: str
    cpu_secs: float
    memory_bytes: int
    processes: int
    throttled_periods: int | None = None
    net_rx_bytes: int | None = None
    net_tx_bytes: int | None = None
    is_booting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """
    How busy a run is. CPU is in percent of one core (two busy processes are 200), memory in bytes.

    ``current`` is the time since the sample before, about a second; ``avg`` and ``max`` are of the whole run, as far as
    it was seen. ``is_cpu_overloaded``: in that second it used more than 95 % of its share, or the kernel held it back
    in most of that second's periods. It is not smoothed, since both who read it average over several themselves.
    ``overloaded_ratio``: for what share of the last 15 s that was so; what was not seen of them counts as rest.
    ``net_rx_bytes`` and ``net_tx_bytes`` are sums, None where they can't be told.
    """

    cpu_current: float
    cpu_avg: float
    cpu_max: float
    memory_current: int
    memory_avg: int
    memory_max: int
    is_cpu_overloaded: bool
    overloaded_ratio: float = 0.0
    net_rx_bytes: int | None = None
    net_tx_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadHistory:
    """
    All that must be remembered of the samples of one run; ``load`` is None until there is something to tell.

    ``at`` is the time of the last sample; to begin with the run's start, or None where that isn't known. Times are
    seconds of a monotonic clock. ``net_before``: what was received and sent in earlier lives. ``overloaded``: when it
    was overloaded, from and until, lately.
    """

    at: float | None = None
    last: Usage | None = None
    seen_secs: float = 0.0
    cpu_secs: float = 0.0
    memory_byte_secs: float = 0.0
    net_before: tuple[int, int] = (0, 0)
    overloaded: tuple[tuple[float, float], ...] = ()
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
        before = self.last if self.last is not None and self.last.life == usage.life else None
        net_before = self.net_before if before is not None else self._net_so_far()
        # A sum that has shrunk has lost a process that nobody asked for its exit code.
        used_secs = min(max(0.0, usage.cpu_secs - (before.cpu_secs if before else 0.0)), secs * cores)
        seen_secs, cpu_secs = self.seen_secs + secs, self.cpu_secs + used_secs
        memory_byte_secs = self.memory_byte_secs + usage.memory_bytes * secs
        cpu_current = 100 * used_secs / secs
        is_overloaded = not _is_booting(usage, before) and (
            used_secs / secs > OVERLOADED_ABOVE_RATIO * cpu_share or _is_held_back(usage, before, secs)
        )
        overloaded = tuple(stretch for stretch in self.overloaded if stretch[1] > at - RECENT_SECS)
        if is_overloaded:
            overloaded = (*overloaded, (self.at, at))
        load = Load(
            cpu_current=cpu_current,
            cpu_avg=100 * cpu_secs / seen_secs,
            cpu_max=max(cpu_current, self.load.cpu_max if self.load else 0.0),
            memory_current=usage.memory_bytes,
            memory_avg=round(memory_byte_secs / seen_secs),
            memory_max=max(usage.memory_bytes, self.load.memory_max if self.load else 0),
            is_cpu_overloaded=is_overloaded,
            overloaded_ratio=sum(end - max(begin, at - RECENT_SECS) for begin, end in overloaded) / RECENT_SECS,
            net_rx_bytes=_sum(net_before[0], usage.net_rx_bytes),
            net_tx_bytes=_sum(net_before[1], usage.net_tx_bytes),
        )
        return LoadHistory(
            at=at,
            last=usage,
            seen_secs=seen_secs,
            cpu_secs=cpu_secs,
            memory_byte_secs=memory_byte_secs,
            net_before=net_before,
            overloaded=overloaded,
            load=load,
        )

    def _net_so_far(self) -> tuple[int, int]:
        received, sent = self.net_before
        if self.last is None:
            return received, sent
        return received + (self.last.net_rx_bytes or 0), sent + (self.last.net_tx_bytes or 0)


def is_overloaded(ratio: float, *, was: bool) -> bool:
    """Whether a run whose ``overloaded_ratio`` this is better gets nothing more to do; *was* it before?"""
    return ratio > (_OVERLOADED_UNTIL_RATIO if was else _OVERLOADED_FROM_RATIO)


def _is_booting(usage: Usage, before: Usage | None) -> bool:
    """
    Its share was the larger one, at least for a part of the time: that it makes use of it is what it is for.

    Were it measured by its own share, every start would look like an overload, and call for one more run.
    """
    return usage.is_booting or (before is not None and before.is_booting)


def _is_held_back(usage: Usage, before: Usage | None, secs: float) -> bool:
    """
    Whether the kernel held it back in more than half of the periods that *secs* have.

    A cleaner sign than the mean: who wants much more than his share for half a second, and nothing for the rest, lets
    his callers wait all the same. Of *all* periods, though the kernel counts those alone in which there was something
    to do: a run that is idle but for one short burst a second is in no trouble, even if that burst is held back.
    """
    if usage.throttled_periods is None or before is None or before.throttled_periods is None:
        return False
    return usage.throttled_periods - before.throttled_periods > secs / _PERIOD_SECS / 2


def _sum(before: int, now: int | None) -> int | None:
    return None if now is None else before + now


def load_stats(load: Load | None) -> Mapping[str, Any]:
    """What a run's ``stats`` say of its load, integers where clients demand them; nothing where nothing is known."""
    if load is None:
        return {}
    network = {"netRxBytes": load.net_rx_bytes, "netTxBytes": load.net_tx_bytes}
    return {
        "memAvgBytes": load.memory_avg,
        "memMaxBytes": load.memory_max,
        "memCurrentBytes": load.memory_current,
        "cpuAvgUsage": round(load.cpu_avg, 3),
        "cpuMaxUsage": round(load.cpu_max, 3),
        "cpuCurrentUsage": round(load.cpu_current, 3),
        **{name: value for name, value in network.items() if value is not None},
    }
