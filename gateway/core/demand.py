"""
No I/O: what gateways tell the autoscaler about use, and how several gateways' reports become one picture.

Reports speak of durations, not of times of day, so the clocks of two machines never have to agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gateway.core.standby import PoolKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RunUse:
    """
    One gateway's use of one run: requests and open sockets now, and the seconds since the last one ended.

    ``viewers`` are those by its live-view host: use, but no load that another run could take.
    ``silent`` are open sockets and streams that are no use any more, and not in flight; they are closed when it drains.
    ``has_refused``: it refused a connection although it was serving, so it must be probed again.
    """

    in_flight: int
    idle_secs: float
    viewers: int = 0
    has_refused: bool = False
    silent: int = 0

    @property
    def is_used(self) -> bool:
        """Whether anything is open that is use."""
        return bool(self.in_flight or self.viewers)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDemand:
    """
    Requests of one pool: those in flight in its runs (waiting ones excluded) and those in the waiting room.

    The others are sums, of which the difference of two reports tells what happened between them, so that a report that
    is lost loses nothing: requests times seconds in flight and waiting; requests that came, that had a run and ended,
    and that were refused for want of one. They begin with 0 at ``began_secs``, on the clock of ``at_secs``. A request
    that its run refused counts anew with its next try.
    """

    in_flight: int = 0
    waiting: int = 0
    in_flight_secs: float = 0.0
    waiting_secs: float = 0.0
    arrivals: int = 0
    finished: int = 0
    refused: int = 0
    began_secs: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandReport:
    """
    All of one gateway's demand at one moment.

    ``routes_seen`` is the version of the last route change that it had applied: a run that drains is truly empty once
    every gateway has seen the change and reports nothing in flight. ``at_secs`` is that moment on the gateway's own
    monotonic clock, which is compared with nobody else's.
    """

    gateway_id: str
    routes_seen: int
    at_secs: float = 0.0
    pools: Mapping[PoolKey, PoolDemand] = field(default_factory=dict)
    runs: Mapping[str, RunUse] = field(default_factory=dict)


def merge_pools(reports: Iterable[DemandReport]) -> dict[PoolKey, tuple[int, int]]:
    """Of each pool, how many are in flight and how many wait now, over all gateways."""
    total: dict[PoolKey, tuple[int, int]] = {}
    for report in reports:
        for key, demand in report.pools.items():
            in_flight, waiting = total.get(key, (0, 0))
            total[key] = (in_flight + demand.in_flight, waiting + demand.waiting)
    return total


def merge_runs(reports: Iterable[DemandReport]) -> dict[str, RunUse]:
    """
    Use per run over all gateways: requests add up, a run is idle only as long as its busiest gateway says, and has
    refused if it refused any of them.
    """
    total: dict[str, RunUse] = {}
    for report in reports:
        for run_id, use in report.runs.items():
            before = total.get(run_id)
            total[run_id] = (
                use
                if before is None
                else RunUse(
                    in_flight=before.in_flight + use.in_flight,
                    idle_secs=min(before.idle_secs, use.idle_secs),
                    viewers=before.viewers + use.viewers,
                    has_refused=before.has_refused or use.has_refused,
                    silent=before.silent + use.silent,
                )
            )
    return total


def is_drained(
    run_id: str,
    routes_version: int,
    reports: Iterable[DemandReport],
    *,
    holders: frozenset[str] | None = frozenset(),
    may_have_silent: bool = False,
) -> bool:
    """
    Whether every gateway has seen route change *routes_version* and none has a request in *run_id* any more.

    *holders* are those that may have one there, whether or not they report (``SlotLeases.holders``); None: nobody can
    tell. *may_have_silent*: sockets and streams that are no use may be open all the same.
    """
    reports = list(reports)
    if holders is None or holders - {report.gateway_id for report in reports}:
        return False
    for report in reports:
        use = report.runs.get(run_id)
        if report.routes_seen < routes_version:
            return False
        if use is not None and (use.is_used or (use.silent and not may_have_silent)):
            return False
    return True
