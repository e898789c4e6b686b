"""
The worker of ``greenroom serve``: gateway, API, events, autoscaler and supervisor in one process under uvicorn; and
that of ``greenroom gateway``, the same without autoscaler and supervisor, which are processes of their own then.

Started by ``gateway.parent``; how the two talk stands there.

A successor, which a reload starts beside the worker that serves, does all that needs no lead, then waits for its turn.
The old one hands over: it stops accepting, lets go of its runs, which live on under their shims, and finishes what it
has; what that still uses it tells its successor, so that no run in use is taken for idle.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.app import Gateway
from gateway.child import allow_many_files, enter_child
from gateway.data_dir import ensure_first_user, read_token, token_path
from gateway.held_sockets import HeldSockets
from gateway.installed_rules import warn_without_rules
from gateway.observability import Metrics, configure_logging
from gateway.opening import open_services
from gateway.parent import STOPPED_AT_ONCE
from gateway.presence import Presence, follow_missed, key_print, refuse_another_key
from gateway.reasons import reasons_in_words
from gateway.refusals import FAILED, Refused
from gateway.registering import announce, announce_builds, register_all
from gateway.services import Services, new_id, utc_now
from gateway.settings import Settings
from gateway.stop_signals import StopSignals
from gateway.tls import Certificates
from gateway.worker_ending import end_runs, let_waiters_in, linger, say_goodbye, until_served
from gateway.worker_figures import WorkerFigures
from gateway.worker_place import ParentLine, Place
from gateway.worker_server import Server, Tls

_log = logging.getLogger(__name__)


async def serve_worker(settings: Settings, place: Place, parent: ParentLine) -> int:
    """Serve until a signal or a hand-over; the exit code."""
    stop = StopSignals()
    stop.listen()
    parent.listen()
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as stack:
        is_shared = settings.signals_url is not None
        port = place.sockets[0].getsockname()[1]
        services = await stack.enter_async_context(open_services(settings, port, asks_for_logs=place.role == "gateway"))
        state = services.state
        if is_shared:
            await refuse_another_key(state.signals, services.box)
        first = await ensure_first_user(
            state.records, settings, now=utc_now(), new_id=new_id, random_bytes=services.random_bytes
        )
        certificates = open_certificates(settings, place)
        figures = WorkerFigures(
            own_id=new_id(),
            lane=place.lane,
            workers=settings.workers if place.role == "gateway" else 1,
            render=lambda: metrics.render()[0],
            send=lambda message: held.pass_on(message),  # which is made just below
        )
        held = HeldSockets(services, place.rendezvous, hear=figures.hear)
        await stack.enter_async_context(held.running())
        if is_shared:
            metrics.watch_signals(state.signals)
        if not is_shared and not place.is_successor:  # else builds under way are those of another process
            await services.builder.recover()
        registered = await register_all(services, first)
        lead = await _lead(services, metrics, stack) if place.role == "serve" else None
        gateway = Gateway(services, metrics, gateway_id=new_id(), uses_leases=is_shared, figures=figures)
        tls = Tls(place.tls_sockets, certificates.context) if certificates else None
        server = Server(gateway, held.take, tls)
        await gateway.directory.load()
        if place.is_successor:
            parent.say("prepared")
            await parent.go.wait()
        await held.lead()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(gateway.run())
            leading = group.create_task(lead.leading.run()) if lead is not None else None
            if lead is not None:
                await lead.leading.settled.wait()
            serving = group.create_task(server.serve(sockets=place.sockets))
            await server.has_started(serving)
            gateway.is_ready = figures.serves = True
            chores = [
                group.create_task(warn_without_rules(settings, services.urls.local_port)),
                group.create_task(server.cover_lanes(parent.covers)),
                *([group.create_task(parent.keep_talking())] if figures.workers > 1 else []),
            ]
            if place.lane == 0:
                announce(services, first, registered)
                chores.append(group.create_task(announce_builds(services, first, registered)))
            if certificates is not None:
                metrics.watch_certificates(lambda: certificates.first_expiry, lambda: certificates.is_stale)
                chores.append(group.create_task(certificates.follow()))
            if is_shared:
                presence = Presence(state.signals, "gateway", gateway.gateway_id, lambda: _facts(services, place))
                chores.append(group.create_task(presence.keep()))
                chores.append(group.create_task(follow_missed(services.directory)))
            parent.say("ready")
            waiting: list[asyncio.Task[Any]] = [
                group.create_task(event.wait()) for event in (stop.drain, parent.hand_over)
            ]
            await asyncio.wait([*waiting, serving], return_when=asyncio.FIRST_COMPLETED)
            is_handing_over = parent.hand_over.is_set() and not stop.drain.is_set()
            figures.serves = False
            for chore in chores:
                chore.cancel()
            if is_handing_over:
                if lead is not None:
                    lead.acting.hands_over = True
                await let_waiters_in(gateway, server, place.sockets, stop)
                is_handing_over = not stop.drain.is_set()  # else its successor is gone, and this is the end of all
            if not is_handing_over:
                _log.info("stopping: finishing what is in flight")
                await say_goodbye(gateway, stop)
                if lead is not None:
                    lead.acting.hands_over = False
                    await end_runs(lead.acting.end_runs, stop, settings.shutdown_timeout_secs)
                else:  # the runs live on, and answer what they have
                    server.finish_within(settings.shutdown_timeout_secs)
            if lead is not None and leading is not None:
                lead.leading.stop()
                await asyncio.wait([leading])
            if is_handing_over:
                held.let_go()
                waiting.append(group.create_task(held.tell_use(gateway.desk.report)))
                await asyncio.sleep(0)  # the first report is on its way before the next worker may look at it
                parent.say("handed over")
                _log.info("handed over: finishing what is in flight")
                await linger(stop)
                await say_goodbye(gateway, stop, is_reload=True)
                server.finish_within(settings.drain_timeout_secs)  # nobody waits for this worker's end
            server.should_exit = True
            if stop.at_once.is_set():
                server.force_exit = True
            await until_served(serving, server, stop, settings.shutdown_timeout_secs if is_handing_over else None)
            for task in (running, *waiting):
                task.cancel()
    return STOPPED_AT_ONCE if stop.at_once.is_set() else 0


@dataclass(frozen=True, slots=True)
class _Lead:
    """The autoscaler's side of ``greenroom serve``."""

    leading: Any
    acting: Any


async def _lead(services: Services, metrics: Metrics, stack: contextlib.AsyncExitStack) -> _Lead:
    """The autoscaler of this process, with its launcher open; it acts once ``leading`` runs."""
    # Imported here alone: no other part of the gateway may know the autoscaler.
    from autoscaler.acting import Acting
    from autoscaler.leading import LEASE_SECS, Leading

    is_shared = services.settings.signals_url is not None
    acting = Acting(
        settings=services.settings,
        state=services.state,
        logs=services.logs,
        box=services.box,
        urls=services.urls,
        builder=services.builder,
        directory=services.directory,
        metrics=metrics,
        now=services.now,
        new_id=services.new_id,
        is_shared=is_shared,
    )
    await stack.enter_async_context(acting.prepared())
    leading = Leading(
        signals=services.state.signals,
        holder=services.new_id(),
        act=acting.act,
        fails_with_act=True,
        lease_secs=LEASE_SECS if is_shared else math.inf,
    )
    return _Lead(leading, acting)


def _facts(services: Services, place: Place) -> Mapping[str, str]:
    host, port = place.sockets[0].getsockname()[:2]
    return {
        "address": f"{host}:{port}",
        "pid": str(os.getpid()),
        "machine": socket.gethostname(),
        "key": key_print(services.box),
    }


def open_certificates(settings: Settings, place: Place) -> Certificates | None:
    """Those for the sockets that speak TLS; None where there are no such. Raises Refused."""
    if not place.tls_sockets:
        return None
    certificates = Certificates(settings.tls_certificates, http2=settings.http2, now=utc_now)
    _log.info("tls: served on port %d", place.tls_sockets[0].getsockname()[1])
    return certificates


def main() -> None:
    """The process's entry: settings as JSON on stdin, sockets as inherited descriptors."""
    parser = argparse.ArgumentParser(prog="greenroom-worker")
    parser.add_argument("--sockets", required=True)
    parser.add_argument("--tls-sockets", default="")
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--rendezvous-fd", type=int)
    parser.add_argument("--successor", action="store_true")
    parser.add_argument("--lane", type=int, default=0)
    parser.add_argument("--role", choices=("serve", "gateway"), default="serve")
    arguments = parser.parse_args()
    numbers = _numbers(arguments.sockets)
    tls_numbers = _numbers(arguments.tls_sockets)
    extra = [number for number in (arguments.control_fd, arguments.rendezvous_fd) if number is not None]
    enter_child([*numbers, *tls_numbers, *extra])
    settings = Settings(**json.load(sys.stdin))
    place = Place(
        sockets=[socket.socket(fileno=number) for number in numbers],
        tls_sockets=[socket.socket(fileno=number) for number in tls_numbers],
        rendezvous=_socket(arguments.rendezvous_fd),
        is_successor=arguments.successor,
        lane=arguments.lane,
        role=arguments.role,
    )
    parent = ParentLine(_socket(arguments.control_fd))
    allow_many_files()
    # The event loop and the threads of the records hand work to each other; the default of 5 ms is a whole wake.
    sys.setswitchinterval(0.0005)
    try:
        # Those given by hand, which no pattern would know as a token.
        token = settings.token or read_token(token_path(settings))
        configure_logging(settings.log_format, settings.log_level, secrets=[token] if token else [])
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(serve_worker(settings, place, parent))
    except Refused as error:
        _refuse(parent, [str(error)])
        code = error.exit_code or FAILED
    except Exception as error:
        reasons = reasons_in_words(error)
        if reasons is None:
            raise
        _refuse(parent, reasons)
        code = FAILED
    raise SystemExit(code)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _socket(number: int | None) -> socket.socket | None:
    return None if number is None else socket.socket(fileno=number)


def _refuse(parent: ParentLine, reasons: list[str]) -> None:
    """Tell the person at the terminal, and whoever asked for a reload."""
    for reason in reasons:
        print(f"greenroom: {reason}", file=sys.stderr, flush=True)
        for line in reason.splitlines():
            parent.say(f"refused: {line}")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
