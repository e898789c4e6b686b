"""What the ASGI way notes of a request's use of its run: whether it is any, and when something passed on it last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from gateway.proxy.asgi import Message, Send
from gateway.proxy.decisions import monotonic
from gateway.proxy.open_streams import OpenStream, ear_for
from gateway.proxy.route_table import LiveRun


@dataclass(slots=True, kw_only=True)
class Use:
    """
    Of one request: *is_none*, or use as long as it is open; with *silence_secs* only until it is silent for so long.
    """

    is_none: bool = False
    silence_secs: float | None = None
    stream: OpenStream | None = field(default=None, init=False)

    def used_at(self, now: float) -> float | None:
        """As ``SlotDesk.give_back`` wants it, when the request has ended *now*."""
        if self.is_none:
            return 0.0
        if self.stream is not None and self.stream.silent_at <= now:
            return self.stream.heard_at
        return None

    @contextlib.contextmanager
    def listening(self, run: LiveRun, send: Send, close: Callable[[], None]) -> Iterator[Send]:
        """
        *send*, by which it is noted that the answer has begun and that more of it comes. *close* ends the request.

        While it is entered, a silent answer of *run* is no use.
        """

        async def heard(message: Message) -> None:
            self._note(run, message, close)
            await send(message)

        try:
            yield send if self.silence_secs is None else heard
        finally:
            if self.stream is not None:
                run.streams.discard(self.stream)

    async def until_closed(self, run: LiveRun, send: Send, answer: Callable[[Send], Awaitable[None]]) -> bool:
        """Perform *answer*, unless it is silent and its run goes; False where it was cut off for that."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                with self.listening(run, send, lambda: limit.reschedule(loop.time())) as heard:
                    await answer(heard)
        except TimeoutError:
            if not limit.expired():
                raise
            return False
        return True

    def heard(self) -> None:
        """A message passed on a socket."""
        if self.stream is not None:
            self.stream.heard(monotonic())

    def _note(self, run: LiveRun, message: Message, close: Callable[[], None]) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.accept"):
            assert self.silence_secs is not None
            self.stream = OpenStream(self.silence_secs, monotonic(), lambda _code, _reason: close())
            if kind == "http.response.start":
                self.stream.ear = ear_for(list(message["headers"]), is_chunked=False)
            run.streams.add(self.stream)
        elif kind == "http.response.body" and self.stream is not None and message.get("body"):
            self.stream.hear((message["body"],), monotonic())
