"""Composes one gateway: which host is what, the rooms behind them, and the work that keeps its pictures true."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial

from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute

from gateway.api.app import api_app
from gateway.auth import run_token
from gateway.core.errors import RecordNotFound, ShuttingDown
from gateway.core.lifecycle import Readiness
from gateway.core.names import PROOF_PATH, proof_of
from gateway.events import EventSockets
from gateway.health import StoreHealth
from gateway.living import alive, follow_deaths
from gateway.observability import Metrics
from gateway.proxy import replies
from gateway.proxy.admission import Admission
from gateway.proxy.asgi import Message, Receive, Scope, Send, host_of, raw_path_of
from gateway.proxy.decisions import Decisions
from gateway.proxy.host_map import HostMap
from gateway.proxy.hosts import LiveView, Own, Standby, parse_path_form
from gateway.proxy.open_sockets import GOING_AWAY, SERVICE_RESTART, OpenSockets
from gateway.proxy.request_ids import RequestIds
from gateway.proxy.slot_broker import SlotBroker
from gateway.proxy.slots import SlotDesk
from gateway.proxy.splice.lobby import Lobby
from gateway.proxy.splice.splicing import Splicing
from gateway.proxy.upstream import Upstreams
from gateway.services import Services
from gateway.state.directory import Directory
from gateway.state.ports import RunRoute, StateUnavailable
from gateway.state.steady import steadily
from gateway.worker_figures import WorkerFigures

_REPORT_TTL_FACTOR = 10
_LAST_BYTES_SECS = 2.0  # for what the kernel of an ended run has sent
# Sockets are said goodbye to a little before the run behind them is stopped, so that the goodbye still arrives.
_SOCKET_DRAIN_RATIO = 0.9
_FORGET_PUSHES_SECS = 0.2


@dataclass(slots=True)
class Gateway:
    """
    The ASGI application of one process, and its background work (``run``).

    With *uses_leases* it shares the runs with other gateways, and borrows each slot that it uses; *gateway_id* is then
    that of this very process. *figures* are those of all workers that share its port; None: only its own are told.
    """

    services: Services
    metrics: Metrics
    gateway_id: str
    uses_leases: bool = False
    figures: WorkerFigures | None = None
    admission: Admission = field(init=False)
    decisions: Decisions = field(init=False)
    sockets: OpenSockets = field(default_factory=OpenSockets)
    splicing: Splicing = field(init=False)
    directory: Directory = field(init=False)
    hosts: HostMap = field(init=False)
    desk: SlotDesk = field(init=False)
    is_ready: bool = False
    _own: Starlette = field(init=False)
    _health: StoreHealth = field(init=False)
    _upstreams: Upstreams = field(init=False)
    _broker: SlotBroker | None = None
    _poke: asyncio.Event = field(default_factory=asyncio.Event)
    _draining_since: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        services, settings = self.services, self.services.settings
        self.directory = services.directory
        self._health = StoreHealth(services.state, services.clock)
        self.hosts = HostMap(settings.domain, self.directory)
        self.desk = SlotDesk(
            self.gateway_id,
            room_size=settings.waiting_room_size,
            clock=services.clock,
            chance=random.random,
            poke=self._poke.set,
        )
        signals = services.state.signals
        self.desk.is_cut_off = lambda: signals.trouble is not None
        if self.uses_leases:
            self._broker = SlotBroker(
                self.gateway_id,
                self.desk,
                services.state.signals.slots,
                poke=self._poke.set,
            )
        lobby = Lobby(settings)
        self._upstreams = Upstreams(connect_timeout_secs=settings.connect_timeout_secs, wheel=lobby.wheel)
        self.decisions = Decisions(
            settings=settings,
            records=services.state.records,
            auth=services.auth,
            directory=self.directory,
            desk=self.desk,
        )
        request_ids = RequestIds()
        self.admission = Admission(
            decisions=self.decisions,
            upstreams=self._upstreams,
            metrics=self.metrics,
            new_request_id=request_ids.next,
            sockets=self.sockets,
        )
        self.splicing = Splicing(
            lobby=lobby,
            decisions=self.decisions,
            hosts=self.hosts,
            metrics=self.metrics,
            request_ids=request_ids,
            sockets=self.sockets,
        )
        self._own = Starlette(
            routes=[
                Route("/health/live", self._live),
                Route("/health/ready", self._ready),
                Route("/metrics", self._metrics),
                WebSocketRoute("/events/{run_id}/{secret}", EventSockets(services).serve),
                Mount("/", app=api_app(services)),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Host → what, then there. Hosts that are nobody's learn nothing."""
        host = host_of(scope)
        # HTTP/1.0 may leave the host out, as health checkers do.
        where = self.hosts.look(host) if host or scope.get("http_version") != "1.0" else Own()
        if type(where) is Standby:  # asked first, and without a pattern: it is on the way of each request
            await self.admission.standby(scope, receive, send, where.label, "")
            return
        match where:
            case LiveView(label):
                await self.admission.live_view(scope, receive, send, label, "")
            case Own(claimed=""):
                await self._serve_own(scope, receive, send)
            case Own(claimed=name):
                await self._serve_claimed(scope, send, name)
            case _:
                # The same words as for an Actor that does not exist or may not be called.
                await replies.send_error(scope, send, RecordNotFound("Actor"), [])

    async def _serve_claimed(self, scope: Scope, send: Send, name: str) -> None:
        """At a custom domain that is not verified: the proof that its DNS points here, and nothing else."""
        path = raw_path_of(scope).decode("latin-1")
        challenge = path.removeprefix(PROOF_PATH)
        if path == challenge or not self.directory.is_challenge(name, challenge):
            await replies.send_error(scope, send, RecordNotFound("Actor"), [])
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
        await replies.send_reply(scope, send, 200, headers, proof_of(challenge).encode())

    async def _serve_own(self, scope: Scope, receive: Receive, send: Send) -> None:
        form = parse_path_form(raw_path_of(scope))
        if form is None:
            await self._count_own(scope, receive, send)
        elif form.kind == "standby":
            await self.admission.standby(scope, receive, send, form.label, form.prefix)
        else:
            await self.admission.live_view(scope, receive, send, form.label, form.prefix)

    async def _count_own(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._own(scope, receive, send)
            return
        started, status = self.services.clock(), None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._own(scope, receive, watched)
        finally:
            kind = "api" if scope["path"].startswith("/v2") else "own"
            self.metrics.request(kind=kind, status=status, secs=self.services.clock() - started)

    async def run(self) -> None:
        """Everything that goes on beside requests, until cancelled."""
        signals = self.services.state.signals
        if self._broker is None:
            await self._run_parts()
            return
        with alive(self.services.settings.data, self.gateway_id) as has_left:
            try:
                await self._run_parts(self._broker.run, partial(follow_deaths, self.services.settings.data, signals))
            finally:
                with contextlib.suppress(StateUnavailable):  # then others do, or its slots are free by their time
                    await self._broker.withdraw()
                    has_left()

    async def _run_parts(self, *others: Callable[[], Coroutine[None, None, None]]) -> None:
        signals = self.services.state.signals
        try:
            async with asyncio.TaskGroup() as group:
                for other in others:
                    group.create_task(other())
                group.create_task(self.splicing.run())
                group.create_task(steadily("the directory of hosts", partial(self.directory.follow, signals)))
                group.create_task(steadily("the route table", self._follow_routes))
                group.create_task(steadily("the forgetting of tokens", self._follow_tokens))
                group.create_task(steadily("the report of demand", self._report_demand))
                group.create_task(steadily("the forgetting of answered pushes", self._forget_answered_pushes))
        finally:
            with contextlib.suppress(StateUnavailable):  # then the report ends by its time
                await signals.forget_demand(self.gateway_id)
            with contextlib.suppress(StateUnavailable):
                # Nobody else would, and until their time is over they would pass for unanswered.
                await self.services.state.storages.flush_answered()
            await self._upstreams.aclose()
            self.admission.clear()

    def stop_taking(self, *, is_reload: bool = False) -> None:
        """
        Greenroom stops: nothing new at proxied hosts, waiters are told, sockets are said goodbye to.

        With *is_reload* those at the other ends hear that they may come again at once.
        """
        self.is_ready = False
        self.decisions.is_stopping = True
        self.desk.refuse_all(ShuttingDown())
        if self._broker is not None:
            self._broker.retire()
        self.sockets.close(code=SERVICE_RESTART if is_reload else GOING_AWAY)

    async def _follow_routes(self) -> None:
        async with self.services.state.signals.watch_routes() as changes:
            async for numbered in changes:
                change = numbered.change
                if isinstance(change, RunRoute) and change.readiness is Readiness.FROZEN:
                    self._close_idle(change)
                for gone in self.desk.apply(change, numbered.version):
                    self._draining_since.pop(gone.route.run_id, None)
                    self.splicing.forget(gone, self.services.clock())
                    if gone.route.address is not None:
                        self._upstreams.forget(gone.route.address)
                    # Its sockets end with it; of those that did not hear of its end, a vanished machine's, see to that.
                    asyncio.get_running_loop().call_later(_LAST_BYTES_SECS, self.sockets.close, gone.route.run_id)
                if isinstance(change, RunRoute) and change.is_ending:
                    self.sockets.close(change.run_id)

    def _close_idle(self, route: RunRoute) -> None:
        run = self.desk.routes.run(route.run_id)
        if run is not None:
            self.splicing.close_idle(run)
        if route.address is not None:
            self._upstreams.close_idle(route.address)

    async def _follow_tokens(self) -> None:
        async with self.services.state.signals.watch_changes() as changes:
            self.services.auth.doubt_all()  # what changed before is not told
            async for change in changes:
                if change.kind in ("token", "user"):
                    self.services.auth.forget_all()
                elif change.kind == "run-token":
                    self.services.auth.forget(run_token(self.services.box, change.id))

    async def _forget_answered_pushes(self) -> None:
        """
        Soon: pushes of the same items at other gateways wait for it, and after a kill a new one is taken for the
        repetition of one that is remembered.
        """
        while True:
            await asyncio.sleep(_FORGET_PUSHES_SECS)
            await self.services.state.storages.flush_answered()

    async def _report_demand(self) -> None:
        every_secs = self.services.settings.demand_report_secs
        while True:
            idle_limit_secs = self.desk.secs_to_idle_limit()
            is_poke = idle_limit_secs <= every_secs
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(every_secs, idle_limit_secs)):
                    await self._poke.wait()
                    is_poke = True
            is_poke = is_poke or self._poke.is_set()  # also one of the very moment in which the time was over
            self._poke.clear()
            await self.services.state.signals.report_demand(
                self.desk.report(), ttl_secs=every_secs * _REPORT_TTL_FACTOR, is_poke=is_poke
            )
            self._close_overdue_sockets()
            self._set_gauges()

    def _close_overdue_sockets(self) -> None:
        limit_secs = self.services.settings.drain_timeout_secs * _SOCKET_DRAIN_RATIO
        now = self.services.clock()
        for run in self.desk.routes.all_runs():
            if run.route.readiness is Readiness.DRAINING:
                for stream in run.silent_streams(now):
                    stream.close(GOING_AWAY, "going away")
                since = self._draining_since.setdefault(run.route.run_id, now)
                if now - since >= limit_secs:
                    self.sockets.close(run.route.run_id)

    def _set_gauges(self) -> None:
        self.metrics.held_requests.set(self.desk.held)
        self.metrics.requests_in_flight.set(self.desk.in_flight)
        counts: dict[Readiness, int] = {}
        for run in self.desk.routes.all_runs():
            counts[run.route.readiness] = counts.get(run.route.readiness, 0) + 1
        self.metrics.set_runs(counts)

    async def _live(self, _request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def _ready(self, _request: Request) -> Response:
        if self.is_ready:  # also without a store: what is warm needs none
            return JSONResponse({"status": "ready", **await self._health.look()})
        return JSONResponse({"status": "stopping" if self.decisions.is_stopping else "starting"}, status_code=503)

    async def _metrics(self, _request: Request) -> Response:
        self._set_gauges()
        body = await self.figures.of_all() if self.figures is not None else self.metrics.render()[0]
        return Response(body, media_type=CONTENT_TYPE_LATEST)
