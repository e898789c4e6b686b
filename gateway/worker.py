"""
The worker of ``greenroom serve``: gateway, API, events, autoscaler and supervisor in one process under uvicorn.

Started by ``gateway.parent``; how the two talk stands there. Here alone gateway and autoscaler are composed.

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
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from gateway.app import Gateway
from gateway.auth import Authenticator
from gateway.builds import Builder
from gateway.child import allow_many_files, enter_child
from gateway.core.errors import GreenroomError, ShuttingDown
from gateway.data_dir import ensure_first_user, read_token, records_url, token_path
from gateway.decision_retention import DecisionRetention
from gateway.held_sockets import HeldSockets
from gateway.installed_rules import warn_without_rules
from gateway.live_logs import Logs
from gateway.observability import Metrics, configure_logging
from gateway.parent import STOPPED_AT_ONCE
from gateway.refusals import FAILED, Refused
from gateway.registering import announce, announce_builds, register
from gateway.secret_box import SecretBox
from gateway.services import Services, new_id, utc_now
from gateway.settings import Settings
from gateway.sources.fetch import fetch_source
from gateway.state.blobs import open_blobs
from gateway.state.ports import State, StateUnavailable
from gateway.state.records import open_records
from gateway.state.signals_memory import MemorySignals
from gateway.tls import Certificates
from gateway.urls import Urls
from gateway.worker_place import ParentLine, Place
from gateway.worker_server import Server, Tls

_log = logging.getLogger(__name__)

# For requests that wait for a run at the moment of a hand-over: first while new ones are still accepted, then without.
_HELD_SECS = 10.0
_LAST_HELD_SECS = 30.0
_FRESH_SECS = 0.3  # for connections that were accepted just before, to send their request
_LINGER_SECS = 1.0
_POLL_SECS = 0.02


@dataclass(slots=True)
class StopSignals:
    """SIGTERM: drain and stop. SIGQUIT, or a second SIGTERM: stop at once."""

    drain: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: asyncio.Event = field(default_factory=asyncio.Event)

    def listen(self) -> None:
        """Take over the signals of this process."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._term)
        loop.add_signal_handler(signal.SIGQUIT, self._quit)

    def _term(self) -> None:
        if self.drain.is_set():
            self.at_once.set()
        self.drain.set()

    def _quit(self) -> None:
        self.drain.set()
        self.at_once.set()


@contextlib.asynccontextmanager
async def open_services(settings: Settings, port: int) -> AsyncIterator[Services]:
    """The stores of one data folder and what works on them."""
    settings.data.mkdir(parents=True, exist_ok=True)
    async with open_records(records_url(settings.data)) as records:
        state = State(
            records=records,
            blobs=open_blobs(settings.data / "blobs"),
            signals=MemorySignals(),
            storages=records.storages,
        )
        box = SecretBox.from_data_dir(settings.data)
        logs = Logs(settings.data, state.blobs)
        fetch = partial(fetch_source, may_be_private=settings.allow_private_sources)
        yield Services(
            settings=settings,
            state=state,
            auth=Authenticator(
                records, cache_secs=settings.token_cache_secs, now=utc_now, clock=asyncio.get_running_loop().time
            ),
            box=box,
            logs=logs,
            urls=Urls(
                scheme=settings.public_scheme,
                domain=settings.domain,
                port=settings.public_port or port,
                local_port=port,
                local_host=settings.run_host or "127.0.0.1",
            ),
            builder=Builder(
                state,
                logs,
                box,
                now=utc_now,
                new_id=new_id,
                makes_images=settings.launcher != "process",
                fetch=fetch,
                max_log_chars=settings.max_log_chars,
            ),
        )


async def serve_worker(settings: Settings, place: Place, parent: ParentLine) -> int:
    """Serve until a signal or a hand-over; the exit code."""
    # The autoscaler is imported here alone: no other part of the gateway may know it.
    from autoscaler.build_jobs import BuildJobs
    from autoscaler.image_cleaning import HasImages, ImageCleaning
    from autoscaler.keeper_tools import KeeperTools
    from autoscaler.launchers.choice import open_launcher
    from autoscaler.loop import Autoscaler
    from autoscaler.room_keeping import Other
    from autoscaler.strangers import Strangers
    from autoscaler.supervisor import Supervisor

    stop = StopSignals()
    stop.listen()
    parent.listen()
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings, place.sockets[0].getsockname()[1]))
        state = services.state
        first = await ensure_first_user(
            state.records, settings, now=utc_now(), new_id=new_id, random_bytes=services.random_bytes
        )
        certificates = open_certificates(settings, place)
        held = HeldSockets(services, place.rendezvous)
        await stack.enter_async_context(held.running())
        if not place.is_successor:  # else builds under way are those of the worker that serves
            await services.builder.recover()
        registered = [await register(services, first, folder) for folder in actor_folders(settings.actors)]
        # Closed by a hand-over, too: the next worker may have to wait for an environment that is being made.
        launching = await stack.enter_async_context(contextlib.AsyncExitStack())
        launcher = await launching.enter_async_context(open_launcher(settings, state.blobs, services.logs))

        supervisor = Supervisor(
            tools=KeeperTools(
                settings=settings,
                state=state,
                logs=services.logs,
                box=services.box,
                urls=services.urls,
                now=utc_now,
                new_id=new_id,
                cores=os.cpu_count() or 1,
                on_start=lambda _, outcome: metrics.count_start(outcome),
                on_news=lambda news: autoscaler.hear(news),  # which is made below
                on_end=metrics.count_end,
                on_freeze=metrics.freezes.inc,
                on_resume=metrics.resumes.inc,
            ),
            launcher=launcher,
            on_gone=lambda: autoscaler.room_is_free(),
        )
        autoscaler = Autoscaler(
            settings=settings,
            state=state,
            # The gateway's own picture: what a request waits for, the autoscaler knows.
            directory=services.directory,
            supervisor=supervisor,
            holder=new_id(),
            now=utc_now,
            new_id=new_id,
            on_decision=metrics.decisions.inc,
            on_pause=metrics.count_quarantine,
            on_quarantined=metrics.quarantined_pools.set,
            builds=lambda: [
                Other(run_id=build_id, owner=owner, memory_mbytes=settings.build_memory_mbytes, is_run=False)
                for build_id, owner in jobs.under_way().items()
                if services.builder.makes_images
            ],
        )
        jobs = BuildJobs(
            maker=services.builder.maker,
            state=state,
            logs=services.logs,
            prepare=launcher.prepare if services.builder.makes_images else None,
            strangers=Strangers(settings.launcher, settings, services.urls.local_port),
            max_builds=settings.max_builds,
            timeout_secs=settings.build_timeout_secs,
            on_gone=autoscaler.room_is_free,
        )
        gateway = Gateway(services, metrics, gateway_id=new_id())
        tls = Tls(place.tls_sockets, certificates.context) if certificates else None
        server = Server(gateway, held.take, tls)
        await gateway.directory.load()
        if place.is_successor:
            parent.say("prepared")
            await parent.go.wait()
        await held.lead()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(gateway.run())
            chores: list[asyncio.Task[None]] = []
            async with supervisor.running(), jobs.running():
                if isinstance(launcher, HasImages):
                    cleaning = ImageCleaning(
                        store=launcher.images,
                        records=state.records,
                        keep=timedelta(days=settings.image_keep_days),
                        now=utc_now,
                    )
                    chores.append(group.create_task(cleaning.clean_for_ever()))
                retention = DecisionRetention(
                    records=state.records,
                    keep=timedelta(days=settings.decision_keep_days),
                    keep_per_pool=settings.decisions_per_pool,
                    now=utc_now,
                )
                chores.append(group.create_task(retention.forget_for_ever()))
                scaling = group.create_task(autoscaler.run())
                serving = group.create_task(server.serve(sockets=place.sockets))
                await server.has_started(serving)
                gateway.is_ready = True
                announce(services, first, registered)
                if certificates is not None:
                    metrics.watch_certificates(lambda: certificates.first_expiry, lambda: certificates.is_stale)
                    chores.append(group.create_task(certificates.follow()))
                chores.append(group.create_task(warn_without_rules(settings, services.urls.local_port)))
                chores.append(group.create_task(announce_builds(services, first, registered)))
                parent.say("ready")
                waiting: list[asyncio.Task[Any]] = [
                    group.create_task(event.wait()) for event in (stop.drain, parent.hand_over)
                ]
                await asyncio.wait([*waiting, serving], return_when=asyncio.FIRST_COMPLETED)
                is_handing_over = parent.hand_over.is_set() and not stop.drain.is_set()
                for chore in chores:
                    chore.cancel()
                if is_handing_over:
                    jobs.hand_over()
                    await _let_waiters_in(gateway, server, place.sockets, stop)
                    scaling.cancel()
                    await asyncio.wait([scaling])
                else:
                    _log.info("stopping: finishing what is in flight")
                    gateway.stop_taking()
                    scaling.cancel()
                    await _end_runs(supervisor.stop_all, stop, settings.shutdown_timeout_secs)
            if is_handing_over:
                held.let_go()
                waiting.append(group.create_task(held.tell_use(gateway.desk.report)))
                await asyncio.sleep(0)  # the first report is on its way before the next worker may look at it
                await launching.aclose()
                parent.say("handed over")
                _log.info("handed over: finishing what is in flight")
                await _linger(stop)
                gateway.stop_taking(is_reload=True)
                server.finish_within(settings.shutdown_timeout_secs)
            server.should_exit = True
            if stop.at_once.is_set():
                server.force_exit = True
            await _until_served(serving, server, stop)
            for task in (running, *waiting):
                task.cancel()
    return STOPPED_AT_ONCE if stop.at_once.is_set() else 0


async def _let_waiters_in(gateway: Gateway, server: Server, sockets: list[socket.socket], stop: StopSignals) -> None:
    """
    Stop accepting at a moment at which no request waits for a run, if one comes soon.

    While this worker leads, those that wait are served; the next one would not know of them. So no connection may be
    left over which another such request could still come: each has its last answer before. What waits for longer is
    told to try again.
    """

    def nobody_waits() -> bool:
        return not (gateway.desk.held or gateway.splicing.is_deciding or gateway.admission.asking)

    server.say_last()
    await _linger(stop)
    await _until(nobody_waits, _HELD_SECS)
    await server.stop_accepting(sockets, _FRESH_SECS)
    await _until(nobody_waits, _LAST_HELD_SECS)
    gateway.desk.refuse_all(ShuttingDown())


async def _until(holds: Callable[[], bool], limit_secs: float) -> None:
    """Not at once: what has come in this very moment has first to get as far as where it is looked for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_secs):
            await asyncio.sleep(_POLL_SECS)
            while not holds():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(_POLL_SECS)


async def _linger(stop: StopSignals) -> None:
    """For requests on connections that stand, before these are closed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECS):
            await stop.drain.wait()


async def _until_served(serving: asyncio.Task[None], server: Server, stop: StopSignals) -> None:
    """Until the last request is answered; when told to stop at once, not even that."""
    async with asyncio.TaskGroup() as group:
        at_once = group.create_task(stop.at_once.wait())
        await asyncio.wait([serving, at_once], return_when=asyncio.FIRST_COMPLETED)
        at_once.cancel()
    if stop.at_once.is_set():
        server.force_exit = True
    await serving


async def _end_runs(
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


def open_certificates(settings: Settings, place: Place) -> Certificates | None:
    """Those for the sockets that speak TLS; None where there are no such. Raises Refused."""
    if not place.tls_sockets:
        return None
    certificates = Certificates(settings.tls_certificates, http2=settings.http2, now=utc_now)
    _log.info("tls: served on port %d", place.tls_sockets[0].getsockname()[1])
    return certificates


def actor_folders(given: tuple[Path, ...]) -> list[Path]:
    """Each given folder that is an Actor, else its direct sub-folders that are. Raises Refused for one without any."""
    found: list[Path] = []
    for folder in given:
        if not folder.is_dir():
            raise Refused(f"--actors {folder}: there is no such folder.")
        if _is_actor(folder):
            found.append(folder)
            continue
        below = sorted(child for child in folder.iterdir() if child.is_dir() and _is_actor(child))
        if not below:
            raise Refused(
                f"--actors {folder}: neither this folder nor one directly below it has an .actor/actor.json "
                "(https://whitepaper.actor tells what belongs there)."
            )
        found += below
    return found


def _is_actor(folder: Path) -> bool:
    return (folder / ".actor").is_dir() or (folder / "apify.json").is_file()


def main() -> None:
    """The process's entry: settings as JSON on stdin, sockets as inherited descriptors."""
    parser = argparse.ArgumentParser(prog="greenroom-worker")
    parser.add_argument("--sockets", required=True)
    parser.add_argument("--tls-sockets", default="")
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--rendezvous-fd", type=int)
    parser.add_argument("--successor", action="store_true")
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


def reasons_in_words(error: Exception) -> list[str] | None:
    """What a person can mend, without a traceback: a store, a file, the launcher. None where any of it is a bug."""
    if isinstance(error, ExceptionGroup):
        found = [reasons_in_words(inner) for inner in error.exceptions]
        return None if None in found else [reason for reasons in found for reason in reasons or ()]
    if isinstance(error, Refused | GreenroomError | StateUnavailable | OSError):
        return [str(error)]
    return None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
