"""
The worker's side of the held events sockets: passes connections on, and sends what their runs have to hear.

The holder (``gateway.event_holder``) keeps the sockets and says which runs have any. For each of those the worker that
*leads* watches the run's events, as if it held the sockets itself; of those that serve, the holder chooses one.

Where signals are each process's own, there are two workers only while one drains: by way of the holder it tells the
other what it still does and has changed. Shared signals tell that by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from gateway.core.demand import DemandReport, RunUse
from gateway.events import DONE, POLICY_VIOLATION, RUN_ENDED, UNKNOWN_RUN, is_events_secret, pending_frames
from gateway.holder_link import Link, open_link
from gateway.holder_messages import (
    Alive,
    Close,
    Dismissed,
    Gone,
    Held,
    Lead,
    LetGo,
    Message,
    Send,
    Take,
    Told,
    Use,
    Watching,
)
from gateway.proxy.hosts import Own, parse_host
from gateway.services import Services
from gateway.state.ports import Changed
from gateway.state.steady import steadily

_PATH = re.compile(rb"/events/([A-Za-z0-9]{1,64})/([A-Za-z0-9_-]{1,128})(?:\?.*)?")
_HANDSHAKE = frozenset({b"connection", b"upgrade", b"sec-websocket-key", b"sec-websocket-version", b"origin"})
# After either of them the process ends. Who adopts a run that was told so tells it again.
_ONCE = frozenset({"aborting", "migrating"})
_AGAIN_SECS = 1.0
_ANSWER_SECS = 2.0
_USE_EVERY_SECS = 0.5
_USE_TTL_SECS = 5.0
_ALIVE_EVERY_SECS = 1.0
# A worker that drains takes no new request for a run, so it can't have missed any change of a route.
_ALL_ROUTES_SEEN = 2**62


@dataclass(slots=True)
class _Follower:
    """What watches one run's events; ``has_looked`` once the subscription stands and the record was read."""

    task: asyncio.Task[None] | None = None
    has_looked: asyncio.Event = field(default_factory=asyncio.Event)


class HeldSockets:
    """
    ``running`` keeps the link to the holder; until it stands, and without a *rendezvous*, ``take`` refuses.

    *rendezvous* is the parent's socket to whichever holder there is (``holder_link.open_link``). Other messages than
    those about events sockets go to *hear*, and out by ``pass_on``.
    """

    def __init__(
        self,
        services: Services,
        rendezvous: socket.socket | None,
        *,
        hear: Callable[[Message], None] = lambda _: None,
    ) -> None:
        self._services = services
        self._rendezvous = rendezvous
        self._hear = hear
        self._link: Link | None = None
        self._serves = False
        self._answered = asyncio.Event()
        self._signals_are_own = services.settings.signals_url is None
        self._followers: dict[str, _Follower] = {}
        self._from_others: Counter[Changed] = Counter()
        self._group: asyncio.TaskGroup | None = None

    def take(self, method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], connection: int) -> bool:
        """
        Pass on the connection with this descriptor, which has sent an upgrade request, if it is for events.

        True: the holder has, or will have, a descriptor of its own, and the caller must drop the connection without
        shutting it down. Whether the run is there and lives is looked up afterwards.
        """
        if self._link is None or not self._answered.is_set() or method != "GET":
            return False
        asked = _PATH.fullmatch(target)
        headers = list(headers)
        hosts = [value for name, value in headers if name == b"host"]
        if asked is None or len(hosts) != 1 or parse_host(hosts[0], self._services.settings.domain) != Own():
            return False
        run_id, secret = asked[1].decode(), asked[2].decode()
        if not is_events_secret(self._services.box, run_id, secret):
            return False
        return self._link.send(Take(run_id, _head_of(headers)), os.dup(connection))

    def pass_on(self, message: Message) -> bool:
        """Send the other workers a message; False where no holder is linked to this one."""
        return self._link is not None and self._link.send(message)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the link, pass changes of records on, and follow the runs that have sockets; leaving it ends that."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            work: list[asyncio.Task[None]] = []
            if self._signals_are_own:
                work.append(group.create_task(steadily("the passing on of changes", self._pass_changes_on)))
            if self._rendezvous is not None:
                work.append(group.create_task(self._keep_link_for_ever(self._rendezvous)))
            try:
                yield
            finally:
                self._group = None
                for one in work:
                    one.cancel()

    async def lead(self) -> None:
        """
        From now on this worker sends the events, unless another one does; returns once all held runs are watched, or
        after some seconds.

        Enter it before anything is told to runs: who is not watched counts as not connected.
        """
        self._serves = True
        if self._rendezvous is None:
            return
        if self._link is not None:
            self._link.send(Lead())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_SECS):
                await self._answered.wait()
                for follower in list(self._followers.values()):
                    await follower.has_looked.wait()

    def let_go(self) -> None:
        """
        Another worker is about to serve: that one is to send the events, and this one goes on until it does.
        Connections are passed on as before.
        """
        self._serves = False
        if self._link is not None:
            self._link.send(LetGo())

    async def tell_use(self, report: Callable[[], DemandReport]) -> None:
        """
        Tell the worker that leads what this one still does, at once and then for ever; it counts some seconds. Not
        where signals are shared: there the worker's own report is enough.
        """
        while self._signals_are_own:
            if self._link is not None:
                present = report()
                uses = tuple(
                    (run_id, use.in_flight + use.silent, use.idle_secs, use.viewers)
                    for run_id, use in present.runs.items()
                    if use.is_used or use.silent or use.idle_secs < _USE_TTL_SECS
                )
                self._link.send(Use(present.gateway_id, uses))
            await asyncio.sleep(_USE_EVERY_SECS)

    async def _keep_link_for_ever(self, rendezvous: socket.socket) -> None:
        while True:
            await self._keep_link(rendezvous)
            await asyncio.sleep(_AGAIN_SECS)

    async def _keep_link(self, rendezvous: socket.socket) -> None:
        ended = asyncio.Event()
        try:
            link = Link(open_link(rendezvous), self._on_message, lambda _: ended.set())
        except OSError:  # too many wait for a holder that does not come
            return
        self._link = link
        try:
            if self._serves:
                link.send(Lead())
            while not self._signals_are_own and not ended.is_set():  # then there may be several workers
                link.send(Alive())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ALIVE_EVERY_SECS):
                        await ended.wait()
            await ended.wait()
        finally:
            self._link = None
            self._answered.clear()
            link.close()
            self._drop_all()

    def _on_message(self, _link: Link, message: Message, _descriptor: int | None) -> None:
        if self._group is None:
            return
        match message:
            case Held():
                # Answers to Lead find all that is held; a run that has ended meanwhile has ended properly.
                for run_id in message.runs:
                    self._follow(run_id, is_new=not message.is_answer)
                if message.is_answer:
                    self._answered.set()
                    self._group.create_task(self._say_when_watching())
            case Gone():
                self._drop(message.run_id)
            case Dismissed():
                self._drop_all()
                if self._serves:  # it was taken for stuck
                    self.pass_on(Lead())
            case Use():
                self._group.create_task(self._report(message))
            case Told():
                change = Changed(kind=message.kind, id=message.id)
                self._from_others[change] += 1
                self._group.create_task(self._services.state.signals.changed(change))
            case _:
                self._hear(message)

    # -- the runs that have sockets -------------------------------------------------------------------------------

    async def _say_when_watching(self) -> None:
        for follower in list(self._followers.values()):
            await follower.has_looked.wait()
        self._send(Watching())

    def _follow(self, run_id: str, *, is_new: bool) -> None:
        assert self._group is not None
        known = self._followers.get(run_id)
        if known is not None:
            self._group.create_task(steadily("an events socket", partial(self._look, run_id, is_new=is_new)))
            return
        follower = self._followers[run_id] = _Follower()
        work = partial(self._watch, run_id, follower, is_new=is_new)
        follower.task = self._group.create_task(steadily("an events socket", work))

    async def _watch(self, run_id: str, follower: _Follower, *, is_new: bool) -> None:
        async with self._services.state.signals.watch_events(run_id) as events:
            # Read once the subscription stands, so that an end or an abort can't fall between.
            await self._look(run_id, is_new=is_new)
            follower.has_looked.set()
            async for event in events:
                self._send_frames(run_id, event.frames)
                if event.ends:
                    self._send(Close(run_id, DONE, RUN_ENDED))

    async def _look(self, run_id: str, *, is_new: bool) -> None:
        run = await self._services.state.records.run(run_id)
        if run is None or run.status.is_terminal:
            refusal, end = Close(run_id, POLICY_VIOLATION, UNKNOWN_RUN), Close(run_id, DONE, RUN_ENDED)
            self._send(refusal if is_new else end)
        else:
            grace_secs = self._services.settings.migration_grace_secs
            self._send_frames(run_id, pending_frames(run, self._services.now(), grace_secs))

    def _send_frames(self, run_id: str, frames: Sequence[str]) -> None:
        if frames:
            name = frames[0].split('"', 4)[3]
            self._send(Send(run_id, name, tuple(frames), once=name in _ONCE))

    def _send(self, message: Message) -> None:
        if self._link is not None:
            self._link.send(message)

    def _drop(self, run_id: str) -> None:
        follower = self._followers.pop(run_id, None)
        if follower is not None and follower.task is not None:
            follower.task.cancel()
            follower.has_looked.set()  # there is nothing to wait for any more

    def _drop_all(self) -> None:
        for run_id in list(self._followers):
            self._drop(run_id)

    # -- the other worker, where signals are not shared ---------------------------------------------------------------

    async def _report(self, use: Use) -> None:
        signals = self._services.state.signals
        if not use.runs:
            await signals.forget_demand(use.gateway_id)
            return
        runs = {
            run_id: RunUse(in_flight=in_flight, idle_secs=idle_secs, viewers=viewers)
            for run_id, in_flight, idle_secs, viewers in use.runs
        }
        report = DemandReport(gateway_id=use.gateway_id, routes_seen=_ALL_ROUTES_SEEN, runs=runs)
        await signals.report_demand(report, ttl_secs=_USE_TTL_SECS)

    async def _pass_changes_on(self) -> None:
        async with self._services.state.signals.watch_changes() as changes:
            async for change in changes:
                if change in self._from_others:
                    self._from_others -= Counter([change])  # which drops what has come down to 0
                elif self._link is not None:
                    self._link.send(Told(change.kind, change.id))


def _head_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The request as far as the handshake needs it; the secret stays here."""
    lines = [b"%s: %s" % pair for pair in headers if pair[0] in _HANDSHAKE and pair[1].isascii()]
    return b"\r\n".join([b"GET /events HTTP/1.1", *lines, b"", b""]).decode("ascii")
