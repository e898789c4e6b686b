"""No I/O: which faults a chaos test brings about, in which order and for how long, from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

GATEWAYS = ("gateway-0", "gateway-1", "gateway-2")
AUTOSCALERS = ("autoscaler-0", "autoscaler-1")
# Who is alone by itself; the leader is whoever leads when the fault begins.
LEADER = "leader"


class Kind(StrEnum):
    """What is done to the house."""

    CALM = "calm"
    GATEWAY_KILLED = "gateway killed"
    LEADER_KILLED = "leader killed"
    BOTH_KILLED = "gateway and leader killed"
    LEADER_PAUSED = "leader paused"
    REDIS_EMPTY = "redis restarted empty"
    REDIS_GONE = "redis gone"
    REDIS_SLOW = "redis slow by 1 s"
    RECORDS_RESTARTED = "postgresql restarted"
    RECORDS_GONE = "postgresql gone"
    GATEWAY_CUT_OFF = "gateway cut off from redis"
    LEADER_CUT_OFF = "leader cut off from redis"
    GATEWAY_WITHOUT_RECORDS = "gateway cut off from postgresql"
    LEADER_WITHOUT_RECORDS = "leader cut off from postgresql"
    DISK_FULL = "disk full"


# Kinds whose outage is the plan's; all others last as long as it takes to see that they are over.
_OUTAGES = frozenset(
    {
        Kind.REDIS_GONE,
        Kind.REDIS_SLOW,
        Kind.RECORDS_GONE,
        Kind.GATEWAY_CUT_OFF,
        Kind.LEADER_CUT_OFF,
        Kind.GATEWAY_WITHOUT_RECORDS,
        Kind.LEADER_WITHOUT_RECORDS,
        Kind.DISK_FULL,
    }
)
AGE_SECS = 95.0
"""
How old a house is before its first fault. Gateways know for sure who holds which slots once they have lived together
for as long as a lease lasts; before, slots of runs that are older than Redis are granted to nobody.
"""
_AIMED_AT_GATEWAY = frozenset(
    {Kind.GATEWAY_KILLED, Kind.BOTH_KILLED, Kind.GATEWAY_CUT_OFF, Kind.GATEWAY_WITHOUT_RECORDS}
)
PAUSE_SECS = 15.0
_MOMENT_SECS = 5.0
_QUICK = (
    Kind.GATEWAY_KILLED,
    Kind.LEADER_KILLED,
    Kind.BOTH_KILLED,
    Kind.LEADER_PAUSED,
    Kind.REDIS_EMPTY,
    Kind.REDIS_GONE,
    Kind.REDIS_SLOW,
    Kind.RECORDS_RESTARTED,
    Kind.RECORDS_GONE,
    Kind.GATEWAY_CUT_OFF,
    Kind.DISK_FULL,
)


@dataclass(frozen=True)
class Fault:
    """
    One fault: after *quiet_secs* of nothing, for *secs*.

    *gateway* is the one that it is about, where it is about one.
    """

    kind: Kind
    secs: float
    quiet_secs: float
    gateway: str | None = None


def plan(random: Callable[[], float], *, outage_secs: float, is_quick: bool) -> list[Fault]:
    """
    Every kind of fault once, calm first, in an order that *random* (from 0 up to 1) decides.

    Faults begin at odd moments, so that they hit different phases of what is periodic.
    """
    kinds = list(_QUICK) if is_quick else [kind for kind in Kind if kind is not Kind.CALM]
    order = sorted((random(), kind) for kind in kinds)
    return [
        Fault(Kind.CALM, _MOMENT_SECS, 0.0),
        *(
            Fault(
                kind,
                _length(kind, outage_secs),
                quiet_secs=1.0 + random(),
                gateway=GATEWAYS[int(random() * len(GATEWAYS))] if kind in _AIMED_AT_GATEWAY else None,
            )
            for _, kind in order
        ),
    ]


def _length(kind: Kind, outage_secs: float) -> float:
    if kind is Kind.LEADER_PAUSED:
        return PAUSE_SECS
    return outage_secs if kind in _OUTAGES else _MOMENT_SECS
