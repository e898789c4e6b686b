"""
No I/O: JSON of everything that signals carry from one process to another.

A newer Greenroom may add fields: who does not know them ignores them, and whoever misses one takes its default, so that
processes of two versions can work side by side during an upgrade. All floats are finite. What can't be read raises
ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import TypeAdapter

from gateway.core.demand import DemandReport, PoolDemand, RunUse
from gateway.core.load import Load
from gateway.core.standby import PoolKey
from gateway.core.trouble import PoolTrouble
from gateway.state.ports import Changed, PoolBlocked, PoolFreed, RouteEnded, RunEvent, RunRoute

OneRouteChange: TypeAlias = RunRoute | RouteEnded | PoolBlocked | PoolFreed
"""Each but the reset, which says only that the picture is to be read anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """A demand report whose pools are pairs, since JSON has no keys but texts."""

    gateway_id: str
    routes_seen: int
    at_secs: float = 0.0
    pools: list[tuple[PoolKey, PoolDemand]] = field(default_factory=list)
    runs: Mapping[str, RunUse] = field(default_factory=dict)


_CHANGES: Mapping[str, TypeAdapter[OneRouteChange]] = {
    "route": TypeAdapter(RunRoute),
    "ended": TypeAdapter(RouteEnded),
    "blocked": TypeAdapter(PoolBlocked),
    "freed": TypeAdapter(PoolFreed),
}
_KINDS: Mapping[type[OneRouteChange], str] = {
    RunRoute: "route",
    RouteEnded: "ended",
    PoolBlocked: "blocked",
    PoolFreed: "freed",
}
_ROUTES = TypeAdapter(tuple[RunRoute, ...])
_REPORT = TypeAdapter(_Report)
_REPORTS = TypeAdapter(list[tuple[str, _Report]])
_LOAD = TypeAdapter(Load)
_LOAD_PAIRS = TypeAdapter(list[tuple[str, Load]])
_TROUBLES = TypeAdapter(tuple[PoolTrouble, ...])
_CHANGED = TypeAdapter(Changed)
_EVENT = TypeAdapter(RunEvent)
_FACTS = TypeAdapter(dict[str, str])
_FACTS_PAIRS = TypeAdapter(list[tuple[str, dict[str, str]]])


def encode_change(change: OneRouteChange) -> tuple[str, bytes]:
    """Its kind and its JSON."""
    kind = _KINDS[type(change)]
    return kind, _CHANGES[kind].dump_json(change)


def decode_change(kind: str, data: bytes) -> OneRouteChange:
    """The change that ``encode_change`` was given."""
    if kind not in _CHANGES:
        raise ValueError(f"{kind!r:.40} is not a kind of route change")
    return _CHANGES[kind].validate_json(data)


def decode_routes(data: bytes) -> tuple[RunRoute, ...]:
    """Those of a JSON array."""
    return _ROUTES.validate_json(data)


def encode_report(report: DemandReport) -> bytes:
    """One gateway's demand."""
    return _REPORT.dump_json(
        _Report(
            gateway_id=report.gateway_id,
            routes_seen=report.routes_seen,
            at_secs=report.at_secs,
            pools=list(report.pools.items()),
            runs=report.runs,
        )
    )


def decode_reports(data: bytes) -> list[DemandReport]:
    """Those of a JSON array of pairs, a gateway's id and its report."""
    return [
        DemandReport(
            gateway_id=read.gateway_id,
            routes_seen=read.routes_seen,
            at_secs=read.at_secs,
            pools=dict(read.pools),
            runs=read.runs,
        )
        for _, read in _REPORTS.validate_json(data)
    ]


def encode_load(load: Load) -> bytes:
    """One run's load."""
    return _LOAD.dump_json(load)


def decode_loads(data: bytes) -> dict[str, Load]:
    """Those of a JSON array of pairs, a run's id and its load."""
    return dict(_LOAD_PAIRS.validate_json(data))


def encode_troubles(troubles: Sequence[PoolTrouble]) -> bytes:
    """All pools in quarantine."""
    return _TROUBLES.dump_json(tuple(troubles))


def decode_troubles(data: bytes) -> tuple[PoolTrouble, ...]:
    """What ``encode_troubles`` was given."""
    return _TROUBLES.validate_json(data)


def encode_changed(changed: Changed) -> bytes:
    """One change of records."""
    return _CHANGED.dump_json(changed)


def decode_changed(data: bytes) -> Changed:
    """What ``encode_changed`` was given."""
    return _CHANGED.validate_json(data)


def encode_event(event: RunEvent) -> bytes:
    """Frames for the events sockets of one run."""
    return _EVENT.dump_json(event)


def decode_event(data: bytes) -> RunEvent:
    """What ``encode_event`` was given."""
    return _EVENT.validate_json(data)


def encode_facts(facts: Mapping[str, str]) -> bytes:
    """What a process says of itself."""
    return _FACTS.dump_json(dict(facts))


def decode_presence(data: bytes) -> dict[str, dict[str, str]]:
    """Of a JSON array of pairs, a process's id and its facts."""
    return dict(_FACTS_PAIRS.validate_json(data))
