"""
The process of ``greenroom autoscaler``: of several one leads and acts, the others wait for their turn.

It answers health and metrics on a port of its own. That it lives is told by a mark in its data folder, so that another
one there need not wait for the end of its lease when it was killed. When it is stopped it lets go of its runs, which
live on: another one adopts them, or the next start of this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.health import StoreHealth
from gateway.installed_rules import warn_without_rules
from gateway.living import Deaths, alive
from gateway.observability import Metrics
from gateway.opening import open_services
from gateway.presence import Presence, follow_missed, key_print, refuse_another_key
from gateway.services import Services, new_id
from gateway.settings import Settings
from gateway.state.steady import steadily
from gateway.stop_signals import StopSignals
from gateway.store_urls import first_place

_log = logging.getLogger(__name__)

_MOST_REQUESTS = 1000
_LAST_ANSWERS_SECS = 5


async def serve_autoscaler(settings: Settings, sockets: list[socket.socket], say: Callable[[str], None]) -> int:
    """Compete for the lead, and act while it is had, until a signal; the exit code."""
    # Imported here alone: no other part of the gateway may know the autoscaler.
    from autoscaler.acting import Acting
    from autoscaler.leading import Leading
    from autoscaler.log_service import log_routes

    stop = StopSignals()
    stop.listen(with_interrupt=True)
    metrics = Metrics()
    host, port = sockets[0].getsockname()[:2]
    reachable = own_address(settings.signals_url or "") if ip_address(host).is_unspecified else str(host)
    async with contextlib.AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings, settings.port))
        state = services.state
        await refuse_another_key(state.signals, services.box)
        acting = Acting(
            settings=settings,
            state=state,
            logs=services.logs,
            box=services.box,
            urls=services.urls,
            builder=services.builder,
            directory=services.directory,
            metrics=metrics,
            now=services.now,
            new_id=services.new_id,
            is_shared=True,
            hands_over=True,
        )
        async with acting.prepared():
            pass  # a launcher that can't be opened is told at once, not when it is needed
        await services.directory.load()  # when it leads, only what has changed is to be read

        def changed() -> None:
            presence.renew()
            say("this autoscaler leads." if leading.leads else "this autoscaler waits for its turn.")

        marks = settings.data / "autoscalers"
        leading = Leading(
            signals=state.signals,
            holder=new_id(),
            act=acting.act,
            on_change=changed,
            find_dead=Deaths(marks).take,
        )
        presence = Presence(
            state.signals,
            "autoscaler",
            leading.holder,
            lambda: {
                "logs": f"{_within_url(reachable)}:{port}",
                "leads": "1" if leading.leads else "0",
                "pid": str(os.getpid()),
                "machine": socket.gethostname(),
                "key": key_print(services.box),
            },
        )
        metrics.watch_lead(lambda: leading.leads)
        metrics.watch_signals(state.signals)
        look = partial(_lead_of, leading)
        server = _server([*_routes(services, metrics, look), *log_routes(services.logs, services.box)])
        stack.enter_context(alive(marks, leading.holder))
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve(sockets=sockets))
            competing = group.create_task(leading.run())
            others = [
                group.create_task(presence.keep()),
                group.create_task(steadily("the directory of hosts", lambda: services.directory.follow(state.signals))),
                group.create_task(follow_missed(services.directory)),
                group.create_task(warn_without_rules(settings, settings.port)),
            ]
            say(f"health: http://{_within_url(str(host))}:{port}/health/ready")
            stopping = group.create_task(stop.drain.wait())
            await asyncio.wait([stopping, competing, serving], return_when=asyncio.FIRST_COMPLETED)
            _log.info("stopping: letting go of the runs, which live on")
            leading.stop()
            if stop.drain.is_set():
                await _until_over(competing, stop)
            server.should_exit = True
            for task in (stopping, *others):
                task.cancel()
    return 0


async def _until_over(competing: asyncio.Task[None], stop: StopSignals) -> None:
    """Until all is let go of in peace; told to stop at once, without that."""
    async with asyncio.TaskGroup() as group:
        at_once = group.create_task(stop.at_once.wait())
        await asyncio.wait([competing, at_once], return_when=asyncio.FIRST_COMPLETED)
        competing.cancel()
        at_once.cancel()


@dataclass(frozen=True, slots=True)
class _Lead:
    leads: bool
    is_settled: bool
    trouble: str | None


def _lead_of(leading: Any) -> _Lead:
    return _Lead(leading.leads, leading.settled.is_set(), leading.trouble)


def _routes(services: Services, metrics: Metrics, look: Callable[[], _Lead]) -> list[BaseRoute]:
    health = StoreHealth(services.state, services.clock)

    async def live(_request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(_request: Request) -> Response:
        lead = look()
        told: Mapping[str, object] = {
            "status": "starting" if not lead.is_settled else "ready" if lead.trouble is None else "waiting",
            "leading": lead.leads,
            **({"trouble": lead.trouble} if lead.trouble is not None else {}),
            **await health.look(),
        }
        return JSONResponse(told, status_code=200 if told["status"] == "ready" else 503)

    async def figures(_request: Request) -> Response:
        body, content_type = metrics.render()
        return Response(body, media_type=content_type)

    return [Route("/health/live", live), Route("/health/ready", ready), Route("/metrics", figures)]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own."""
        yield


def _server(routes: list[BaseRoute]) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            Starlette(routes=routes),
            loop="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=_MOST_REQUESTS,
            timeout_graceful_shutdown=_LAST_ANSWERS_SECS,
        )
    )


def own_address(signals_url: str) -> str:
    """
    This machine's address as others are likely to reach it: the one by which it reaches the signals at *signals_url*.
    """
    host, port = first_place(signals_url) or ("", 0)
    with contextlib.suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as sock:
            sock.connect(found[4])  # which sends nothing
            return str(sock.getsockname()[0])
    return socket.gethostname()


def _within_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
