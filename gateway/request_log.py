"""
The one line of log of each proxied request, at a cost that a data plane can bear.

Such a line holds nothing that anybody outside could have made up (the request id and the numbers are ours, the method
is one of the known), so it needs no redaction, and no ``LogRecord``. Lines are gathered for a moment, then made and
written together; whatever else is logged meanwhile comes after them, as it happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterable
from typing import IO, Literal

_GATHER_SECS = 0.05
_MAX_GATHERED = 500

_log = logging.getLogger("gateway.requests")

# Seconds since 1970 when it ended, kind, method, outcome, request id, run id, error type, seconds, seconds held.
_Line = tuple[float, str, str | bytes, int | str | None, str | bytes, str | None, str | None, float, float]


class RequestLog:
    """
    Writes to the stream that ``configure_logging`` has set up; without that, through ``logging`` like everybody.

    To be used within one event loop. ``keep_order`` is called by that stream's handler before it writes a line.
    """

    def __init__(self) -> None:
        self._stream: IO[str] | None = None
        self._as_text = False
        self._lines: list[_Line] = []
        self._timer: asyncio.TimerHandle | None = None
        self._thread: int | None = None

    def write_to(self, stream: IO[str], log_format: Literal["json", "text"]) -> None:
        """From now on, lines go there in this form."""
        self.flush()
        self._stream, self._as_text = stream, log_format == "text"

    def line(
        self,
        kind: str,
        method: str | bytes,
        outcome: int | str | None,
        request_id: str | bytes,
        run_id: str | None,
        error_type: str | None,
        secs: float,
        held_secs: float,
    ) -> None:
        """A request has ended with *outcome*, its status or ``cut``."""
        lines = self._lines
        lines.append((time.time(), kind, method, outcome, request_id, run_id, error_type, secs, held_secs))
        if self._stream is None:
            self.flush()
        elif self._timer is None:
            self._thread = threading.get_ident()
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECS, self.flush)
        elif len(lines) >= _MAX_GATHERED:
            self.flush()

    def keep_order(self) -> None:
        """Somebody is about to write to the stream; threads other than the loop's have no order to keep."""
        if self._lines and self._thread == threading.get_ident():
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        lines, self._lines = self._lines, []
        if not lines or not _log.isEnabledFor(logging.INFO):
            return
        if self._stream is None:
            for line in lines:
                _tell(line)
            return
        with contextlib.suppress(OSError, ValueError):  # a full disk stops no request
            self._stream.write(_written(lines, as_text=self._as_text))
            self._stream.flush()


def _written(lines: Iterable[_Line], *, as_text: bool) -> str:
    """*lines* as they are written, in one loop: each request costs this."""
    written: list[str] = []
    last, time_text = -1, ""
    for at, kind, method, outcome, request_id, run_id, error_type, secs, held_secs in lines:
        millisecond = int(at * 1000)
        if millisecond != last:  # many have the same
            last = millisecond
            second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(millisecond // 1000))
            time_text = f"{second}.{millisecond % 1000:03d}Z"
        verb = method.decode() if isinstance(method, bytes) else method
        name = request_id.decode() if isinstance(request_id, bytes) else request_id
        held_ms = f"{held_secs * 1000:.1f}" if held_secs else "0.0"
        if as_text:
            about = f" run_id={run_id}" if run_id else ""
            about += f" error_type={error_type}" if error_type else ""
            written.append(
                f"{time_text[11:-1]} info    {kind} {verb} {outcome} request_id={name}{about} "
                f"duration_ms={secs * 1000:.1f} held_ms={held_ms}\n"
            )
        else:
            about = f'"run_id": "{run_id}", ' if run_id else ""
            error = f'"{error_type}"' if error_type else "null"
            written.append(
                f'{{"time": "{time_text}", "level": "info", "logger": "gateway.requests", '
                f'"message": "{kind} {verb} {outcome}", "request_id": "{name}", {about}'
                f'"error_type": {error}, "duration_ms": {secs * 1000:.1f}, "held_ms": {held_ms}}}\n'
            )
    return "".join(written)


def _tell(line: _Line) -> None:
    """As everybody else does."""
    _, kind, method, outcome, request_id, run_id, error_type, secs, held_secs = line
    extra = {
        "request_id": _word(request_id),
        "run_id": run_id,
        "error_type": error_type,
        "duration_ms": round(secs * 1000, 1),
        "held_ms": round(held_secs * 1000, 1),
    }
    _log.info("%s %s %s", kind, _word(method), outcome, extra=extra)


def _word(said: str | bytes) -> str:
    return said if isinstance(said, str) else said.decode()


REQUEST_LOG = RequestLog()
"""That of this process."""
