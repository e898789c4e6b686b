"""What is counted and noted of each request at a proxied host, whichever way it went."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.errors import GreenroomError
from gateway.observability import Metrics, RequestKind, Temperature
from gateway.proxy.plan import Headers
from gateway.proxy.route_table import LiveRun
from gateway.request_log import REQUEST_LOG, About, RequestLog


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


_MAX_KNOWN = 1024
_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long


class Accounts:
    """Counts each request that has ended, and logs one line of it; both a moment later, together with others."""

    def __init__(self, metrics: Metrics, log: RequestLog = REQUEST_LOG) -> None:
        self._metrics = metrics
        self._log = log
        # Of warm requests without an error, so that their lines find what they have in common made already.
        self._known: dict[tuple[RequestKind, str | bytes, str], About] = {}
        self.add = log.add
        """Note one that ``about`` describes."""
        metrics.gathered_by(log.flush)

    def about(self, kind: RequestKind, method: str | bytes, run_id: str) -> About:
        """What is common to all warm requests of *kind* and *method* to a run that are answered."""
        about = self._known.get((kind, method, run_id))
        if about is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            about = About(kind, method, run_id, None, self._metrics.tally(kind, "warm"))
            self._known[kind, method, run_id] = about
        return about

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
        run, held_secs = timing.run, 0.0
        if run is not None and not timing.was_held and error is None:
            about = self.about(kind, method, run.route.run_id)
        else:
            run_id = error_type = None
            temperature: Temperature = "none"
            if run is not None:
                run_id, temperature = run.route.run_id, "warm"
                if timing.was_held:
                    temperature = "cold"
                    held_secs = timing.admitted - timing.arrived
                    self._metrics.wake_seconds.observe(held_secs)
            if error is not None:
                error_type = error.error_type
            about = _new(About, (kind, method, run_id, error_type, self._metrics.tally(kind, temperature)))
        if isinstance(request_id, str):
            request_id = request_id.encode()
        self.add(about, "cut" if timing.was_cut else status, request_id, timing.arrived, now, held_secs)
