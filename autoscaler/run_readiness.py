"""Whether one live run takes requests, and how everybody learns of it: probed until it serves, again if it refuses."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from autoscaler.launchers.base import Launcher
from autoscaler.launchers.readiness import wait_until_serving
from autoscaler.policy.quarantine import RunNews
from autoscaler.run_record import RunRecord
from gateway.core.demand import is_drained
from gateway.core.errors import StandbyRunNotReady
from gateway.core.lifecycle import Readiness, RunStatus, StartOutcome, may_become
from gateway.core.load import Load, is_overloaded
from gateway.core.model import Address
from gateway.core.standby import Generation, PoolKey
from gateway.state.ports import RouteEnded, RunRoute

LOG_TAIL_LINES = 20

_FOREVER_SECS = 365 * 24 * 3600.0
_UNHURRIED_SECS = 0.25


@dataclass(slots=True, kw_only=True, eq=False)
class RunReadiness(RunRecord):
    """
    A standby run has ``pool`` and ``generation``; ``readiness`` is what was published last, or is about to be;
    ``has_published`` is set once anything was.
    """

    launcher: Launcher
    pool: PoolKey | None = None
    generation: Generation | None = None
    readiness: Readiness = Readiness.STARTING
    has_published: asyncio.Event = field(default_factory=asyncio.Event)
    _address: Address | None = None
    _is_serving: asyncio.Event = field(default_factory=asyncio.Event)
    began: float = field(default_factory=time.monotonic)
    _has_served: bool = False
    _served_at: float | None = None
    _is_end_told: bool = False
    _start_secs: float | None = None
    _ready_secs: float | None = None
    _not_ready_message: str | None = None
    _probe: asyncio.Event = field(default_factory=asyncio.Event)
    _is_overloaded: bool = False
    _overload_news: asyncio.Event = field(default_factory=asyncio.Event)

    def probe_again(self) -> None:
        """Its server has refused a connection: no requests until it answers the probe once more."""
        if self.readiness is Readiness.SERVING:
            self._probe.set()

    def _forget_readiness(self) -> None:
        """Whatever it was: a new program begins."""
        self._address = self._ready_secs = self._not_ready_message = None
        self.readiness = Readiness.STARTING
        self._is_serving.clear()
        self._probe.clear()

    async def _watch_readiness(self) -> None:
        """
        Probe until it serves; again whenever a gateway was refused. A pool's run that never serves is stopped.

        One that serves already, since it was adopted, may be busy for longer than a probe waits.
        """
        if self._address is None:
            return
        if self.readiness is Readiness.SERVING:
            await self.launcher.has_booted(self.run.id)
            await self._until_to_be_probed()
            await self._publish()
        started = time.monotonic()
        # Nobody is held for a batch run's web server, and most have none.
        timeout_secs, first_interval_secs = _FOREVER_SECS, _UNHURRIED_SECS
        if self.pool is not None:
            timeout_secs, first_interval_secs = (
                self.tools.settings.readiness_timeout_secs,
                self.launcher.first_probe_secs,
            )
        while True:
            result = await wait_until_serving(
                self._address, timeout_secs=timeout_secs, first_interval_secs=first_interval_secs
            )
            if not result.is_serving:
                await self._give_up_on_readiness(timeout_secs, result.problem or "it did not answer")
                return
            self._ready_secs = self._ready_secs or time.monotonic() - started
            is_first, self._has_served = not self._has_served, True
            if self._become(Readiness.SERVING):
                await self._publish()
                if is_first:
                    self._served_at = time.monotonic()
                    self._tell_start(StartOutcome.SERVING)
                    self._tell_news()
                if result.status is not None and result.status >= 500:
                    self._say(f"The web server answered the readiness probe with {result.status}.")
                self._is_serving.set()
                await self.launcher.has_booted(self.run.id)
            await self._until_to_be_probed()
            await self._publish()

    def _serves_since(self, secs: float, *, is_alive: bool) -> None:
        """An earlier Greenroom has started it, so long ago, and seen it serve; it does so now if it *is_alive*."""
        self._has_served = True
        self._served_at = time.monotonic() - max(0.0, secs)
        if is_alive:
            self.readiness = Readiness.SERVING
            self._is_serving.set()

    async def _until_to_be_probed(self) -> None:
        """One that is frozen or drains is not probed: it takes no requests anyway, and may be unable to answer."""
        while True:
            await self._probe.wait()
            self._probe.clear()
            if self._become(Readiness.STARTING):
                return

    async def _give_up_on_readiness(self, timeout_secs: float, problem: str) -> None:
        self._not_ready_message = (
            f"The web server of run {self.run.id} did not answer within {timeout_secs:g} s "
            f"(setting: readiness_timeout_secs): {problem}. It has to listen on the port in ACTOR_WEB_SERVER_PORT."
        )
        self._say(self._not_ready_message)
        is_draining = self.readiness is Readiness.DRAINING
        self._tell_news(has_ended=True, failed_because=None if is_draining else self._not_ready_message)
        await self.tools.state.signals.end_route(
            RouteEnded(
                run_id=self.run.id,
                live_view_label=self.run.live_view_label,
                error_type=StandbyRunNotReady.error_type,
                message=self._not_ready_message,
                log_tail=await self.tools.logs.tail(self.run.id, LOG_TAIL_LINES),
            )
        )
        self._become(Readiness.DRAINING)
        await self.launcher.stop(self.run.id, grace_secs=self.tools.settings.wind_down_grace_secs)

    async def _wait_until_drained(self, routes_version: int) -> None:
        signals = self.tools.state.signals
        deadline = time.monotonic() + self.tools.settings.drain_timeout_secs
        while (left := deadline - time.monotonic()) > 0:
            reports = await signals.demand_reports()
            if is_drained(self.run.id, routes_version, reports, holders=await signals.slots.holders(self.run.id)):
                return
            await signals.wait_for_report(min(left, 1.0))

    def _hear_load(self, load: Load) -> None:
        before, self._is_overloaded = self._is_overloaded, is_overloaded(load.overloaded_ratio, was=self._is_overloaded)
        if self._is_overloaded is not before:
            self._overload_news.set()

    async def _watch_overload(self) -> None:
        """The gateways hear when it is overloaded, and when no longer; as long as its process lives."""
        while True:
            await self._overload_news.wait()
            self._overload_news.clear()
            if self.readiness is Readiness.SERVING:
                await self._publish()

    async def _take_no_more(self) -> None:
        """
        Its end is certain, its record not yet written: a request sent there meanwhile could fail, since what stands
        before a container may accept connections for one that is gone. To one that never served none is sent, and who
        waits for it is to hear of its failure before another one is started for him.
        """
        if not self._has_served and not self._is_ending:
            return
        if self._become(Readiness.DRAINING) or self._is_ending:
            await self._publish()

    @property
    def _is_ending(self) -> bool:
        return self.run.status in (RunStatus.ABORTING, RunStatus.TIMING_OUT)

    def _become(self, readiness: Readiness) -> bool:
        """Whether it stands there now for the first time; what the table of changes forbids is not done."""
        if not may_become(self.readiness, readiness):
            return False
        self.readiness = readiness
        return True

    def _tell_start(self, outcome: StartOutcome) -> None:
        if self.pool is not None:
            self.tools.on_start(self.pool, outcome)

    def _tell_news(self, *, has_ended: bool = False, failed_because: str | None = None) -> None:
        """Of a pool's run the autoscaler hears that it serves, and once that it is over."""
        if self.pool is None or self.generation is None or self._is_end_told:
            return
        self._is_end_told = has_ended
        self.tools.on_news(
            RunNews(
                run_id=self.run.id,
                pool=self.pool,
                generation=self.generation,
                began=self.began,
                has_ended=has_ended,
                served_secs=time.monotonic() - self._served_at if self._served_at is not None else None,
                failed_because=failed_because,
            )
        )

    async def _publish(self) -> int:
        version = await self.tools.state.signals.put_route(
            RunRoute(
                run_id=self.run.id,
                actor_id=self.run.actor_id,
                user_id=self.run.user_id,
                live_view_label=self.run.live_view_label,
                readiness=self.readiness,
                pool=self.pool,
                generation=self.generation,
                address=self._address,
                start_secs=self._start_secs,
                ready_secs=self._ready_secs,
                is_overloaded=self._is_overloaded,
                is_ending=self._is_ending,
            )
        )
        self.has_published.set()
        return version
