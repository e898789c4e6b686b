"""One run's container, from its start to the moment at which its exit code and its last line are known."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import docker

from autoscaler.launchers.base import Exited
from autoscaler.launchers.chores import Chores
from autoscaler.launchers.docker.containers import CPU_PERIOD_USECS, cpu_quota_usecs, cpu_share
from autoscaler.launchers.docker.engine import Engine, EngineError, EngineUnavailable, NotInEngine
from autoscaler.launchers.docker.log_follower import LogFollower
from autoscaler.launchers.docker.quiet import Quiet

_log = logging.getLogger(__name__)

_RETRY_SECS = 0.5
_STUCK_SECS = 15.0  # until SIGKILL is sent again, and an engine that has long been away is asked again
_LATEST_LOG_SECS = 2.0  # until a log is followed, while others are being started
_LOG_END_SECS = 10.0  # for the last lines of a container that has ended
_LATE_NEWS_SECS = 0.5
_CAUSE_SECS = 10.0  # what the kernel did to one process may take the others so long to end
_LONGEST_BOOT_SECS = 30.0  # for what never serves; then it has its normal share

_MIB = 1024 * 1024
_KILLED_CODE = 137  # 128 + SIGKILL

REMOVED = "The container was removed by somebody else than Greenroom."
ENGINE_RESTARTED = "The Docker engine was restarted, and the run ended with that."


@dataclass(slots=True, kw_only=True, eq=False)
class RunContainer:
    """
    The container of one run; ``ended`` is set once ``exited`` is known and the log is whole.

    ``placement`` is what a later Greenroom finds it by. ``cpus_after_boot``: its share once it has booted; None where
    it has that already. ``disk_mbytes``: how much it may write. ``quiet`` tells when the engine has nothing more
    urgent to do.
    """

    run_id: str
    container_id: str
    placement: Mapping[str, Any]
    log_path: Path
    max_log_chars: int
    engine: Engine
    chores: Chores
    quiet: Quiet
    disk_mbytes: int
    cpus_after_boot: float | None = None
    exited: Exited | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _log_ended: asyncio.Event = field(default_factory=asyncio.Event)
    _follower: LogFollower | None = None
    _is_asked_to_end: bool = False
    _ended_because: str | None = None
    _out_of_memory_at: float | None = None
    _out_of_memory: asyncio.Event = field(default_factory=asyncio.Event)
    _is_finishing: bool = False

    def take_up(self) -> None:
        """
        Follow its log, from when nothing is being started, but soon. Whoever takes up a container that may have ended
        unseen has it ``look`` besides.
        """
        self.chores.do(self._follow_soon())
        if self.cpus_after_boot is not None:
            self.chores.do(self._end_boot_in_time())

    def let_go(self) -> None:
        """It lives on without us."""
        if self._follower is not None:
            self._follower.close()

    def has_booted(self) -> None:
        """
        From soon on it has the processor share that its memory pays for.

        The engine starts a program of its own for each such change, so it is made when no container is being started.
        """
        self.chores.do(self._end_boot())

    async def _end_boot(self) -> None:
        pause_secs = _RETRY_SECS
        while True:
            await self.quiet.turn()
            cpus, self.cpus_after_boot = self.cpus_after_boot, None
            if cpus is None or self.ended.is_set():
                return
            try:
                await self.engine.ask(partial(self._limit, cpu_quota_usecs(cpus)))
            except EngineUnavailable:  # or it would have the processor of others for all its life
                self.cpus_after_boot = cpus
                await _wait(self.ended, pause_secs)
                pause_secs = min(2 * pause_secs, _STUCK_SECS)
            except EngineError as error:
                if error.status not in (404, 409):  # else it has just ended
                    _log.warning("a run keeps its CPU of the start: %s", error.message, extra={"run_id": self.run_id})
                return
            else:
                return

    def _limit(self, quota: int, client: docker.APIClient) -> None:
        client.update_container(self.container_id, cpu_quota=quota, cpu_period=CPU_PERIOD_USECS)

    async def _end_boot_in_time(self) -> None:
        await _wait(self.ended, _LONGEST_BOOT_SECS)
        await self._end_boot()

    # Its end, wished

    def stop(self, grace_secs: float) -> None:
        """Ask it to end, kill it after *grace_secs*; both as often as the engine needs to hear it."""
        self._is_asked_to_end = True
        if not self.ended.is_set():
            self.chores.do(self._stop(grace_secs))

    def end_because(self, reason: str) -> None:
        """Kill it for something that it has done; *reason* is that of its end."""
        if self._ended_because is None:
            self._ended_because = reason
            _log.warning("a run is ended: %s", reason, extra={"run_id": self.run_id})
            self.stop(0)

    async def _stop(self, grace_secs: float) -> None:
        if grace_secs > 0:
            await self._signal("SIGTERM")
            await _wait(self.ended, grace_secs)
        while not self.ended.is_set():
            await self._signal("SIGKILL")
            await _wait(self.ended, _STUCK_SECS)

    async def _signal(self, name: str) -> None:
        while not self.ended.is_set():
            try:
                await self.engine.ask(lambda client: client.kill(self.container_id, name))
            except EngineUnavailable:
                await _wait(self.ended, _RETRY_SECS)
            except EngineError as error:
                if error.status in (404, 409):  # gone, or not running, and the news of that may have been missed
                    await self.look()
                else:
                    _log.warning("%s was refused: %s", name, error.message, extra={"run_id": self.run_id})
                return
            else:
                return

    # Its end, seen

    def has_run_out_of_memory(self) -> None:
        """The kernel has killed a process of it, perhaps not the one on which its life depends."""
        self._out_of_memory_at = time.monotonic()
        self._out_of_memory.set()

    async def look(self, why_ended: str | None = None) -> None:
        """
        Note its end, if it has ended; *why_ended* is the reason then, unless it was asked to.

        Follows its log again where the engine broke that off. An engine that does not answer is asked again and again:
        whoever called heard of an end, perhaps, and that news comes only once.
        """
        pause_secs = _RETRY_SECS
        while not self.ended.is_set():
            try:
                found = await self.engine.ask(lambda client: client.inspect_container(self.container_id))
            except NotInEngine:
                await self._finish({}, REMOVED)
                return
            except EngineUnavailable as error:
                if not error.was_sent:  # it is down: what is found to have ended by then, has so with that
                    why_ended = why_ended or ENGINE_RESTARTED
                await _wait(self.ended, pause_secs)
                pause_secs = min(2 * pause_secs, _STUCK_SECS)
                continue
            except EngineError as error:
                _log.warning("a container can't be looked at: %s", error.message, extra={"run_id": self.run_id})
                await _wait(self.ended, _RETRY_SECS)
                continue
            state = found["State"]
            if not (state["Running"] or state["Paused"] or state["Restarting"]):
                await self._finish(state, why_ended)
            elif self._log_ended.is_set() and self._follower is not None and not self._follower.is_full:
                self._follow()
            return

    async def _finish(self, state: Mapping[str, Any], why: str | None) -> None:
        if self._is_finishing:
            return
        self._is_finishing = True
        seen_at = time.monotonic()
        if self._follower is not None:
            await _wait(self._log_ended, _LOG_END_SECS)
            self._follower.close()
        if state:
            self._follow(has_ended=True)
            await _wait(self._log_ended, _LOG_END_SECS)
        code = int(state.get("ExitCode", _KILLED_CODE))
        is_unasked = code != 0 and not self._is_asked_to_end
        self.exited = Exited(
            exit_code=code,
            reason=why if is_unasked else self._ended_because if code else None,
            out_of_memory=is_unasked and bool(state) and await self._is_out_of_memory(state, code, seen_at),
        )
        self.ended.set()

    async def _is_out_of_memory(self, state: Mapping[str, Any], code: int, seen_at: float) -> bool:
        """
        Whether that is why it has ended.

        The engine notes once and for all that the kernel has killed one of its processes. A run that lives on after
        that, and ends much later, has another reason; so the time counts, where it is known.
        """
        is_noted = bool(state.get("OOMKilled"))
        if not is_noted and code == _KILLED_CODE:  # the news of it and of its end may come in either order
            await _wait(self._out_of_memory, _LATE_NEWS_SECS)
        if self._out_of_memory_at is None:
            return is_noted
        return seen_at - self._out_of_memory_at <= _CAUSE_SECS

    async def _look_soon(self) -> None:
        """The log ends with the container; an engine that only broke off has a moment before it is asked again."""
        await _wait(self.ended, _RETRY_SECS)
        await self.look()

    async def _follow_soon(self) -> None:
        await self.quiet.wait(_LATEST_LOG_SECS)
        if self._follower is None and not self._is_finishing:
            self._follow()

    def _follow(self, *, has_ended: bool = False) -> None:
        loop = asyncio.get_running_loop()
        log_ended = self._log_ended = asyncio.Event()

        def ended() -> None:
            log_ended.set()
            if not self._is_finishing:
                self.chores.do(self._look_soon())

        def ended_on_thread() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and we with it
                loop.call_soon_threadsafe(ended)

        self._follower = LogFollower(
            self.engine, self.container_id, self.log_path, self.max_log_chars, ended_on_thread, has_ended=has_ended
        )
        self._follower.start()


def left_of_boot(host_config: Mapping[str, Any], cores: int) -> float | None:
    """``cpus_after_boot`` of a container that an earlier Greenroom has started, by its limits in the engine."""
    share = cpu_share(host_config["Memory"] // _MIB, cores)
    return share if host_config["CpuQuota"] != cpu_quota_usecs(share) else None


async def _wait(event: asyncio.Event, secs: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(secs):
            await event.wait()
