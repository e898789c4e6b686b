"""
What is kept of each proxied request that has ended, at a cost that a data plane can bear: a line of log and a count.

Such a line holds nothing that anybody outside could have made up (the request id and the numbers are ours, the method
is one of the known), so it needs no redaction, and no ``LogRecord``. What ended is gathered for a moment, then counted
and written together; whatever else is logged meanwhile comes after it, as it happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from typing import IO, Literal, NamedTuple

from gateway.tallies import CLASSES, Outcome, Tally

_GATHER_SECS = 0.05
_MAX_GATHERED = 500
# In tenths of milliseconds, for most durations: to write a number costs as much as the rest of its line.
_MANY_DURATIONS = 2000
_DURATIONS = tuple(b"%.1f" % (number / 10) for number in range(_MANY_DURATIONS))

_log = logging.getLogger("gateway.requests")


class About(NamedTuple):
    """What many requests have in common: of what kind, to which run, failed by what; and where they are counted."""

    kind: str
    method: str | bytes
    run_id: str | None
    error_type: str | None
    tally: Tally | None = None


# How it ended, its id, when it came and ended (monotonic), and for how many seconds of that it was held.
Ended = tuple[About, Outcome, bytes, float, float, float]


class RequestLog:
    """
    Writes to the stream that ``configure_logging`` has set up; without that, through ``logging`` like everybody.

    To be used within one event loop. ``keep_order`` is called by that stream's handler before it writes a line.
    """

    def __init__(self) -> None:
        self._stream: IO[str] | None = None
        self._as_text = False
        self._gathered: list[Ended] = []
        self._timer: asyncio.TimerHandle | None = None
        self._thread: int | None = None

    def write_to(self, stream: IO[str], log_format: Literal["json", "text"]) -> None:
        """From now on, lines go there in this form."""
        self.flush()
        self._stream, self._as_text = stream, log_format == "text"

    def add(
        self,
        about: About,
        outcome: Outcome,
        request_id: bytes,
        arrived: float,
        now: float,
        held_secs: float = 0.0,
    ) -> None:
        """A request that *arrived* then has ended *now*, both on the monotonic clock."""
        gathered = self._gathered
        gathered.append((about, outcome, request_id, arrived, now, held_secs))
        if self._timer is None or len(gathered) >= _MAX_GATHERED:
            self._gather()

    def _gather(self) -> None:
        """The first since the last flush, or as many as may be kept."""
        if self._stream is None or self._timer is not None:
            self.flush()
        else:
            self._thread = threading.get_ident()
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECS, self.flush)

    def keep_order(self) -> None:
        """Somebody is about to write to the stream; threads other than the loop's have no order to keep."""
        if self._gathered and self._thread == threading.get_ident():
            self.flush()

    def flush(self) -> None:
        """Count and write what was gathered."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        last_about: About | None = None
        for about, outcome, _, arrived, now, _ in gathered:
            if about is not last_about:
                last_about, tally = about, about.tally
            if tally is not None:
                tally.add(CLASSES[outcome], now - arrived)
        if not _log.isEnabledFor(logging.INFO):
            return
        if self._stream is None:
            for one in gathered:
                _tell(one)
            return
        since_1970 = time.time() - time.monotonic()
        with contextlib.suppress(OSError, ValueError):  # a full disk stops no request
            self._stream.write(_written(gathered, since_1970, as_text=self._as_text))
            self._stream.flush()


def _written(ended: Iterable[Ended], since_1970: float, *, as_text: bool) -> str:
    """
    *ended* as it is written, in one loop: each request costs this.

    What lines have in common is made once for all that follow each other. *since_1970* is the time of day at which the
    monotonic clock was 0.
    """
    written: list[bytes] = []
    next_millisecond_at, time_text = 0.0, b""
    last_about: About | None = None
    last_outcome: Outcome = None
    start = before = after = b""
    to_held, end = (b" held_ms=", b"\n") if as_text else (b', "held_ms": ', b"}\n")
    unheld = to_held + b"0.0" + end
    for about, outcome, request_id, arrived, now, held_secs in ended:
        if about is not last_about or outcome != last_outcome:
            last_about, last_outcome = about, outcome
            before, after = _around_id(about, outcome, as_text=as_text)
            start = time_text + before
        if now >= next_millisecond_at:
            millisecond = int((now + since_1970) * 1000)
            next_millisecond_at = (millisecond + 1) / 1000 - since_1970
            time_text = _time_of_day(millisecond, as_text=as_text)
            start = time_text + before
        tenths = int((now - arrived) * 10_000 + 0.5)
        duration = _DURATIONS[tenths] if tenths < _MANY_DURATIONS else b"%.1f" % ((now - arrived) * 1000)
        last = to_held + b"%.1f" % (held_secs * 1000) + end if held_secs else unheld
        written += (start, request_id, after, duration, last)
    return b"".join(written).decode()


def _time_of_day(millisecond: int, *, as_text: bool) -> bytes:
    """With what stands before it."""
    second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millisecond // 1000))
    text = f"{second}.{millisecond % 1000:03d}"
    return text[11:].encode() if as_text else f'{{"time": "{text}Z"'.encode()


def _around_id(about: About, outcome: Outcome, *, as_text: bool) -> tuple[bytes, bytes]:
    """What stands between the time and the id of a request, and between that and its duration."""
    kind, method, run_id, error_type, _ = about
    message = f"{kind} {_word(method)} {outcome}"
    if as_text:
        parts = f" run_id={run_id}" if run_id else ""
        parts += f" error_type={error_type}" if error_type else ""
        return f" info    {message} request_id=".encode(), f"{parts} duration_ms=".encode()
    parts = f'"run_id": "{run_id}", ' if run_id else ""
    error = f'"{error_type}"' if error_type else "null"
    return (
        f', "level": "info", "logger": "gateway.requests", "message": "{message}", "request_id": "'.encode(),
        f'", {parts}"error_type": {error}, "duration_ms": '.encode(),
    )


def _tell(ended: Ended) -> None:
    """As everybody else does."""
    (kind, method, run_id, error_type, _), outcome, request_id, arrived, now, held_secs = ended
    extra = {
        "request_id": request_id.decode(),
        "run_id": run_id,
        "error_type": error_type,
        "duration_ms": round((now - arrived) * 1000, 1),
        "held_ms": round(held_secs * 1000, 1),
    }
    _log.info("%s %s %s", kind, _word(method), outcome, extra=extra)


def _word(said: str | bytes) -> str:
    return said if isinstance(said, str) else said.decode()


REQUEST_LOG = RequestLog()
"""That of this process."""
