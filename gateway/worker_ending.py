"""How a worker ends: what it still has to finish, when it is stopped or hands over to its successor."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine

from gateway.app import Gateway
from gateway.core.errors import ShuttingDown
from gateway.stop_signals import StopSignals
from gateway.worker_server import Server

# For requests that wait for a run at the moment of a hand-over: first while new ones are still accepted, then without.
# The second is short: nobody else may cover these sockets, and the run that they wait for may need a new connection
# to become ready. Both together fit into the time that the parent gives a hand-over (``gateway.lane``).
_HELD_SECS = 30.0
_LAST_HELD_SECS = 2.0
_FRESH_SECS = 0.3  # for connections that were accepted just before, to send their request
_LINGER_SECS = 1.0
_GOODBYE_SECS = 1.0
_CUT_SECS = 1.0
_POLL_SECS = 0.02


async def let_waiters_in(gateway: Gateway, server: Server, sockets: list[socket.socket], stop: StopSignals) -> None:
    """
    Stop accepting at a moment at which no request waits for a run, if one comes soon.

    While this worker leads, those that wait are served; the next one would not know of them. So no connection may be
    left over which another such request could still come: each has its last answer before. What waits for longer is
    told to try again. Returns at once when told to stop, since nobody takes over then.
    """

    def may_go_on() -> bool:
        waits = gateway.desk.held or gateway.splicing.is_deciding or gateway.admission.asking
        return not waits or stop.drain.is_set()

    server.say_last()
    await linger(stop)
    await _until(may_go_on, _HELD_SECS)
    if not stop.drain.is_set():
        await server.stop_accepting(sockets, _FRESH_SECS)
        await _until(may_go_on, _LAST_HELD_SECS)
        gateway.desk.refuse_all(ShuttingDown())


async def say_goodbye(gateway: Gateway, stop: StopSignals, *, is_reload: bool = False) -> None:
    """
    Take nothing more, and let the sockets that are open hear why, before anybody else closes them.

    uvicorn would do that as soon as it is told to end, and without a reason.
    """
    gateway.stop_taking(is_reload=is_reload)
    await _until(lambda: not len(gateway.sockets) or stop.at_once.is_set(), _GOODBYE_SECS)


async def _until(holds: Callable[[], bool], limit_secs: float) -> None:
    """Not at once: what has come in this very moment has first to get as far as where it is looked for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_secs):
            await asyncio.sleep(_POLL_SECS)
            while not holds():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(_POLL_SECS)


async def linger(stop: StopSignals) -> None:
    """For requests on connections that stand, before these are closed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECS):
            await stop.drain.wait()


async def until_served(
    serving: asyncio.Task[None], server: Server, stop: StopSignals, stopped_secs: float | None = None
) -> None:
    """
    Until the last request is answered; when told to stop at once, not even that.

    After a hand-over there is more time for that than Greenroom has to stop: then, of a stop, only *stopped_secs*.
    """
    async with asyncio.TaskGroup() as group:
        cut = group.create_task(_until_cut(stop, stopped_secs))
        await asyncio.wait([serving, cut], return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
    if not serving.done():
        server.force_exit = True
        await asyncio.wait([serving], timeout=_CUT_SECS)
        serving.cancel()  # from Python 3.12 on it waits for each connection nevertheless
    await asyncio.wait([serving])


async def _until_cut(stop: StopSignals, stopped_secs: float | None) -> None:
    await stop.drain.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(stopped_secs):
            await stop.at_once.wait()


async def end_runs(
    stop_all: Callable[[str, float], Coroutine[None, None, None]], stop: StopSignals, timeout_secs: float
) -> None:
    """Wind everything down; when told to stop at once, kill it instead."""
    async with asyncio.TaskGroup() as group:
        gently = group.create_task(stop_all("Greenroom was stopped", timeout_secs))
        at_once = group.create_task(stop.at_once.wait())
        await asyncio.wait([gently, at_once], return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
        gently.cancel()
    if stop.at_once.is_set():
        await stop_all("Greenroom was stopped at once", 0)
