"""
The ASGI request path at proxied hosts, top to bottom: what the label means, who calls, which run, forward, give back.

What is decided stands in ``decisions``, which the protocol class asks too; this shell awaits and sends.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from gateway.core.errors import GreenroomError
from gateway.core.standby import StandbyTarget
from gateway.observability import Metrics, RequestKind, request_id_var
from gateway.proxy import http, preflight, replies, websocket
from gateway.proxy.accounts import Accounts, Timing
from gateway.proxy.asgi import Message, Receive, Scope, Send, raw_path_of, wire_of
from gateway.proxy.asgi_terms import Terms, TermsBook
from gateway.proxy.decisions import CallerGone, Decisions, bad_gateway, monotonic, no_first_byte
from gateway.proxy.open_sockets import OpenSockets
from gateway.proxy.plan import Errand, ForwardPlan, Headers
from gateway.proxy.replay import ReplayReceive
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Want
from gateway.proxy.upstream import UpstreamCut, UpstreamError, UpstreamRefused, Upstreams, UpstreamTimeout
from gateway.proxy.use import Use

_log = logging.getLogger(__name__)
_USUAL_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long


@dataclass(slots=True, kw_only=True)
class Admission:
    """Serves standby and live-view requests, HTTP and WebSocket, by host or by the path form."""

    decisions: Decisions
    upstreams: Upstreams
    metrics: Metrics
    new_request_id: Callable[[], str]
    sockets: OpenSockets = field(default_factory=OpenSockets)
    asking: int = 0
    """Requests of which the records are being asked whose they are."""
    _accounts: Accounts = field(init=False)
    _terms: TermsBook = field(init=False)

    def __post_init__(self) -> None:
        self._accounts = Accounts(self.metrics)
        terms = self._terms = TermsBook(self.decisions)
        self.metrics.watch_cache("terms", lambda: terms.hits, lambda: terms.misses)

    def standby(self, scope: Scope, receive: Receive, send: Send, label: str, prefix: str) -> Awaitable[None]:
        """Serve one request to a standby host; *prefix* is the path form's, empty at hosts."""
        return self._answered(_Errand(scope, receive, send, label, prefix, self.new_request_id()), "standby")

    def live_view(self, scope: Scope, receive: Receive, send: Send, label: str, prefix: str) -> Awaitable[None]:
        """Serve one request to a run's live-view host."""
        return self._answered(_Errand(scope, receive, send, label, prefix, self.new_request_id()), "live_view")

    def clear(self) -> None:
        """Forget what was seen."""
        self._terms.clear()

    async def _answered(self, errand: _Errand, kind: RequestKind) -> None:
        """Serve it; turn errors into answers, count, and log one line."""
        scope, request_id = errand.scope, errand.request_id
        error: GreenroomError | None = None
        told = request_id_var.set(request_id)
        try:
            try:
                await (self._standby(errand) if kind == "standby" else self._live_view(errand))
            except GreenroomError as raised:
                error = raised
            except CallerGone:
                pass
            except Exception:
                _log.exception("a request met an internal error")
                error = GreenroomError(f"Greenroom had an internal error; its log tells more (request {request_id}).")
            if error is not None and errand.status is None:
                extra = [(b"x-actor-request-id", request_id.encode())]
                await replies.send_error(scope, errand.send, error, extra)
            method = scope.get("method", "WEBSOCKET")
            if method not in _USUAL_METHODS and not _METHOD.fullmatch(method):
                method = "?"  # nothing else goes into the log
            self._accounts.ended(kind, method, errand.status, errand.timing, request_id, error, monotonic())
        finally:
            request_id_var.reset(told)

    async def _standby(self, errand: _Errand) -> None:
        decisions, scope, timing = self.decisions, errand.scope, errand.timing
        target = decisions.target(errand.label)
        if scope.get("method") == "OPTIONS" and self._is_preflight(target, scope["headers"]):
            await replies.send_reply(scope, errand.send, 204, preflight.preflight_answer(scope["headers"]), b"")
            return
        terms = self._terms.standby_at_once(scope, target, errand.prefix, timing.arrived)
        if terms is None:
            self.asking += 1
            try:
                terms = await self._terms.standby(scope, errand.label, target, errand.prefix)
            finally:
                self.asking -= 1
        want = terms.want
        assert want is not None
        use = _use(terms, errand)
        avoid: frozenset[str] = frozenset()
        while True:
            run = decisions.take(want, avoid)
            if run is None:
                run = await self._wait(errand, terms, want, use)
                avoid = frozenset()
            timing.run, timing.admitted = run, monotonic() if timing.was_held else timing.arrived
            try:
                await self._forward(errand, terms, run, use)
            except UpstreamRefused as refused:
                # Nothing was sent: the same request goes to another run, or waits until this one is probed again.
                if refused.taken is not None:
                    errand.listen().give_again(refused.taken)
                decisions.desk.refused(run)
                avoid = avoid | {run.route.run_id}
                continue
            except UpstreamTimeout:
                waited_secs = monotonic() - timing.arrived
                raise no_first_byte(run, waited_secs, terms.first_byte_secs, is_view=False) from None
            finally:
                decisions.desk.give_back(run, used_at=use.used_at(monotonic()) if use is not None else None)
            return

    async def _wait(self, errand: _Errand, terms: Terms, want: Want, use: Use | None) -> LiveRun:
        """A slot, taken, once there is one."""
        if use is not None and use.is_none:
            self.decisions.let_sleep(want)
        arrived = errand.timing.arrived
        errand.timing.was_held = True
        return await self.decisions.slot_later(
            want, arrived, arrived + terms.pick_secs, errand.listen().wait_until_gone
        )

    def _is_preflight(self, target: StandbyTarget, headers: Headers) -> bool:
        return preflight.is_preflight("OPTIONS", headers) and not self.decisions.is_warm_and_public(target)

    async def _live_view(self, errand: _Errand) -> None:
        decisions, timing, label = self.decisions, errand.timing, errand.label
        run = decisions.desk.routes.by_label(label)
        if run is None:
            raise await decisions.why_no_view(label)
        terms = self._terms.view_at_once(errand.scope, label, errand.prefix, timing.arrived)
        if terms is None:
            terms = await self._terms.view(errand.scope, label, errand.prefix)
        timing.run, timing.admitted = run, timing.arrived
        decisions.desk.view(run)
        try:
            if run.route.address is None:
                raise await decisions.why_no_view(label)
            if run.is_frozen:
                timing.was_held = True
                await decisions.until_awake(run, timing.arrived, errand.listen().wait_until_gone)
                timing.admitted = monotonic()
            await self._forward(errand, terms, run, None)
        except UpstreamRefused:
            # It may have ended a moment ago, before its route was taken back.
            raise await decisions.why_no_view(label) from None
        except UpstreamTimeout:
            raise no_first_byte(run, monotonic() - timing.arrived, terms.first_byte_secs, is_view=True) from None
        finally:
            decisions.desk.end_view(run)

    async def _forward(self, errand: _Errand, terms: Terms, run: LiveRun, use: Use | None) -> None:
        own = errand.of(run, terms)
        try:
            if errand.scope["type"] != "http":
                await self._relay(errand, replace(terms.plan, **own._asdict()), run, use or Use())
            elif terms.prepared is not None and (use is None or use.silence_secs is None):
                await http.forward(
                    errand.scope, errand.receive, errand.send, terms.plan, self.upstreams, own, terms.prepared
                )
            elif use is None or use.silence_secs is None:
                await self._answer(errand, terms, own, errand.send)
            elif not await use.until_closed(run, errand.send, lambda send: self._answer(errand, terms, own, send)):
                http.cut_here()
                errand.timing.was_cut = True
        except UpstreamCut:
            # Returning without the rest makes the server cut the caller off: it never looks as if it were whole.
            errand.timing.was_cut = True
        except (UpstreamRefused, UpstreamTimeout):
            raise
        except UpstreamError as error:
            raise bad_gateway(run, str(error)) from error

    async def _answer(self, errand: _Errand, terms: Terms, own: Errand, send: Send) -> None:
        plan, prepared = terms.plan, terms.prepared
        if prepared is None:
            plan = replace(plan, address=own.address)
        await http.forward(errand.scope, errand.receive, send, plan, self.upstreams, own, prepared)

    async def _relay(self, errand: _Errand, plan: ForwardPlan, run: LiveRun, use: Use) -> None:
        closing = websocket.Closing()
        with (
            self.sockets.open(run.route.run_id, closing.set),
            self.metrics.open_websocket(),
            use.listening(run, errand.send, closing.set) as send,
        ):
            await websocket.relay(
                errand.scope,
                errand.receive,
                send,
                plan,
                upstreams=self.upstreams,
                max_message_bytes=self.decisions.settings.max_websocket_message_bytes,
                closing=closing,
                on_activity=use.heard,
            )


class _Errand:
    """
    One request as it goes through here. ``send`` is the server's where that remembers the status, else ours does.
    """

    __slots__ = ("_send", "_status", "_wire", "label", "prefix", "receive", "request_id", "scope", "send", "timing")

    def __init__(self, scope: Scope, receive: Receive, send: Send, label: str, prefix: str, request_id: str) -> None:
        self.scope = scope
        self.receive = receive
        self._wire = wire_of(scope)
        self._send = send
        self.send = send if self._wire is not None else self._watched
        self.label = label
        self.prefix = prefix
        self.request_id = request_id
        self.timing = Timing(arrived=monotonic())
        self._status: int | None = None

    @property
    def status(self) -> int | None:
        """That of the answer, once it has begun."""
        return self._wire.status if self._wire is not None else self._status

    def listen(self) -> ReplayReceive:
        """What tells when the caller leaves while the request is held; the body is to be had from it from now on."""
        if not isinstance(self.receive, ReplayReceive):
            self.receive = ReplayReceive(self.receive, self._wire)
        return self.receive

    def of(self, run: LiveRun, terms: Terms) -> Errand:
        """What is this request's own, on its way to *run*."""
        address = run.route.address
        assert address is not None
        return _new(Errand, (address, self.request_id, self.timing.arrived + terms.first_byte_secs, self._own_headers))

    def _own_headers(self) -> Headers:
        own = [(b"x-actor-request-id", self.request_id.encode())]
        return [*own, *self.timing.header(monotonic())] if self.timing.was_held else own

    async def _watched(self, message: Message) -> None:
        if self._status is None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                self._status = message["status"]
            elif message["type"] == "websocket.accept":
                self._status = 101
        await self._send(message)


def _use(terms: Terms, errand: _Errand) -> Use | None:
    """Whether the request is use of its run; None: it is, for as long as it is open."""
    ignores = terms.ignores
    if ignores is None and terms.silence_secs is None:
        return None
    is_none = ignores is not None and ignores(raw_path_of(errand.scope)[len(errand.prefix) :])
    return Use(is_none=is_none, silence_secs=terms.silence_secs)
