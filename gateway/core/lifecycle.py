"""
No I/O: the words for where a run stands, and the one table of allowed changes.

Status (the API's eight words)::

    READY ─→ RUNNING ─→ SUCCEEDED | FAILED
      │         ├─→ TIMING-OUT ─→ TIMED-OUT
      │         │        │
      └────→ ABORTING ←──┘ ─→ ABORTED          READY ─→ FAILED: could not be started
    a terminal status changes only by resurrect, back to READY

Readiness (Greenroom's own word for a live run): starting → serving ⇄ frozen → draining.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run or a build stands; the platform's words, verbatim."""

    READY = "READY"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMING_OUT = "TIMING-OUT"
    TIMED_OUT = "TIMED-OUT"
    ABORTING = "ABORTING"
    ABORTED = "ABORTED"

    @property
    def is_terminal(self) -> bool:
        """Whether this status is final."""
        return self in TERMINAL


class Readiness(StrEnum):
    """Whether a live run takes requests."""

    STARTING = "starting"
    SERVING = "serving"
    FROZEN = "frozen"
    DRAINING = "draining"


class StartOutcome(StrEnum):
    """How the start of a standby run went: it served, or why it never did."""

    SERVING = "serving"
    FAILED = "failed"
    FINISHED = "finished"
    NOT_READY = "not_ready"


TERMINAL = frozenset({RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.ABORTED})

MAX_RESTARTS_IN_WINDOW, RESTART_WINDOW_SECS = 3, 60.0

_ALLOWED: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.READY: frozenset({RunStatus.RUNNING, RunStatus.FAILED, RunStatus.ABORTING}),
    RunStatus.RUNNING: frozenset(
        {RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.TIMING_OUT, RunStatus.ABORTING},
    ),
    RunStatus.TIMING_OUT: frozenset({RunStatus.TIMED_OUT, RunStatus.ABORTING}),
    RunStatus.ABORTING: frozenset({RunStatus.ABORTED}),
}

_RESURRECTED: frozenset[RunStatus] = frozenset({RunStatus.READY})

_READINESS_ALLOWED: dict[Readiness, frozenset[Readiness]] = {
    Readiness.STARTING: frozenset({Readiness.SERVING, Readiness.DRAINING}),
    Readiness.SERVING: frozenset({Readiness.FROZEN, Readiness.DRAINING, Readiness.STARTING}),
    Readiness.FROZEN: frozenset({Readiness.SERVING, Readiness.DRAINING}),
    Readiness.DRAINING: frozenset(),
}


def may_change(old: RunStatus, new: RunStatus, *, resurrect: bool = False) -> bool:
    """Whether a run in *old* may become *new*; a terminal run only by *resurrect*."""
    if old.is_terminal:
        return resurrect and new in _RESURRECTED
    return new in _ALLOWED[old]


def may_become(old: Readiness, new: Readiness) -> bool:
    """
    Whether a live run's readiness may go from *old* to *new*.

    SERVING → STARTING is a run whose server refused a connection: it is probed again before it gets more.
    """
    return new in _READINESS_ALLOWED[old]


def may_restart_after_error(earlier: Sequence[float], now: float) -> bool:
    """
    Whether a program that has failed *now* may be started again, after such restarts at the *earlier* times (seconds of
    one clock): at most 3 within any 60 s. Source: apify-platform.md §3.8.
    """
    return sum(now - at < RESTART_WINDOW_SECS for at in earlier) < MAX_RESTARTS_IN_WINDOW


def status_after_exit(status: RunStatus, exit_code: int, *, wound_down: bool) -> RunStatus:
    """
    The terminal status of a run whose process ended with *exit_code* while it was in *status*.

    A wish that was stored first wins over the exit code: ABORTING ends ABORTED and TIMING-OUT ends TIMED-OUT
    even with exit code 0. A run that was *wound down* ends SUCCEEDED whatever the code, 137 included.
    Source: apify-platform.md §1.11, §3.1.
    """
    if status is RunStatus.ABORTING:
        return RunStatus.ABORTED
    if status is RunStatus.TIMING_OUT:
        return RunStatus.TIMED_OUT
    if wound_down or exit_code == 0:
        return RunStatus.SUCCEEDED
    return RunStatus.FAILED
