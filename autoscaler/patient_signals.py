"""
The signals of those who keep runs: what they tell or ask waits until the store answers, instead of failing.

A run must not end because Redis was restarted amid a change of its route. Where that takes longer than the lease of the
autoscaler, whoever waits here is cancelled with all that he does, and the next leader tells everything anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from gateway.core.demand import DemandReport
from gateway.state.ports import Changed, RouteEnded, RunEvent, RunRoute, Signals, StateUnavailable
from gateway.state.slot_ports import SlotLeases

T = TypeVar("T")

_log = logging.getLogger(__name__)

_AGAIN_SECS = 0.25


def patient(signals: Signals) -> Signals:
    """*signals*, whose methods that a run's keeper calls never raise StateUnavailable."""
    return cast(Signals, _Patient(signals))


class _Patient:
    """All other methods are those of the signals themselves."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def __getattr__(self, name: str) -> Any:
        return getattr(self._signals, name)

    @property
    def slots(self) -> SlotLeases:
        return cast(SlotLeases, _PatientSlots(self._signals.slots))

    async def put_route(self, route: RunRoute) -> int:
        return await _until_answered(lambda: self._signals.put_route(route))

    async def end_route(self, ended: RouteEnded) -> int:
        return await _until_answered(lambda: self._signals.end_route(ended))

    async def changed(self, change: Changed) -> None:
        await _until_answered(lambda: self._signals.changed(change))

    async def send_event(self, event: RunEvent) -> int:
        return await _until_answered(lambda: self._signals.send_event(event))

    async def connected_runs(self) -> frozenset[str]:
        return await _until_answered(self._signals.connected_runs)

    async def demand_reports(self) -> Sequence[DemandReport]:
        return await _until_answered(self._signals.demand_reports)

    async def wait_for_report(self, timeout_secs: float) -> bool:
        return await _until_answered(lambda: self._signals.wait_for_report(timeout_secs))


class _PatientSlots:
    """Likewise."""

    def __init__(self, slots: SlotLeases) -> None:
        self._slots = slots

    def __getattr__(self, name: str) -> Any:
        return getattr(self._slots, name)

    async def holders(self, run_id: str) -> frozenset[str] | None:
        return await _until_answered(lambda: self._slots.holders(run_id))


async def _until_answered(ask: Callable[[], Awaitable[T]]) -> T:
    has_told = False
    while True:
        try:
            return await ask()
        except StateUnavailable as error:
            if not has_told:
                has_told = True
                _log.warning("what is told of a run waits: %s", error)
            await asyncio.sleep(_AGAIN_SECS)
