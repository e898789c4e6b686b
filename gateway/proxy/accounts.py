"""What is counted and noted of each request at a proxied host, whichever way it went."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.errors import GreenroomError
from gateway.observability import Metrics, RequestKind, Temperature, status_class
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


class Accounts:
    """Counts each request that has ended, and logs one line of it."""

    def __init__(self, metrics: Metrics, log: RequestLog = REQUEST_LOG) -> None:
        self._metrics = metrics
        self._log = log

    def ended(
        self,
        kind: RequestKind,
        method: str,
        status: int | None,
        timing: Timing,
        request_id: str,
        error: GreenroomError | None,
        now: float,
    ) -> None:
        """A request of *timing* has ended *now*; *method* is a word, *status* None: nothing was answered."""
        secs, held_secs = now - timing.arrived, 0.0
        run = timing.run
        temperature: Temperature = "none"
        if run is not None:
            temperature = "warm"
            if timing.was_held:
                temperature, held_secs = "cold", timing.admitted - timing.arrived
                self._metrics.wake_seconds.observe(held_secs)
        was_cut = timing.was_cut
        self._metrics.tally(kind, temperature).add("cut" if was_cut else status_class(status), secs)
        self._log.line(
            kind,
            method,
            "cut" if was_cut else status,
            request_id,
            run.route.run_id if run is not None else None,
            error.error_type if error is not None else None,
            secs,
            held_secs,
        )
