"""What is counted and noted of each request at a proxied host, whichever way it went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from gateway.core.errors import GreenroomError
from gateway.observability import Metrics, RequestKind, status_class
from gateway.proxy.plan import Headers
from gateway.proxy.route_table import LiveRun
from gateway.request_log import REQUEST_LOG, RequestLog


@dataclass(slots=True)
class Timing:
    """When what happened to one request, on the monotonic clock."""

    arrived: float
    admitted: float = 0.0
    was_held: bool = False
    was_cut: bool = False
    run: LiveRun | None = None

    def header(self, now: float) -> Headers:
        """``Server-Timing`` for one that was held, and what its run took to start; nothing for others."""
        value = self.told(now)
        return [(b"server-timing", value)] if value is not None else []

    def told(self, now: float) -> bytes | None:
        """The value of that header."""
        if not self.was_held or self.run is None:
            return None
        parts = [f"held;dur={(self.admitted - self.arrived) * 1000:.1f}"]
        route = self.run.route
        if route.start_secs is not None and route.ready_secs is not None:
            parts.append(f"start;dur={route.start_secs * 1000:.1f}")
            parts.append(f"ready;dur={route.ready_secs * 1000:.1f}")
        parts.append(f"forward;dur={(now - self.admitted) * 1000:.1f}")
        return ", ".join(parts).encode()


# By status, for all that can be answered; a look-up costs less than the question.
_CLASSES = tuple(status_class(status) for status in range(600))
_KINDS: tuple[RequestKind, ...] = get_args(RequestKind)


class Accounts:
    """Counts each request that has ended, and logs one line of it."""

    def __init__(self, metrics: Metrics, log: RequestLog = REQUEST_LOG) -> None:
        self._metrics = metrics
        self._warm = {kind: metrics.tally(kind, "warm") for kind in _KINDS}
        self._log = log

    def ended(
        self,
        kind: RequestKind,
        method: str | bytes,
        status: int | None,
        timing: Timing,
        request_id: str | bytes,
        error: GreenroomError | None,
        now: float,
    ) -> None:
        """A request of *timing* has ended *now*; *method* is a word, *status* None: nothing was answered."""
        secs, held_secs = now - timing.arrived, 0.0
        run, run_id = timing.run, None
        if run is None:
            tally = self._metrics.tally(kind, "none")
        else:
            run_id = run.route.run_id
            if not timing.was_held:
                tally = self._warm[kind]
            else:
                held_secs = timing.admitted - timing.arrived
                self._metrics.wake_seconds.observe(held_secs)
                tally = self._metrics.tally(kind, "cold")
        outcome: int | str | None = status
        if timing.was_cut:
            outcome = "cut"
            tally.add("cut", secs)
        else:
            tally.add("cut" if status is None else _CLASSES[status], secs)
        error_type = None if error is None else error.error_type
        self._log.line(kind, method, outcome, request_id, run_id, error_type, secs, held_secs)
