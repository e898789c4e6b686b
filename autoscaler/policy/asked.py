"""
No I/O: what was asked of a pool since it was last decided, of what each gateway has told then and now.

Averages and counts come from the difference of two reports of one gateway, so a lost one loses nothing, and nobody's
clock is compared with another's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from gateway.core.demand import DemandReport, PoolDemand
from gateway.core.standby import PoolKey

_GATEWAY_FORGOTTEN_SECS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """
    ``waiting`` are those who wait now. All else is of the time since the pool was last decided: averages, those who
    came, those who ended in a run, those who got none; None where it was not decided before.
    """

    waiting: int = 0
    average_in_flight: float | None = None
    average_waiting: float | None = None
    arrivals: int | None = None
    finished: int | None = None
    refused: int = 0


@dataclass(frozen=True, slots=True)
class _Told:
    """What a gateway had told of the pool: when on its clock, when on ours, and what."""

    at_secs: float
    now: float
    demand: PoolDemand


@dataclass(frozen=True, slots=True)
class _Part:
    """What one gateway adds."""

    average_in_flight: float = 0.0
    average_waiting: float = 0.0
    arrivals: int = 0
    finished: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class ToldBefore:
    """What the gateways had told of one pool when it was decided, at ``now`` on our clock."""

    now: float
    by_gateway: Mapping[str, _Told]


def asked_since(
    before: ToldBefore | None, pool: PoolKey, run_ids: Collection[str], reports: Iterable[DemandReport], now: float
) -> tuple[Asked, ToldBefore]:
    """
    What was asked of *pool*, whose live runs are *run_ids*; and what the next call wants to know.

    A gateway that has told nothing new counts as it was, not as zero. What a pool's runs have in flight for a gateway
    that no longer speaks of pools (it is draining) counts as it is.
    """
    parts: list[_Part] = []
    waiting = 0
    told: dict[str, _Told] = {}
    if before is not None:
        told = {name: one for name, one in before.by_gateway.items() if now - one.now < _GATEWAY_FORGOTTEN_SECS}
    for report in reports:
        demand = report.pools.get(pool)
        was = told.pop(report.gateway_id, None)
        if demand is None:
            uses = (report.runs[run_id].in_flight for run_id in run_ids if run_id in report.runs)
            parts.append(_Part(average_in_flight=sum(uses)))
            continue
        waiting += demand.waiting
        told[report.gateway_id] = _Told(report.at_secs, now, demand)
        if before is not None:
            parts.append(_part(was, report.at_secs, demand, now - before.now))
    after = ToldBefore(now, told)
    if before is None:
        return Asked(waiting=waiting), after
    return (
        Asked(
            waiting=waiting,
            average_in_flight=sum(part.average_in_flight for part in parts),
            average_waiting=sum(part.average_waiting for part in parts),
            arrivals=sum(part.arrivals for part in parts),
            finished=sum(part.finished for part in parts),
            refused=sum(part.refused for part in parts),
        ),
        after,
    )


def _part(was: _Told | None, at_secs: float, demand: PoolDemand, passed: float) -> _Part:
    if was is not None and was.at_secs == at_secs:
        return _Part(average_in_flight=demand.in_flight, average_waiting=demand.waiting)
    base = PoolDemand()
    if was is not None and was.demand.began_secs == demand.began_secs and was.at_secs < at_secs:
        # Where it has begun anew since then, nothing was asked before that.
        passed, base = at_secs - was.at_secs, was.demand
    if passed <= 0:
        return _Part(average_in_flight=demand.in_flight, average_waiting=demand.waiting)
    return _Part(
        average_in_flight=max(0.0, demand.in_flight_secs - base.in_flight_secs) / passed,
        average_waiting=max(0.0, demand.waiting_secs - base.waiting_secs) / passed,
        arrivals=max(0, demand.arrivals - base.arrivals),
        finished=max(0, demand.finished - base.finished),
        refused=max(0, demand.refused - base.refused),
    )
