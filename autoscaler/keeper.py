"""
The keeper of one run: from its record to its process, and from its process's end to its record's end.

A run may have several processes, one after the other: a reboot, a migration or a failure that its options forgive ends
one and starts the next, under the same id. Such a restart is first a wish in the record. It is taken back, and counted,
in one write when the next process exists; so whoever finds the wish, after whatever crash, knows what is left to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from autoscaler.launch import Launch
from autoscaler.launchers.base import Exited, FoundRun
from autoscaler.run_freezing import RunFreezing
from autoscaler.run_readiness import LOG_TAIL_LINES
from gateway.core import run_changes
from gateway.core.errors import (
    GreenroomError,
    LaunchError,
    MachineTrouble,
    RecordNotFound,
    StandbyRunFailed,
    StandbyRunFinished,
)
from gateway.core.lifecycle import (
    MAX_RESTARTS_IN_WINDOW,
    Readiness,
    RunStatus,
    StartOutcome,
    may_restart_after_error,
)
from gateway.core.load import Load, LoadHistory, Usage, load_stats
from gateway.core.model import Actor, Address, Build, RestartKind, RestartWish, Run, User
from gateway.core.system_events import abort_frames, migrating_frame
from gateway.state.ports import Changed, RouteEnded, RunEvent, StateUnavailable

_log = logging.getLogger(__name__)

_SOON_SECS = 1.0
# What a program says as its last word ('fail') may arrive a moment after it has ended.
_LAST_WORD_SECS = 0.5


@dataclass(slots=True, kw_only=True, eq=False)
class Keeper(RunFreezing):
    """
    One live run. ``live`` is its life; the other methods only tell it something and return at once.

    ``known``: the records that it is made from, where they are at hand (a wake has no time to read them again).
    ``adopted``: its process exists already, or at least its exit code. ``leaves_because``: it must leave its machine,
    so another run is to take over.
    """

    known: tuple[Actor, User, Build] | None = None
    adopted: FoundRun | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    leaves_because: str | None = None
    _placement: Mapping[str, Any] = field(default_factory=dict)
    _wind_down_reason: str | None = None
    _restarts_after_error: list[float] = field(default_factory=list)
    _history: LoadHistory = field(default_factory=LoadHistory)
    _abort_in_force: bool | None = None  # None: no; else whether it is a graceful one

    @property
    def has_process(self) -> bool:
        """Whether its first process has been started, or was adopted."""
        return bool(self._placement) or self.adopted is not None

    def wind_down(self, reason: str) -> None:
        """Drain, then stop, for *reason*; asked twice, the first holds."""
        if self._wind_down_reason is None:
            self._wind_down_reason = reason
            self._news.set()

    def give_up(self, reason: str) -> None:
        """As ``wind_down``; its pool hears at once that it has failed, and no more of it, however long it drains."""
        if self._wind_down_reason is None:
            self._tell_news(has_ended=True, failed_because=f"Run {self.run.id} was replaced: {reason}.")
            self.wind_down(reason)

    def leave(self, reason: str) -> None:
        """Its machine is to be cleared: a batch run migrates, a pool's run serves on until another one does instead."""
        self.leaves_because = reason
        self._say(f"Actor run must leave its machine: {reason}.")
        self._news.set()

    def measured(self, usage: Usage, at: float) -> Load | None:
        """Take one more sample of what it uses; its load, once it is known."""
        share = self.launcher.cpu_share(self.run.options.memory_mbytes)
        self._history = self._history.after(usage, at, cpu_share=share, cores=self.tools.cores)
        if self._history.load is not None:
            self._hear_load(self._history.load)
        return self._history.load

    @property
    def cpu_ratio(self) -> float | None:
        """How much of its share of the processor it uses, as it was measured last; None: not yet, or nobody can."""
        load = self._history.load
        if load is None:
            return None
        return load.cpu_current / 100 / self.launcher.cpu_share(self.run.options.memory_mbytes)

    async def is_told(self) -> None:
        """Returns once its route was published, or it has ended without that."""
        async with asyncio.TaskGroup() as group:
            ways = [group.create_task(event.wait()) for event in (self.has_published, self.ended)]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()

    async def live(self) -> None:
        """From start (or adoption) to the recorded end, over all restarts."""
        while await self._live_once() and not self._letting_go.is_set():
            self._forget_process()

    async def _live_once(self) -> bool:
        """One process from start to end; whether it is to be followed by another one."""
        try:
            await self._begin()
        except GreenroomError as error:
            await self._end_unstarted(error)
            return False
        async with asyncio.TaskGroup() as group:
            exit_watch = group.create_task(self.launcher.wait(self.run.id))
            leaver = group.create_task(self._letting_go.wait())
            helpers = [
                group.create_task(self._record_start()),
                group.create_task(self._watch_readiness()),
                group.create_task(self._watch_overload()),
                group.create_task(self._watch_frost()),
                group.create_task(self._watch_timeout()),
                group.create_task(self._fulfil_wishes()),
            ]
            await asyncio.wait([exit_watch, leaver], return_when=asyncio.FIRST_COMPLETED)
            exited = exit_watch.result() if exit_watch.done() else None
            for helper in (exit_watch, leaver, *helpers):
                helper.cancel()
        return exited is not None and await self._end(exited)

    def _forget_process(self) -> None:
        """What was known of the process that has ended does not hold for the next one."""
        self.adopted = self.leaves_because = None
        self._forget_readiness()
        self._forget_frost()

    # -- beginning ----------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self.adopted is not None:
            self._address = _address_of(self.adopted.placement)
            self._placement = self.adopted.placement
            self._wind_down_reason = self.run.wound_down_because
            goes_on = await self._go_on_after_restart()
            # While a restart is under way, what is on record may be of the process before.
            if self.run.is_container_server_ready and self.run.restart_wish is None:
                is_wanted = self.run.status is RunStatus.RUNNING and self._wind_down_reason is None
                age = self.tools.now() - self.run.started_at
                self._serves_since(age.total_seconds(), is_alive=self.adopted.is_alive and goes_on and is_wanted)
            await self._publish()
            if self.run.restart_wish is not None and self.run.placement != self._placement:
                await self._record_restart()  # it was under way when Greenroom was killed, and all but on record
            return
        await self._publish()
        if self.run.restart_wish is not None:
            await self.launcher.forget(self.run.id)
        launch = Launch(
            run=lambda: self.run,
            known=self.known,
            tools=self.tools,
            launcher=self.launcher,
            say=self._say,
            is_unwanted=lambda: self._wind_down_reason is not None,
            news=self._news,
        )
        try:
            self._address, spec = await launch.prepare()
        except StateUnavailable as error:
            raise MachineTrouble(f"What it is started from could not be read. {error}") from error
        self._placement = await launch.start(spec, self._store)
        self._address = _address_of(self._placement) or self._address  # some know the place only now
        if self._start_secs is None:
            self._start_secs = time.monotonic() - self.began
            self._history = LoadHistory(at=time.monotonic())
        await self._publish()
        if self.run.restart_wish is not None:
            await self._record_restart()

    # -- while it lives -----------------------------------------------------------------------------------------

    async def _record_start(self) -> None:
        """
        RUNNING, and that it serves. One write for both where it serves soon: while an Actor boots, its machine has
        better things to do. Until then its launcher alone knows where it is, and tells that after a crash.
        """
        if self.pool is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SOON_SECS):
                    await self._is_serving.wait()
        if self.run.placement != self._placement or self.run.status is RunStatus.READY:
            is_serving = self._is_serving.is_set()
            await self._change(lambda run: run_changes.started(run, self._placement, is_serving=is_serving))
            await self._tell_changed()
        if not self.run.is_container_server_ready:
            await self._is_serving.wait()
            await self._change(run_changes.serving)
            await self._tell_changed()

    async def _record_restart(self) -> None:
        """What was wished has been done."""
        await self._change(lambda run: run_changes.restarted(run, self._placement))
        await self._tell_changed()

    async def _watch_timeout(self) -> None:
        timeout_secs = self.run.options.timeout_secs
        if not timeout_secs:
            return
        gone = (self.tools.now() - self.run.started_at).total_seconds()
        await asyncio.sleep(max(0.0, timeout_secs - gone))
        await self._change(run_changes.timing_out)
        if self.run.status is RunStatus.TIMING_OUT:
            await self._tell_changed()
            self._say(f"Actor run exceeded its timeout of {timeout_secs} s, stopping it.")
            await self._take_no_more()
            await self._ask_to_end(self.tools.settings.abort_grace_secs, sigterm_grace_secs=0)

    async def _fulfil_wishes(self) -> None:
        """Aborts, wind-downs and restarts, each once; what is harder overtakes whatever is under way."""
        is_leaving = is_winding_down = is_migrating = is_restarting = False
        async with asyncio.TaskGroup() as group:
            while True:
                self._news.clear()
                wish = self.run.abort_wish
                if self.run.status is RunStatus.ABORTING and self._abort_in_force is not False:
                    gracefully = wish is not None and wish.gracefully
                    if self._abort_in_force is None or not gracefully:
                        self._abort_in_force = gracefully
                        group.create_task(self._abort(gracefully))
                is_running = self.run.status is RunStatus.RUNNING
                if self.leaves_because is not None and self.pool is None and is_running and not is_leaving:
                    is_leaving = True
                    leave = RestartWish(kind=RestartKind.MIGRATION, requested_at=self.tools.now())
                    group.create_task(self._change(partial(run_changes.restart_wished, wish=leave)))
                if self._wind_down_reason is not None and not is_winding_down:
                    is_winding_down = True
                    group.create_task(self._wind_down(self._wind_down_reason))
                if self.run.restart_wish is not None and is_running:
                    is_open = self.run.restart_wish.kind is RestartKind.MIGRATION
                    if is_open and not is_migrating:
                        is_migrating = True
                        group.create_task(self._migrate(self.run.restart_wish.requested_at))
                    elif not is_open and not is_restarting:
                        is_restarting = True
                        self._say("Restarting Actor run.")
                        await self.launcher.stop(self.run.id, grace_secs=0)  # SDKs only sleep until it comes
                await self._news.wait()

    async def _migrate(self, since: datetime) -> None:
        """Tell it, and have it stopped when the time is over; it may end, or ask for a reboot, before."""
        left_secs = self.tools.settings.migration_grace_secs - (self.tools.now() - since).total_seconds()
        self._say(f"Migrating Actor run, within {max(0.0, left_secs):.0f} s.")
        await self._go_on()
        frame = migrating_frame(self.tools.now(), left_secs)
        await self.tools.state.signals.send_event(RunEvent(run_id=self.run.id, frames=(frame,)))
        await asyncio.sleep(max(0.0, left_secs))
        await self._change(run_changes.migration_due)

    async def _abort(self, gracefully: bool) -> None:
        await self._take_no_more()
        if not gracefully:
            await self.launcher.stop(self.run.id, grace_secs=0)
            return
        self._say("Aborting Actor run gracefully.")
        await self._ask_to_end(self.tools.settings.abort_grace_secs, sigterm_grace_secs=0)

    async def _wind_down(self, reason: str) -> None:
        self._become(Readiness.DRAINING)
        version = await self._publish()
        await self._go_on()
        await self._wait_until_drained(version)
        await self._change(lambda run: run_changes.winding_down(run, reason))
        self._say(f"Actor Standby server is finished, stopping the run: {reason}.")
        grace = self.tools.settings.wind_down_grace_secs
        await self._ask_to_end(grace, sigterm_grace_secs=grace)

    async def _ask_to_end(self, grace_secs: float, *, sigterm_grace_secs: float) -> None:
        """'aborting' and 'persistState', *grace_secs* to end by itself, then SIGTERM; at once where nobody listens."""
        await self._go_on()
        frames = abort_frames(self.tools.now())
        if await self.tools.state.signals.send_event(RunEvent(run_id=self.run.id, frames=frames)):
            await asyncio.sleep(grace_secs)
            await self.launcher.stop(self.run.id, grace_secs=sigterm_grace_secs)
        else:
            await self.launcher.stop(self.run.id, grace_secs=max(grace_secs, sigterm_grace_secs))

    # -- the end ------------------------------------------------------------------------------------------------

    async def _end(self, exited: Exited) -> bool:
        """Put the end of its process on record; whether that is not its own end, since it is to be restarted."""
        reason = exited.reason or self._not_ready_message
        if exited.out_of_memory:
            reason = reason or run_changes.out_of_memory(self.run.options.memory_mbytes)
        await self._take_no_more()
        if not await self._change_at_end(await self._change_after(exited, reason)):
            return False
        wish = self.run.restart_wish
        if not self.run.status.is_terminal and wish is not None:
            if wish.kind is RestartKind.AFTER_ERROR:
                self._restarts_after_error = [*self._restarts_after_error, time.monotonic()][-MAX_RESTARTS_IN_WINDOW:]
                self._say(f"Actor run failed with exit code {exited.exit_code}, restarting it.")
            return True
        self._say(f"Actor run {self.run.status} with exit code {exited.exit_code}.")
        error = None
        if not self._has_served and not self._wind_down_reason:
            error = StandbyRunFinished.error_type
            self._tell_start(StartOutcome.NOT_READY if self._not_ready_message else StartOutcome.FINISHED)
        why = f" {reason}" if reason else ""
        message = (
            f"Run {self.run.id} ended before its web server answered ({self.run.status}, "
            f"exit code {exited.exit_code}).{why} The next request starts another one."
        )
        self._tell_news(has_ended=True, failed_because=self._failure(exited.exit_code, why))
        await self._close_books(error, message, exited.exit_code)
        return False

    def _failure(self, exit_code: int, why: str) -> str | None:
        """What is held against its pool: that it ended before it served, or failed, and nobody wanted that."""
        if self._wind_down_reason is not None or self.run.status in (RunStatus.ABORTED, RunStatus.TIMED_OUT):
            return None
        if self._has_served and self.run.status is not RunStatus.FAILED:
            return None
        when = "after it had begun to serve" if self._has_served else "before its web server answered"
        return f"Run {self.run.id} ended {when} ({self.run.status}, exit code {exit_code}).{why}"

    async def _change_after(self, exited: Exited, reason: str | None) -> Callable[[Run], Run | None]:
        """How its record changes by the end of a process: by its own end, or by the wish for another process."""
        now, load = self.tools.now(), load_stats(self._history.load)
        may_restart = run_changes.failed_but_restarts(self.run, now, exited.exit_code) is not None
        if may_restart:
            await self._pause(_LAST_WORD_SECS)
            may_restart = may_restart_after_error(self._restarts_after_error, time.monotonic())
        if self._wind_down_reason is not None and self.run.restart_wish is not None:
            await self._retire()

        def change(run: Run) -> Run | None:
            restarting = run_changes.failed_but_restarts(run, now, exited.exit_code) if may_restart else None
            return restarting or run_changes.exited(run, now, exited.exit_code, reason, load=load)

        return change

    async def _retire(self) -> None:
        """What is being wound down is not started again."""
        reason = self._wind_down_reason or ""
        await self._change(lambda run: run_changes.winding_down(run, reason))

    async def _end_unstarted(self, error: GreenroomError) -> None:
        message = f"The Actor could not be started: {error.message}"
        self._say(message)
        self._tell_start(StartOutcome.FAILED)
        is_wanted = self._wind_down_reason is not None or self.run.status is RunStatus.ABORTING
        is_its_own = not is_wanted and not isinstance(error, MachineTrouble)
        self._tell_news(has_ended=True, failed_because=message if is_its_own else None)
        if self._wind_down_reason is not None and self.run.restart_wish is not None:
            await self._retire()
        try:
            await self._store()
            if not await self._change_at_end(
                lambda run: run_changes.failed_to_start(run, self.tools.now(), message), message
            ):
                return
        except (LaunchError, RecordNotFound) as trouble:
            # It never came on record. Whoever waits is told all the same.
            _log.error("a run that was not started has no record of that: %s", trouble, extra={"run_id": self.run.id})
            self.run = run_changes.failed_to_start(self.run, self.tools.now(), message) or self.run
            await self._end_route(StandbyRunFailed.error_type, message, None)
            self.tools.on_end(self.run.status)
            await self.launcher.forget(self.run.id)
            await self._try_with_log(self.tools.logs.delete)
            return
        await self._close_books(StandbyRunFailed.error_type, message, None)

    async def _change_at_end(self, change: Callable[[Run], Run | None], failed_because: str = "") -> bool:
        """
        Put the end on record; False where Greenroom itself ends first, and then the next start does it.

        As long as that takes, nobody is sent to what has ended; who waits for a start that failed is told at once.
        """
        try:
            await self._change_once(change)
        except StateUnavailable:
            if failed_because:
                await self._end_route(StandbyRunFailed.error_type, failed_because, None)
            return await self._change(change)
        return True

    async def _close_books(self, error_type: str | None, message: str, exit_code: int | None) -> None:
        """Tell everybody, in an order in which nobody can be misled: the record is final before anything else."""
        self.tools.on_end(self.run.status)
        await self._end_route(error_type, message, exit_code)
        await self.tools.state.signals.send_event(RunEvent(run_id=self.run.id, ends=True))
        await self.tools.state.signals.changed(Changed(kind="run-token", id=self.run.id))
        await self._tell_changed()
        await self.launcher.forget(self.run.id)
        await self._try_with_log(self.tools.logs.keep)

    async def _end_route(self, error_type: str | None, message: str, exit_code: int | None) -> None:
        await self.tools.state.signals.end_route(
            RouteEnded(
                run_id=self.run.id,
                live_view_label=self.run.live_view_label,
                error_type=error_type,
                message=message,
                exit_code=exit_code,
                log_tail=await self.tools.logs.tail(self.run.id, LOG_TAIL_LINES) if error_type else (),
            )
        )

    async def _try_with_log(self, act: Callable[[str], Awaitable[None]]) -> None:
        """What fails here, for want of room, the next start does."""
        try:
            await act(self.run.id)
        except (OSError, StateUnavailable) as error:
            _log.warning("a run's log stays where it is: %s", error, extra={"run_id": self.run.id})


def _address_of(placement: Mapping[str, Any]) -> Address | None:
    host, port = placement.get("host"), placement.get("port")
    return Address(host=str(host), port=int(port)) if host and port else None
