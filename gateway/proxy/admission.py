"""
THE request path at proxied hosts, top to bottom: what the label means, who calls, which run, forward, give back.

Decisions are made by ``callers``, ``slots`` and ``balancer``; this shell awaits and sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

from gateway.auth import Authenticator
from gateway.client_address import client_of
from gateway.core.errors import (
    FirstBuildUnderWay,
    GreenroomError,
    LiveViewEnded,
    LiveViewNotListening,
    RecordNotFound,
    ShuttingDown,
    StandbyBadGateway,
    StandbyNotEnabled,
    StandbyResponseTimeout,
)
from gateway.core.standby import StandbyTarget
from gateway.observability import Metrics, RequestKind, log_context
from gateway.proxy import http, preflight, replies, websocket
from gateway.proxy.asgi import Message, Receive, Scope, Send, host_of
from gateway.proxy.callers import Caller, caller_of, own_credentials
from gateway.proxy.plan import Credentials, ForwardPlan, Headers
from gateway.proxy.replay import ReplayReceive
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Held, SlotDesk, Want
from gateway.proxy.upstream import UpstreamCut, UpstreamError, UpstreamRefused, Upstreams, UpstreamTimeout
from gateway.settings import Settings
from gateway.state.directory import Directory
from gateway.state.ports import Records

_log = logging.getLogger(__name__)


class CallerGone(Exception):
    """The caller left while its request was held: there is nobody to answer."""


@dataclass(slots=True)
class Timing:
    """When what happened to one request, on the monotonic clock; told to the caller as ``Server-Timing``."""

    arrived: float
    admitted: float = 0.0
    was_held: bool = False
    was_cut: bool = False
    run: LiveRun | None = None

    def header(self, now: float) -> Headers:
        """``held`` and ``forward`` of every request; ``start`` and ``ready`` of the run that a held one waited for."""
        parts = [f"held;dur={(self.admitted - self.arrived) * 1000:.1f}"]
        route = self.run.route if self.run else None
        if self.was_held and route is not None and route.start_secs is not None and route.ready_secs is not None:
            parts.append(f"start;dur={route.start_secs * 1000:.1f}")
            parts.append(f"ready;dur={route.ready_secs * 1000:.1f}")
        parts.append(f"forward;dur={(now - self.admitted) * 1000:.1f}")
        return [(b"server-timing", ", ".join(parts).encode())]


Serve = Callable[[ReplayReceive, Send, Timing, str], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Admission:
    """Serves standby and live-view requests, HTTP and WebSocket, by host or by the path form."""

    settings: Settings
    records: Records
    auth: Authenticator
    directory: Directory
    desk: SlotDesk
    upstreams: Upstreams
    metrics: Metrics
    new_request_id: Callable[[], str]
    is_stopping: bool = False
    _sockets: dict[str, set[asyncio.Event]] = field(default_factory=dict)

    async def standby(self, scope: Scope, receive: Receive, send: Send, label: str, prefix: str) -> None:
        """One request to a standby host; *prefix* is the path form's, empty at hosts."""
        await self._answered(scope, receive, send, "standby", partial(self._standby, scope, label, prefix))

    async def live_view(self, scope: Scope, receive: Receive, send: Send, label: str, prefix: str) -> None:
        """One request to a run's live-view host."""
        await self._answered(scope, receive, send, "live_view", partial(self._live_view, scope, label, prefix))

    def close_sockets(self, run_id: str | None = None) -> None:
        """Say goodbye (1001) on the open WebSockets of one run, or of all."""
        for events in [self._sockets.get(run_id, set())] if run_id else list(self._sockets.values()):
            for event in events:
                event.set()

    async def _answered(self, scope: Scope, receive: Receive, send: Send, kind: RequestKind, serve: Serve) -> None:
        """Run *serve*; turn errors into answers, count, and log one line."""
        request_id = self.new_request_id()
        timing = Timing(arrived=_now())
        watched = _Watched(send)
        error: GreenroomError | None = None
        with log_context(request_id=request_id):
            try:
                await serve(ReplayReceive(receive), watched, timing, request_id)
            except GreenroomError as raised:
                error = raised
            except CallerGone:
                pass
            except Exception:
                _log.exception("a request met an internal error")
                error = GreenroomError(f"Greenroom had an internal error; its log tells more (request {request_id}).")
            if error is not None and watched.status is None:
                extra = [(b"x-actor-request-id", request_id.encode())]
                await replies.send_error(scope, watched, error, extra)
            self._account(scope, kind, timing, watched, error)

    def _account(
        self, scope: Scope, kind: RequestKind, timing: Timing, watched: _Watched, error: GreenroomError | None
    ) -> None:
        secs = _now() - timing.arrived
        held_secs = timing.admitted - timing.arrived if timing.run and timing.was_held else 0.0
        self.metrics.request(
            kind=kind,
            status=watched.status,
            was_cut=timing.was_cut,
            was_cold=timing.was_held if timing.run else None,
            secs=secs,
        )
        if held_secs:
            self.metrics.wake_seconds.observe(held_secs)
        _log.info(
            "%s %s %s",
            kind,
            scope.get("method", "WEBSOCKET"),
            "cut" if timing.was_cut else watched.status,
            extra={
                "run_id": timing.run.route.run_id if timing.run else None,
                "error_type": error.error_type if error else None,
                "duration_ms": round(secs * 1000, 1),
                "held_ms": round(held_secs * 1000, 1),
            },
        )

    async def _standby(
        self,
        scope: Scope,
        label: str,
        prefix: str,
        receive: ReplayReceive,
        send: Send,
        timing: Timing,
        request_id: str,
    ) -> None:
        target = self.directory.target(label)
        if target is None:
            raise RecordNotFound("Actor")
        headers: Headers = scope["headers"]
        if preflight.is_preflight(scope.get("method", ""), headers) and not self._is_warm_and_public(target):
            await replies.send_reply(scope, send, 204, preflight.preflight_answer(headers), b"")
            return
        caller = await caller_of(scope, target, self.auth)
        if target.generation is None:
            target = await self._looked_up_again(label, target)
        want = await self._want(target, caller)
        config = target.config
        pick_secs = config.pick_timeout_secs or self.settings.pick_timeout_secs
        first_byte_secs = config.first_byte_timeout_secs or self.settings.first_byte_timeout_secs
        avoid: set[str] = set()
        while True:
            async with self._slot(want, receive, timing, timing.arrived + pick_secs, avoid) as run:
                plan = self._plan(scope, run, request_id, caller.credentials, prefix)
                plan = replace(
                    plan,
                    keep_credentials=config.forward_credentials,
                    first_byte_deadline=timing.arrived + first_byte_secs,
                    stream_idle_timeout_secs=config.stream_idle_timeout_secs,
                    answer_headers=lambda: timing.header(_now()),
                )
                try:
                    await self._forward(scope, receive, send, plan, run, timing)
                except UpstreamRefused:
                    # Nothing was sent: the same request goes to another run, or waits until this one is probed again.
                    self.desk.refused(run)
                    avoid.add(run.route.run_id)
                    continue
                except UpstreamTimeout:
                    raise StandbyResponseTimeout(
                        f"The Actor took the request but sent no first byte within {first_byte_secs:.0f} s "
                        "(setting: first_byte_timeout_secs).",
                        data={"runId": run.route.run_id, "waitedSecs": round(_now() - timing.arrived, 1)},
                    ) from None
                return

    async def _live_view(
        self,
        scope: Scope,
        label: str,
        prefix: str,
        receive: ReplayReceive,
        send: Send,
        timing: Timing,
        request_id: str,
    ) -> None:
        run = self.desk.routes.by_label(label)
        if run is None:
            raise await self._why_no_view(label)
        credentials = await own_credentials(scope, self.auth)
        timing.run, timing.admitted = run, _now()
        self.desk.view(run)
        try:
            if run.route.address is None:
                raise await self._why_no_view(label)
            plan = self._plan(scope, run, request_id, credentials, prefix)
            plan = replace(plan, first_byte_deadline=timing.arrived + self.settings.first_byte_timeout_secs)
            await self._forward(scope, receive, send, plan, run, timing)
        except UpstreamRefused:
            # It may have ended a moment ago, before its route was taken back.
            raise await self._why_no_view(label) from None
        except UpstreamTimeout:
            raise StandbyResponseTimeout(
                f"The run sent no first byte within {self.settings.first_byte_timeout_secs:.0f} s "
                "(setting: first_byte_timeout_secs)."
            ) from None
        finally:
            self.desk.end_view(run)

    def _is_warm_and_public(self, target: StandbyTarget) -> bool:
        if not target.config.public or target.generation is None:
            return False
        return any(self.desk.routes.serving(target.pool_for(None), target.generation))

    async def _looked_up_again(self, label: str, target: StandbyTarget) -> StandbyTarget:
        """With the build that may have been finished in this moment: its maker's caller may be here already."""
        await self.directory.renew(target.actor_id)
        renewed = self.directory.target(label)
        return target if renewed is None else replace(target, generation=renewed.generation)

    async def _why_no_build(self, target: StandbyTarget) -> GreenroomError:
        wanted = target.config.build
        for build in await self.records.active_builds():
            if build.actor_id == target.actor_id and wanted in (build.tag, build.build_number):
                return FirstBuildUnderWay(build.id, build.build_number)
        return RecordNotFound(f"A build with the tag or number '{wanted}' of this Actor")

    async def _want(self, target: StandbyTarget, caller: Caller) -> Want:
        if not target.config.is_enabled:
            raise StandbyNotEnabled
        if target.generation is None:
            raise await self._why_no_build(target)
        if self.is_stopping:
            raise ShuttingDown
        user_id = caller.principal.user_id if caller.principal else None
        return Want(
            pool=target.pool_for(user_id),
            generation=target.generation,
            desired=target.config.desired_requests_per_run,
            limit=target.config.max_requests_per_run,
            idle_timeout_secs=target.config.idle_timeout_secs,
            caller=user_id or "",
            is_owner=user_id == target.owner_id,
        )

    @contextlib.asynccontextmanager
    async def _slot(
        self, want: Want, receive: ReplayReceive, timing: Timing, deadline: float, avoid: set[str]
    ) -> AsyncIterator[LiveRun]:
        """A slot, at once or after waiting; given back however the request ends."""
        run = self.desk.take(want, avoid=frozenset(avoid))
        if run is None:
            if self.is_stopping:  # its first run refused it meanwhile, and nothing is started any more
                raise ShuttingDown
            timing.was_held = True
            run = await self._wait_for_slot(want, receive, timing, deadline)
            avoid.clear()
        timing.run, timing.admitted = run, _now()
        try:
            yield run
        finally:
            self.desk.give_back(run)

    async def _wait_for_slot(self, want: Want, receive: ReplayReceive, timing: Timing, deadline: float) -> LiveRun:
        settled: asyncio.Future[LiveRun | GreenroomError] = asyncio.get_running_loop().create_future()
        held = Held(caller=want.caller, want=want, settle=lambda outcome: _settle(settled, outcome, self.desk))
        self.desk.hold(held)
        is_gone = False

        async def listen() -> None:
            nonlocal is_gone
            if await receive.wait_until_gone() and not settled.done():
                is_gone = True
                settled.cancel()

        try:
            async with asyncio.TaskGroup() as group:
                listener = group.create_task(listen())
                await asyncio.wait([settled], timeout=max(0.0, deadline - _now()))
                listener.cancel()
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
            raise self.desk.error_for_late(want, _now() - timing.arrived)
        outcome = settled.result()
        if isinstance(outcome, GreenroomError):
            raise outcome
        return outcome

    def _plan(self, scope: Scope, run: LiveRun, request_id: str, credentials: Credentials, prefix: str) -> ForwardPlan:
        address = run.route.address
        assert address is not None
        client = client_of(
            scope["client"][0] if scope.get("client") else "",
            scope["headers"],
            trusted=self.settings.trusted_proxies,
            scheme=self.settings.public_scheme,
        )
        return ForwardPlan(
            address=address,
            request_id=request_id,
            credentials=credentials,
            prefix=prefix,
            is_sandboxed=bool(prefix),
            client_host=client.address,
            proxies=client.proxies,
            scheme=client.scheme,
            host=host_of(scope).decode("latin-1"),
        )

    async def _forward(
        self, scope: Scope, receive: Receive, send: Send, plan: ForwardPlan, run: LiveRun, timing: Timing
    ) -> None:
        try:
            if scope["type"] == "http":
                await http.forward(scope, receive, send, plan, self.upstreams)
            else:
                await self._relay(scope, receive, send, plan, run)
        except UpstreamCut:
            # Returning without the rest makes the server cut the caller off: it never looks as if it were whole.
            timing.was_cut = True
        except (UpstreamRefused, UpstreamTimeout):
            raise
        except UpstreamError as error:
            raise StandbyBadGateway(
                f"The Actor's web server failed: {error} Its run is {run.route.run_id}; the run's log may tell why.",
                data={"runId": run.route.run_id},
            ) from error

    async def _relay(self, scope: Scope, receive: Receive, send: Send, plan: ForwardPlan, run: LiveRun) -> None:
        closing = asyncio.Event()
        sockets = self._sockets.setdefault(run.route.run_id, set())
        sockets.add(closing)
        try:
            with self.metrics.open_websocket():
                await websocket.relay(
                    scope,
                    receive,
                    send,
                    plan,
                    upstreams=self.upstreams,
                    max_message_bytes=self.settings.max_websocket_message_bytes,
                    closing=closing,
                )
        finally:
            sockets.discard(closing)
            if not sockets:
                self._sockets.pop(run.route.run_id, None)

    async def _why_no_view(self, label: str) -> GreenroomError:
        run = await self.records.run_by_live_view_label(label)
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


class _Watched:
    """An ASGI ``send`` that remembers the status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
        elif message["type"] == "websocket.accept":
            self.status = 101
        await self._send(message)


def _settle(
    settled: asyncio.Future[LiveRun | GreenroomError], outcome: LiveRun | GreenroomError, desk: SlotDesk
) -> None:
    if not settled.done():
        settled.set_result(outcome)
    elif isinstance(outcome, LiveRun):
        # Its caller left in this very moment: the slot was taken for nobody.
        desk.give_back(outcome)


def _now() -> float:
    # uvloop's own clock stands still within one round of the loop and counts whole milliseconds; both share an origin.
    return time.monotonic()
