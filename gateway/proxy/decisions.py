"""
What is decided of a request at a proxied host before it is forwarded: whose it is, what it wants, which run takes it.

Both ways through the proxy ask here, the ASGI app (``admission``) and the protocol class (``splice``). What is known in
memory is decided at once, by plain functions; coroutines are for what has to be awaited: records, and a slot.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from gateway.auth import Authenticator
from gateway.core.errors import (
    FirstBuildUnderWay,
    GreenroomError,
    LiveViewEnded,
    LiveViewNotListening,
    RecordNotFound,
    RecordsNotAsked,
    ShuttingDown,
    StandbyAsleep,
    StandbyBadGateway,
    StandbyNotEnabled,
    StandbyResponseTimeout,
    WaitedTooLong,
)
from gateway.core.standby import StandbyTarget
from gateway.proxy.callers import Caller
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Held, SlotDesk, Want
from gateway.settings import Settings
from gateway.state.directory import Directory
from gateway.state.ports import Records, StateUnavailable


class CallerGone(Exception):
    """The caller left while its request was held: there is nobody to answer."""


@dataclass(slots=True, kw_only=True)
class Decisions:
    """The decisions of one gateway, over its own pictures of hosts, tokens and runs."""

    settings: Settings
    records: Records
    auth: Authenticator
    directory: Directory
    desk: SlotDesk
    is_stopping: bool = False

    # At once

    def target(self, label: str) -> StandbyTarget:
        """What a standby label means. Raises RecordNotFound."""
        target = self.directory.target(label)
        if target is None:
            raise RecordNotFound("Actor")
        return target

    def is_warm_and_public(self, target: StandbyTarget) -> bool:
        """Whether a preflight can be passed on without a token, and without waking anybody."""
        if not target.config.public or target.generation is None:
            return False
        return any(self.desk.routes.serving(target.pool_for(None), target.generation))

    def want(self, target: StandbyTarget, caller: Caller) -> Want | None:
        """What the request of *caller* needs; None where there is no build. Raises StandbyNotEnabled."""
        config = target.config
        if not config.is_enabled:
            raise StandbyNotEnabled
        if target.generation is None:
            return None
        user_id = caller.principal.user_id if caller.principal else None
        return Want(
            pool=target.pool_for(user_id),
            generation=target.generation,
            desired=config.desired_requests_per_run,
            limit=config.max_requests_per_run,
            idle_timeout_secs=config.idle_timeout_secs,
            caller=user_id or "",
            is_owner=user_id == target.owner_id,
            freeze_after_secs=config.freeze_after_secs or math.inf,
        )

    def take(self, want: Want, avoid: frozenset[str] = frozenset()) -> LiveRun | None:
        """A slot, taken; None where it has to be waited for. Raises ShuttingDown."""
        if self.is_stopping and not avoid:
            raise ShuttingDown
        run = self.desk.take(want, avoid=avoid)
        if run is None and self.is_stopping:  # its first run refused it meanwhile, and nothing is started any more
            raise ShuttingDown
        return run

    def let_sleep(self, want: Want) -> None:
        """Of a request that is no use and has found no slot: raises StandbyAsleep where it would wake somebody."""
        if self.desk.is_asleep(want):
            raise StandbyAsleep

    def pick_secs(self, target: StandbyTarget) -> float:
        """How long a request may wait for a run."""
        return target.config.pick_timeout_secs or self.settings.pick_timeout_secs

    def first_byte_secs(self, target: StandbyTarget | None) -> float:
        """How long it may wait for the first byte of its answer, counted from its arrival; None: a live view."""
        own = target.config.first_byte_timeout_secs if target is not None else None
        return own or self.settings.first_byte_timeout_secs

    # With waiting

    async def want_with_build(self, label: str, target: StandbyTarget, caller: Caller) -> Want:
        """
        The same where no build was known: it may have been finished in this moment, its maker's caller may be here
        already. Raises FirstBuildUnderWay, or RecordNotFound where none is being made.
        """
        await self.directory.renew(target.actor_id)
        renewed = self.directory.target(label)
        if renewed is not None:
            target = replace(target, generation=renewed.generation)
        want = self.want(target, caller)
        if want is None:
            raise await self._why_no_build(target)
        return want

    async def slot_later(
        self, want: Want, arrived: float, deadline: float, until_gone: Callable[[], Awaitable[bool]] | None = None
    ) -> LiveRun:
        """
        A slot, taken, once there is one; *deadline* is on the monotonic clock.

        *until_gone* is awaited beside it, and is true where the caller has left. Cancelling is leaving, too. Raises
        CallerGone, WaitingRoomFull, what ``error_for_late`` says, and whatever befalls those who wait.
        """
        settled: asyncio.Future[LiveRun | GreenroomError] = asyncio.get_running_loop().create_future()
        held = Held(caller=want.caller, want=want, settle=lambda outcome: _settle(settled, outcome, self.desk))
        self.desk.hold(held)
        try:
            is_gone = await _has_left_before(settled, deadline, until_gone)
        except BaseException:
            if settled.done() and not settled.cancelled() and isinstance(granted := settled.result(), LiveRun):
                self.desk.give_back(granted)
            raise
        finally:
            if not settled.done():
                settled.cancel()
            self.desk.leave(held)
        if is_gone:
            raise CallerGone
        if settled.cancelled():
            raise self.desk.error_for_late(want, monotonic() - arrived)
        outcome = settled.result()
        if isinstance(outcome, GreenroomError):
            raise outcome
        return outcome

    async def until_awake(
        self, run: LiveRun, arrived: float, until_gone: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        """
        Until *run*, which is frozen, goes on or ends; what the caller has in it is use, and makes it go on.

        Raises CallerGone and WaitedTooLong.
        """
        limit_secs = self.settings.pick_timeout_secs
        awake: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look() -> None:
            if not run.is_frozen and not awake.done():
                awake.set_result(None)

        run.watchers.append(look)
        try:
            is_gone = await _has_left_before(awake, arrived + limit_secs, until_gone)
        finally:
            run.watchers.remove(look)
            if not awake.done():
                awake.cancel()
        if is_gone:
            raise CallerGone
        if awake.cancelled():
            raise WaitedTooLong(
                f"The run behind this address is frozen and did not go on within {limit_secs:.0f} s "
                "(setting: pick_timeout_secs). Try again later.",
                data={"runId": run.route.run_id, "setting": "pick_timeout_secs"},
            )

    async def why_no_view(self, label: str) -> GreenroomError:
        """What to say where no run that listens is behind a live-view label."""
        try:
            run = await self.records.run_by_live_view_label(label)
        except StateUnavailable:
            return RecordsNotAsked()
        if run is None:
            return RecordNotFound("Actor run")
        if run.status.is_terminal:
            return LiveViewEnded(
                f"The run behind this address has ended ({run.status}); a live view lives and dies with its run. "
                "An Actor's standby host stays.",
                data={"runId": run.id, "status": str(run.status)},
            )
        return LiveViewNotListening(
            f"The run is there ({run.status}), but nothing listens on its web server port (ACTOR_WEB_SERVER_PORT) yet.",
            data={"runId": run.id},
        )

    async def _why_no_build(self, target: StandbyTarget) -> GreenroomError:
        wanted = target.config.build
        try:
            active = await self.records.active_builds()
        except StateUnavailable:
            return RecordsNotAsked()
        for build in active:
            if build.actor_id == target.actor_id and wanted in (build.tag, build.build_number):
                return FirstBuildUnderWay(build.id, build.build_number)
        return RecordNotFound(f"A build with the tag or number '{wanted}' of this Actor")


def no_first_byte(run: LiveRun, waited_secs: float, limit_secs: float, *, is_view: bool) -> StandbyResponseTimeout:
    """The Actor took the request, and then nothing came."""
    if is_view:
        return StandbyResponseTimeout(
            f"The run sent no first byte within {limit_secs:.0f} s (setting: first_byte_timeout_secs)."
        )
    return StandbyResponseTimeout(
        f"The Actor took the request but sent no first byte within {limit_secs:.0f} s "
        "(setting: first_byte_timeout_secs).",
        data={"runId": run.route.run_id, "waitedSecs": round(waited_secs, 1)},
    )


def bad_gateway(run: LiveRun, problem: str) -> StandbyBadGateway:
    """The Actor's server failed; *problem* is made to be read after "The Actor's web server"."""
    return StandbyBadGateway(
        f"The Actor's web server {problem}. Its run is {run.route.run_id}; the run's log may tell why.",
        data={"runId": run.route.run_id},
    )


monotonic = time.monotonic
"""
The clock of requests.

uvloop's own stands still within one round of the loop and counts whole milliseconds; both share an origin.
"""


async def _has_left_before(
    settled: asyncio.Future[Any], deadline: float, until_gone: Callable[[], Awaitable[bool]] | None
) -> bool:
    """
    Wait for *settled*, at most until *deadline*; whether the caller has left before. Then it is cancelled.
    """
    is_gone = False

    async def listen(until_gone: Callable[[], Awaitable[bool]]) -> None:
        nonlocal is_gone
        if await until_gone() and not settled.done():
            is_gone = True
            settled.cancel()

    async with asyncio.TaskGroup() as group:
        listener = group.create_task(listen(until_gone)) if until_gone is not None else None
        await asyncio.wait([settled], timeout=max(0.0, deadline - monotonic()))
        if listener is not None:
            listener.cancel()
    return is_gone


def _settle(
    settled: asyncio.Future[LiveRun | GreenroomError], outcome: LiveRun | GreenroomError, desk: SlotDesk
) -> None:
    if not settled.done():
        settled.set_result(outcome)
    elif isinstance(outcome, LiveRun):
        # Its caller left in this very moment: the slot was taken for nobody.
        desk.give_back(outcome)
