"""
Every metric and every log field, declared once.

Labels are bounded: no user, Actor, host or path ever becomes one. Log lines carry the request id and run id of their
context, and pass a redaction, so that no token is ever written.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Any, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from gateway.core.lifecycle import TERMINAL, Readiness, RunStatus, StartOutcome
from gateway.core.times import iso
from gateway.request_log import REQUEST_LOG
from gateway.signals_metrics import SignalsSeries
from gateway.state.ports import Signals
from gateway.tallies import StatusClass, Tallies, Tally, status_class

# A time of making for each series would double their number and answers no question.
disable_created_metrics()  # type: ignore[no-untyped-call]

# --- metrics ----------------------------------------------------------------------------------------------------------

RequestKind = Literal["standby", "live_view", "api", "own"]
Temperature = Literal["warm", "cold", "none"]

_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_WAKE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)


class Metrics:
    """
    The figures of one process, in a registry of its own.

    Requests are counted in plain numbers, which become series when somebody looks: prometheus-client's own counters
    take a lock each, and would cost as much as all else that the gateway does with a warm request.
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._tallies = Tallies(get_args(RequestKind), get_args(StatusClass), get_args(Temperature), _REQUEST_BUCKETS)
        registry.register(self._tallies)
        self.wake_seconds = Histogram(
            "greenroom_wake_seconds",
            "From a request that had to wait until a run had room for it.",
            buckets=_WAKE_BUCKETS,
            registry=registry,
        )
        self.held_requests = Gauge(
            "greenroom_held_requests", "Requests that wait for a run with room.", registry=registry
        )
        self.requests_in_flight = Gauge(
            "greenroom_requests_in_flight", "Requests that a run is working on.", registry=registry
        )
        self._websockets_open = Gauge("greenroom_websockets_open", "WebSockets that are relayed.", registry=registry)
        runs = Gauge("greenroom_runs", "Live runs, by readiness.", ("readiness",), registry=registry)
        self._runs = {readiness: runs.labels(str(readiness)) for readiness in Readiness}
        starts = Counter("greenroom_run_starts", "Starts of standby runs, by outcome.", ("outcome",), registry=registry)
        self._starts = {outcome: starts.labels(str(outcome)) for outcome in StartOutcome}
        ends = Counter("greenroom_run_ends", "Runs that have ended, by status.", ("status",), registry=registry)
        self._ends = {status: ends.labels(str(status)) for status in RunStatus if status in TERMINAL}
        self.freezes = Counter("greenroom_run_freezes", "Times that an unused run was frozen.", registry=registry)
        self.resumes = Counter("greenroom_run_resumes", "Times that a frozen run went on.", registry=registry)
        quarantines = Counter(
            "greenroom_quarantines",
            "Pauses in the starts of a pool, by what failed: its starts, or its runs soon after.",
            ("cause",),
            registry=registry,
        )
        self.quarantined_pools = Gauge(
            "greenroom_quarantined_pools", "Pools whose starts have failed too often.", registry=registry
        )
        self._quarantines = {cause: quarantines.labels(cause) for cause in ("starts", "crashes")}
        self.decisions = Counter(
            "greenroom_autoscaler_decisions", "Changes of the autoscaler's mind about a pool.", registry=registry
        )

    def request(
        self, *, kind: str, status: int | None, was_cut: bool = False, was_cold: bool | None = None, secs: float
    ) -> None:
        """
        Count one request that has ended; *kind* is a ``RequestKind``.

        *status* None: nothing was answered. *was_cold* None: no run was involved.
        """
        temperature: Temperature = "none" if was_cold is None else "cold" if was_cold else "warm"
        self._tallies.of[kind, temperature].add("cut" if was_cut else status_class(status), secs)

    def tally(self, kind: RequestKind, temperature: Temperature) -> Tally:
        """Where requests of this kind are counted, for who counts many of them."""
        return self._tallies.of[kind, temperature]

    def gathered_by(self, flush: Callable[[], None]) -> None:
        """What is counted in batches is to be had by *flush*, before anybody looks."""
        self._tallies.before_shown = flush

    def watch_cache(self, cache: str, hits: Callable[[], int], misses: Callable[[], int]) -> None:
        """
        Show how often the *cache* of heads had what was looked for: ``request``, ``answer``, or ``terms``, which is
        what is decided of the heads that go by the ASGI way.
        """
        self._tallies.caches[cache] = (hits, misses)

    def watch_certificates(self, first_expiry: Callable[[], datetime], is_stale: Callable[[], bool]) -> None:
        """Show until when the certificates of the TLS port hold, and whether one could not be renewed."""
        Gauge(
            "greenroom_tls_expiry_seconds", "When the first of the TLS certificates expires.", registry=self._registry
        ).set_function(lambda: first_expiry().timestamp())
        Gauge(
            "greenroom_tls_files_unusable",
            "1 while files of certificates can't be used, and older ones serve in their place.",
            registry=self._registry,
        ).set_function(lambda: float(is_stale()))

    def watch_lead(self, leads: Callable[[], bool]) -> None:
        """Show whether this process is the autoscaler that leads."""
        Gauge("greenroom_autoscaler_leads", "1 in the one autoscaler that acts.", registry=self._registry).set_function(
            lambda: float(leads())
        )

    def watch_signals(self, signals: Signals) -> None:
        """Show whether the *signals* can be reached, and what is asked of their server."""
        self._registry.register(SignalsSeries(signals))

    def open_websocket(self) -> AbstractContextManager[None]:
        """While it is entered, one more WebSocket is open."""
        return self._websockets_open.track_inprogress()

    def count_websockets(self, more: int) -> None:
        """So many more are open, or fewer."""
        self._websockets_open.inc(more)

    def count_start(self, outcome: StartOutcome) -> None:
        """Count one start of a standby run, once it is known how it went."""
        self._starts[outcome].inc()

    def count_end(self, status: RunStatus) -> None:
        """Count one run that has ended in the terminal *status*."""
        self._ends[status].inc()

    def set_runs(self, counts: Mapping[Readiness, int]) -> None:
        """How many runs live now; those not named are none."""
        for readiness, gauge in self._runs.items():
            gauge.set(counts.get(readiness, 0))

    def count_quarantine(self, is_for_crashes: bool) -> None:
        """Count one pause in which nothing is started for a pool."""
        self._quarantines["crashes" if is_for_crashes else "starts"].inc()

    def render(self) -> tuple[bytes, str]:
        """Body and content type of ``GET /metrics``."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


# --- what a log line is about -----------------------------------------------------------------------------------------

request_id_var: ContextVar[str | None] = ContextVar("request_id", default=None)
run_id_var: ContextVar[str | None] = ContextVar("run_id", default=None)


@contextmanager
def log_context(*, request_id: str | None = None, run_id: str | None = None) -> Iterator[None]:
    """Log lines inside are about this request and run; what is not given stays as it is."""
    tokens = [
        (variable, variable.set(value))
        for variable, value in ((request_id_var, request_id), (run_id_var, run_id))
        if value is not None
    ]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


# --- redaction --------------------------------------------------------------------------------------------------------

REDACTED = "[redacted]"

_REDACTIONS: tuple[tuple[re.Pattern[str], str], ...] = (
    # Greenroom's own tokens and the platform's, wherever they stand.
    (re.compile(r"((?:greenroom|apify)_[a-z]+_)[A-Za-z0-9]{6,}"), rf"\1{REDACTED}"),
    # ?token=… in a URL, also where that URL is itself an encoded parameter (token%3D…).
    (re.compile(r"(?i)(token(?:=|%3d))[^\s&\"'#<>]+"), rf"\1{REDACTED}"),
    # A header as text, as a dict's item or as a pair of bytes: the scheme goes along.
    (
        re.compile(
            r"""(?i)(authorization\\?['"]?\s*[:=,]\s*b?\\?['"]?)(?:[a-z][\w-]*[ \t]+)?"""
            r"""(?:\[redacted\]|[^\s'",;)\]}\\]+)"""
        ),
        rf"\1{REDACTED}",
    ),
    (re.compile(r"(?i)(\bbearer[ \t]+)[a-z0-9._~+/=-]+"), rf"\1{REDACTED}"),
    # The events-socket address of a run carries a secret.
    (re.compile(r"(/events/[A-Za-z0-9]+/)[A-Za-z0-9]+"), rf"\1{REDACTED}"),
)
_SECRET_FIELDS = re.compile(r"(?i)(authorization|cookie|password|secret|token)$")


class Redaction:
    """Takes secrets out of texts; *secrets* are exact ones to remove besides those that look like tokens."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)

    def text(self, text: str) -> str:
        """*text* without what looks like a token."""
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        for pattern, replacement in _REDACTIONS:
            text = pattern.sub(replacement, text)
        return text

    def value(self, value: Any, name: str = "") -> Any:
        """*value* as JSON can hold it, without secrets: by their look, and by the *name* of the field."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if name and _SECRET_FIELDS.search(name):
            return REDACTED
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item, str(key)) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        return self.text(str(value))


# --- logging ----------------------------------------------------------------------------------------------------------

LogFormat = Literal["auto", "json", "text"]

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "taskName", "color_message", "request_id", "run_id",
}  # fmt: skip


class _Formatter(logging.Formatter):
    def __init__(self, redaction: Redaction) -> None:
        super().__init__()
        self._redaction = redaction

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What the line says, ready to be written."""
        fields: dict[str, Any] = {
            "time": iso(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redaction.text(record.getMessage()),
        }
        for name, variable in (("request_id", request_id_var), ("run_id", run_id_var)):
            value = getattr(record, name, None) or variable.get()
            if value is not None:
                fields[name] = self._redaction.text(str(value))
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS:
                fields.setdefault(name, self._redaction.value(value, name))
        if record.exc_info:
            fields["exception"] = self._redaction.text(self.formatException(record.exc_info))
        if record.stack_info:
            fields["stack"] = self._redaction.text(record.stack_info)
        return fields


class JsonFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.fields(record), ensure_ascii=False, default=str)


class TextFormatter(_Formatter):
    """For terminals: time, level, message, then the other fields."""

    def format(self, record: logging.LogRecord) -> str:
        fields = self.fields(record)
        time, level, _, message = (fields.pop(name) for name in ("time", "level", "logger", "message"))
        blocks = [fields.pop(name) for name in ("exception", "stack") if name in fields]
        about = "".join(f" {name}={value}" for name, value in fields.items() if value is not None)
        return "\n".join([f"{time[11:-1]} {level:<7} {message}{about}", *blocks])


class _Handler(logging.StreamHandler[IO[str]]):
    """Writes after the lines of requests that have ended before."""

    def emit(self, record: logging.LogRecord) -> None:
        REQUEST_LOG.keep_order()
        super().emit(record)


def configure_logging(
    log_format: LogFormat, level: str, *, secrets: Sequence[str] = (), stream: IO[str] | None = None
) -> None:
    """
    Send all logging of this process to standard error (or *stream*): the one handler of the root logger.

    ``auto`` is text on a terminal, else JSON. *secrets* never appear, whatever they look like.
    """
    stream = stream or sys.stderr
    as_text = log_format == "text" or (log_format == "auto" and stream.isatty())
    redaction = Redaction(secrets)
    handler = _Handler(stream)
    REQUEST_LOG.write_to(stream, "text" if as_text else "json")
    handler.setFormatter(TextFormatter(redaction) if as_text else JsonFormatter(redaction))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # These tell their own story at length, some with every URL; Greenroom's own lines say what matters.
    for noisy in ("alembic", "httpx", "httpcore", "uvicorn", "websockets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
