"""
The ASGI request path at proxied hosts, top to bottom: what the label means, who calls, which run, forward, give back.

What is decided stands in ``decisions``, which the protocol class asks too; this shell awaits and sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

from gateway.client_address import client_of
from gateway.core.errors import GreenroomError
from gateway.observability import Metrics, RequestKind, log_context
from gateway.proxy import http, preflight, replies, websocket
from gateway.proxy.accounts import Accounts, Timing
from gateway.proxy.asgi import Message, Receive, Scope, Send, host_of, raw_path_of
from gateway.proxy.callers import caller_of, own_tokens
from gateway.proxy.decisions import CallerGone, Decisions, bad_gateway, monotonic, no_first_byte
from gateway.proxy.headers import candidates_of, credentials_of
from gateway.proxy.ignored import ignoring
from gateway.proxy.open_sockets import OpenSockets
from gateway.proxy.plan import Credentials, ForwardPlan, Headers
from gateway.proxy.replay import ReplayReceive
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Want
from gateway.proxy.upstream import UpstreamCut, UpstreamError, UpstreamRefused, Upstreams, UpstreamTimeout
from gateway.proxy.use import Use

_log = logging.getLogger(__name__)
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")

Serve = Callable[[ReplayReceive, Send, Timing, str], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Admission:
    """Serves standby and live-view requests, HTTP and WebSocket, by host or by the path form."""

    decisions: Decisions
    upstreams: Upstreams
    metrics: Metrics
    new_request_id: Callable[[], str]
    sockets: OpenSockets = field(default_factory=OpenSockets)
    _accounts: Accounts = field(init=False)

    def __post_init__(self) -> None:
        self._accounts = Accounts(self.metrics)

    async def standby(self, scope: Scope, receive: Receive, send: Send, label: str, prefix: str) -> None:
        """One request to a standby host; *prefix* is the path form's, empty at hosts."""
        await self._answered(scope, receive, send, "standby", partial(self._standby, scope, label, prefix))

    async def live_view(self, scope: Scope, receive: Receive, send: Send, label: str, prefix: str) -> None:
        """One request to a run's live-view host."""
        await self._answered(scope, receive, send, "live_view", partial(self._live_view, scope, label, prefix))

    async def _answered(self, scope: Scope, receive: Receive, send: Send, kind: RequestKind, serve: Serve) -> None:
        """Run *serve*; turn errors into answers, count, and log one line."""
        request_id = self.new_request_id()
        timing = Timing(arrived=monotonic())
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
            method = scope.get("method", "WEBSOCKET")
            method = method if _METHOD.fullmatch(method) else "?"  # nothing else goes into the log
            self._accounts.ended(kind, method, watched.status, timing, request_id, error, monotonic())

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
        decisions = self.decisions
        target = decisions.target(label)
        headers: Headers = scope["headers"]
        if preflight.is_preflight(scope.get("method", ""), headers) and not decisions.is_warm_and_public(target):
            await replies.send_reply(scope, send, 204, preflight.preflight_answer(headers), b"")
            return
        caller = await caller_of(_tokens(scope), target, decisions.auth)
        want = decisions.want(target, caller) or await decisions.want_with_build(label, target, caller)
        config, first_byte_secs = target.config, decisions.first_byte_secs(target)
        ignores = ignoring(config, lambda: headers)
        use = Use(
            is_none=ignores is not None and ignores(raw_path_of(scope)[len(prefix) :]),
            silence_secs=config.stream_silence_timeout_secs,
        )
        avoid: set[str] = set()
        while True:
            deadline = timing.arrived + decisions.pick_secs(target)
            async with self._slot(want, receive, timing, deadline, avoid, use) as run:
                plan = replace(
                    self._plan(scope, run, request_id, _credentials(scope, caller.own), prefix, timing),
                    keep_credentials=config.forward_credentials,
                    first_byte_deadline=timing.arrived + first_byte_secs,
                    stream_idle_timeout_secs=config.stream_idle_timeout_secs,
                )
                try:
                    await self._forward(scope, receive, send, plan, run, timing, use)
                except UpstreamRefused:
                    # Nothing was sent: the same request goes to another run, or waits until this one is probed again.
                    decisions.desk.refused(run)
                    avoid.add(run.route.run_id)
                    continue
                except UpstreamTimeout:
                    waited_secs = monotonic() - timing.arrived
                    raise no_first_byte(run, waited_secs, first_byte_secs, is_view=False) from None
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
        decisions = self.decisions
        run = decisions.desk.routes.by_label(label)
        if run is None:
            raise await decisions.why_no_view(label)
        credentials = _credentials(scope, await own_tokens(_tokens(scope), decisions.auth))
        timing.run, timing.admitted = run, monotonic()
        first_byte_secs = decisions.first_byte_secs(None)
        decisions.desk.view(run)
        try:
            if run.route.address is None:
                raise await decisions.why_no_view(label)
            if run.is_frozen:
                timing.was_held = True
                await decisions.until_awake(run, timing.arrived, receive.wait_until_gone)
                timing.admitted = monotonic()
            plan = self._plan(scope, run, request_id, credentials, prefix, timing)
            plan = replace(plan, first_byte_deadline=timing.arrived + first_byte_secs)
            await self._forward(scope, receive, send, plan, run, timing, Use())
        except UpstreamRefused:
            # It may have ended a moment ago, before its route was taken back.
            raise await decisions.why_no_view(label) from None
        except UpstreamTimeout:
            raise no_first_byte(run, monotonic() - timing.arrived, first_byte_secs, is_view=True) from None
        finally:
            decisions.desk.end_view(run)

    @contextlib.asynccontextmanager
    async def _slot(
        self, want: Want, receive: ReplayReceive, timing: Timing, deadline: float, avoid: set[str], use: Use
    ) -> AsyncIterator[LiveRun]:
        """A slot, at once or after waiting; given back however the request ends."""
        run = self.decisions.take(want, frozenset(avoid))
        if run is None:
            if use.is_none:
                self.decisions.let_sleep(want)
            timing.was_held = True
            run = await self.decisions.slot_later(want, timing.arrived, deadline, receive.wait_until_gone)
            avoid.clear()
        timing.run, timing.admitted = run, monotonic()
        try:
            yield run
        finally:
            self.decisions.desk.give_back(run, used_at=use.used_at(monotonic()))

    def _plan(
        self, scope: Scope, run: LiveRun, request_id: str, credentials: Credentials, prefix: str, timing: Timing
    ) -> ForwardPlan:
        settings = self.decisions.settings
        address = run.route.address
        assert address is not None
        client = client_of(
            scope["client"][0] if scope.get("client") else "",
            scope["headers"],
            trusted=settings.trusted_proxies,
            scheme="https" if scope.get("scheme") in ("https", "wss") else settings.public_scheme,
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
            answer_headers=lambda: [
                (b"x-actor-request-id", request_id.encode("latin-1")),
                *timing.header(monotonic()),
            ],
        )

    async def _forward(
        self, scope: Scope, receive: Receive, send: Send, plan: ForwardPlan, run: LiveRun, timing: Timing, use: Use
    ) -> None:
        try:
            if scope["type"] != "http":
                await self._relay(scope, receive, send, plan, run, use)
            elif use.silence_secs is None:
                await http.forward(scope, receive, send, plan, self.upstreams)
            elif not await use.until_closed(run, send, lambda send: self._answer(scope, receive, send, plan)):
                http.cut_here()
                timing.was_cut = True
        except UpstreamCut:
            # Returning without the rest makes the server cut the caller off: it never looks as if it were whole.
            timing.was_cut = True
        except (UpstreamRefused, UpstreamTimeout):
            raise
        except UpstreamError as error:
            raise bad_gateway(run, str(error)) from error

    async def _answer(self, scope: Scope, receive: Receive, send: Send, plan: ForwardPlan) -> None:
        await http.forward(scope, receive, send, plan, self.upstreams)

    async def _relay(
        self, scope: Scope, receive: Receive, send: Send, plan: ForwardPlan, run: LiveRun, use: Use
    ) -> None:
        closing = asyncio.Event()
        with (
            self.sockets.open(run.route.run_id, lambda _code, _reason: closing.set()),
            self.metrics.open_websocket(),
            use.listening(run, send, closing.set) as send,
        ):
            await websocket.relay(
                scope,
                receive,
                send,
                plan,
                upstreams=self.upstreams,
                max_message_bytes=self.decisions.settings.max_websocket_message_bytes,
                closing=closing,
                on_activity=use.heard,
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


def _tokens(scope: Scope) -> list[str]:
    return candidates_of(scope["headers"], scope["query_string"])


def _credentials(scope: Scope, own: frozenset[str]) -> Credentials:
    return credentials_of(scope["headers"], scope["query_string"], own)
