"""
The worker of ``greenroom serve``: gateway, API, events, autoscaler and supervisor in one process under uvicorn.

Started by ``gateway.parent``; how the two talk stands there. Here alone gateway and autoscaler are composed.
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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from gateway.actor_files.snapshot import pack_folder
from gateway.app import Gateway
from gateway.auth import Authenticator
from gateway.bounded_head import BoundedHead
from gateway.builds import Builder
from gateway.core.errors import DefinitionError, GreenroomError
from gateway.core.ids import shown_standby_label
from gateway.core.lifecycle import RunStatus, StartOutcome
from gateway.core.model import Actor, Origin
from gateway.core.standby import PoolKey
from gateway.data_dir import FirstUser, ensure_first_user, read_token, records_url, token_path
from gateway.live_logs import Logs
from gateway.observability import Metrics, configure_logging
from gateway.parent import STOPPED_AT_ONCE, enter_worker
from gateway.proxy.http import quiet_cut_answers
from gateway.refusals import FAILED, Refused
from gateway.secret_box import SecretBox
from gateway.services import Services, new_id, utc_now
from gateway.settings import Settings
from gateway.state.blobs import open_blobs
from gateway.state.ports import State, StateUnavailable
from gateway.state.records import open_records
from gateway.state.signals_memory import MemorySignals
from gateway.urls import Urls

_log = logging.getLogger(__name__)

_UVICORN_GRACE_SECS = 5


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


class _Server(uvicorn.Server):
    """Uvicorn without its own ideas about signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def has_started(self, serving: asyncio.Task[None]) -> None:
        """Until it accepts connections; uvicorn tells that by a flag alone. Ends too when *serving* does."""
        while not self.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)


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
            ),
            builder=Builder(state, logs, box, now=utc_now, new_id=new_id),
        )


async def serve_worker(settings: Settings, sockets: list[socket.socket], ready_fd: int | None) -> int:
    """Serve until a signal; the exit code."""
    # The autoscaler is imported here alone: no other part of the gateway may know it.
    from autoscaler.keeper_tools import KeeperTools
    from autoscaler.launchers.environments import Environments
    from autoscaler.launchers.process import ProcessLauncher
    from autoscaler.loop import Autoscaler
    from autoscaler.supervisor import Supervisor

    stop = StopSignals()
    stop.listen()
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings, sockets[0].getsockname()[1]))
        state = services.state
        first = await ensure_first_user(
            state.records, settings, now=utc_now(), new_id=new_id, random_bytes=services.random_bytes
        )
        await services.builder.recover()
        registered = [await _register(services, first, folder) for folder in actor_folders(settings.actors)]
        environments = await stack.enter_async_context(
            Environments(settings.data / "process", state.blobs, services.logs)
        )
        launcher = await stack.enter_async_context(
            ProcessLauncher(settings.data / "process", environments, port_range=settings.port_range)
        )

        def start_went(pool: PoolKey, outcome: StartOutcome) -> None:
            metrics.count_start(outcome)
            autoscaler.start_went(pool, outcome is StartOutcome.SERVING)

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
                on_start=start_went,
                on_end=metrics.count_end,
            ),
            launcher=launcher,
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
        )
        gateway = Gateway(services, metrics, gateway_id=new_id())
        server = _Server(_uvicorn_config(gateway))
        await gateway.directory.load()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(gateway.run())
            async with supervisor.running():
                scaling = group.create_task(autoscaler.run())
                serving = group.create_task(server.serve(sockets=sockets))
                await server.has_started(serving)
                gateway.is_ready = True
                _announce(services, first, registered)
                _tell_ready(ready_fd)
                waiting = group.create_task(stop.drain.wait())
                await asyncio.wait([waiting, serving], return_when=asyncio.FIRST_COMPLETED)
                _log.info("stopping: finishing what is in flight")
                gateway.stop_taking()
                scaling.cancel()
                await _end_runs(supervisor.stop_all, stop, settings.shutdown_timeout_secs)
            server.should_exit = True
            if stop.at_once.is_set():
                server.force_exit = True
            await serving
            for task in (running, waiting):
                task.cancel()
    return STOPPED_AT_ONCE if stop.at_once.is_set() else 0


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


async def _register(services: Services, first: FirstUser, folder: Path) -> Actor:
    try:
        snapshot = await asyncio.to_thread(pack_folder, folder)
        actor, build = await services.builder.register(first.user, snapshot, origin=Origin.CLI)
    except DefinitionError as error:
        raise Refused(f"{folder / error.file}{f':{error.line}' if error.line else ''}: {error.problem}") from error
    except GreenroomError as error:
        raise Refused(f"{folder}: {error.message}") from error
    if build.status is not RunStatus.SUCCEEDED:
        raise Refused(f"{folder}: {build.status_message or 'the build failed'}")
    return actor


def _announce(services: Services, first: FirstUser, actors: list[Actor]) -> None:
    """When ready: one line per Actor, where the token lies, the API."""
    urls = services.urls
    for actor in actors:
        label = shown_standby_label(first.user.username, actor.name, actor.id)
        print(f"{first.user.username}/{actor.name}: {urls.standby(label)}/", flush=True)
    if services.settings.launcher == "process":
        print("Actors run as processes of this machine, without isolation: serve only code that you trust.", flush=True)
    print(f"token: {first.token_file or 'as given in GREENROOM_TOKEN'}", flush=True)
    print(f"API: {urls.public}/v2", flush=True)


def _tell_ready(ready_fd: int | None) -> None:
    if ready_fd is None:
        return
    with contextlib.suppress(OSError):
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)


def _uvicorn_config(gateway: Gateway) -> uvicorn.Config:
    quiet_cut_answers()
    return uvicorn.Config(
        gateway,
        http=BoundedHead,
        ws="websockets-sansio",
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        # The Actor's own Date and Server pass; X-Forwarded-* are for gateway.client_address to believe or not.
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ws_max_size=gateway.services.settings.max_websocket_message_bytes,
        timeout_graceful_shutdown=_UVICORN_GRACE_SECS,
    )


def main() -> None:
    """The process's entry: settings as JSON on stdin, sockets as inherited descriptors."""
    parser = argparse.ArgumentParser(prog="greenroom-worker")
    parser.add_argument("--sockets", required=True)
    parser.add_argument("--ready-fd", type=int)
    arguments = parser.parse_args()
    numbers = [int(number) for number in arguments.sockets.split(",")]
    enter_worker([*numbers, arguments.ready_fd] if arguments.ready_fd is not None else numbers)
    settings = Settings(**json.load(sys.stdin))
    sockets = [socket.socket(fileno=number) for number in numbers]
    # The event loop and the threads of the records hand work to each other; the default of 5 ms is a whole wake.
    sys.setswitchinterval(0.0005)
    try:
        # Those given by hand, which no pattern would know as a token.
        token = settings.token or read_token(token_path(settings))
        configure_logging(settings.log_format, settings.log_level, secrets=[token] if token else [])
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(serve_worker(settings, sockets, arguments.ready_fd))
    except Refused as error:
        print(f"greenroom: {error}", file=sys.stderr, flush=True)
        code = error.exit_code or FAILED
    except Exception as error:
        reasons = reasons_in_words(error)
        if reasons is None:
            raise
        for reason in reasons:
            print(f"greenroom: {reason}", file=sys.stderr, flush=True)
        code = FAILED
    raise SystemExit(code)


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
