"""
No I/O: how a run's record changes over its life, whoever asks; each function gives the new record, None for "leave it".

Stored by compare-and-set (``gateway.state.changes``), so these may be called several times and have no effects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.core.lifecycle import RunStatus, may_change, status_after_exit
from gateway.core.model import MEMORY_STEPS_MBYTES, AbortWish, RestartKind, RestartWish, Run
from gateway.core.texts import storable

MAX_STATUS_MESSAGE_CHARS = 1000

# A restart that is wished for → the counter in the run's stats.
_COUNTED_AS = {
    RestartKind.REBOOT: "rebootCount",
    RestartKind.MIGRATION: "migrationCount",
    RestartKind.MIGRATION_NOW: "migrationCount",
    RestartKind.AFTER_ERROR: "restartCount",
}


def started(run: Run, placement: Mapping[str, Any], *, is_serving: bool = False) -> Run | None:
    """Its process exists, and serves already. A run that is being aborted keeps its status but learns where it is."""
    if run.status.is_terminal:
        return None
    status = RunStatus.RUNNING if may_change(run.status, RunStatus.RUNNING) else run.status
    is_ready = is_serving or run.is_container_server_ready
    return replace(run, status=status, placement=dict(placement), is_container_server_ready=is_ready)


def serving(run: Run) -> Run | None:
    """Its web server has answered the probe."""
    if run.is_container_server_ready or run.status.is_terminal:
        return None
    return replace(run, is_container_server_ready=True)


def winding_down(run: Run, reason: str) -> Run | None:
    """It is about to be stopped for want of use; however its process ends now, it has succeeded."""
    if run.status.is_terminal or run.wound_down_because is not None:
        return None
    return replace(run, wound_down_because=reason)


def timing_out(run: Run) -> Run | None:
    """Its time is over."""
    return replace(run, status=RunStatus.TIMING_OUT) if may_change(run.status, RunStatus.TIMING_OUT) else None


def aborting(run: Run, wish: AbortWish) -> Run | None:
    """
    Somebody wants it to end. A second graceful wish joins the open window, a hard one cancels the window.

    Source: apify-platform.md §3.1 (race rules).
    """
    if run.status is RunStatus.ABORTING:
        is_harder = not wish.gracefully and (run.abort_wish is None or run.abort_wish.gracefully)
        return replace(run, abort_wish=wish) if is_harder else None
    if not may_change(run.status, RunStatus.ABORTING):
        return None
    return replace(run, status=RunStatus.ABORTING, abort_wish=wish)


def restart_wished(run: Run, wish: RestartWish) -> Run | None:
    """
    Somebody wants its program to be started again. That joins a restart which is wished for already; but a reboot ends
    the time that a migration leaves (SDKs ask for one when they hear of it), and counts as that migration.
    """
    if run.status is not RunStatus.RUNNING:
        return None
    if run.restart_wish is None:
        return replace(run, restart_wish=wish)
    return migration_due(run) if wish.kind is RestartKind.REBOOT else None


def migration_due(run: Run) -> Run | None:
    """The time that a migration leaves is over: however its process ends from now on, it is started again."""
    wish = run.restart_wish
    if run.status is not RunStatus.RUNNING or wish is None or wish.kind is not RestartKind.MIGRATION:
        return None
    return replace(run, restart_wish=replace(wish, kind=RestartKind.MIGRATION_NOW))


def restarted(run: Run, placement: Mapping[str, Any]) -> Run | None:
    """Its program has been started again as was wished; what was known of its web server holds no more."""
    wish = run.restart_wish
    if run.status.is_terminal or wish is None:
        return None
    counter = _COUNTED_AS[wish.kind]
    return replace(
        run,
        restart_wish=None,
        stats={**run.stats, counter: run.stats.get(counter, 0) + 1},
        placement=dict(placement),
        is_container_server_ready=False,
    )


def failed_to_start(run: Run, now: datetime, why: str) -> Run | None:
    """
    There is no process and there will be none (any more). A run that somebody was aborting meanwhile ends as ABORTED,
    one that was being wound down as SUCCEEDED.
    """
    if run.status.is_terminal:
        return None
    ends = {RunStatus.ABORTING: RunStatus.ABORTED, RunStatus.TIMING_OUT: RunStatus.TIMED_OUT}
    if run.wound_down_because is not None:
        ends[RunStatus.RUNNING] = RunStatus.SUCCEEDED
    return _ended(replace(run, status=ends.get(run.status, RunStatus.FAILED)), now, why)


def is_to_go_on(run: Run, exit_code: int) -> bool:
    """
    Whether the process that ended with *exit_code* is only to be followed by another one.

    While a migration leaves it time, exit code 0 means that it is done; all else that it wants to be started again.
    Source: apify-platform.md §3.3.
    """
    wish = run.restart_wish
    if run.status is not RunStatus.RUNNING or run.wound_down_because is not None or wish is None:
        return False
    return exit_code != 0 or wish.kind is not RestartKind.MIGRATION


def failed_but_restarts(run: Run, now: datetime, exit_code: int) -> Run | None:
    """
    Its process has failed, and its options say that it is started again then; None where this failure is its end.

    A standby run is not: the next request starts another. Nor is one that has said itself that it failed.
    """
    # A process can fail before its start was recorded; then it has been running all the same.
    is_live = run.status in (RunStatus.READY, RunStatus.RUNNING) and run.wound_down_because is None
    if not is_live or exit_code == 0 or run.restart_wish is not None:
        return None
    if not run.options.restart_on_error or run.pool_id is not None or run.is_status_message_terminal:
        return None
    wish = RestartWish(kind=RestartKind.AFTER_ERROR, requested_at=now)
    return replace(run, status=RunStatus.RUNNING, restart_wish=wish)


def exited(
    run: Run, now: datetime, exit_code: int, reason: str | None, *, load: Mapping[str, Any] | None = None
) -> Run | None:
    """
    Its process has ended with *exit_code*; *reason* is what the launcher knows beyond the code, *load* goes into its
    stats. None also for a run that goes on.
    """
    if run.status.is_terminal or is_to_go_on(run, exit_code):
        return None
    # A process can end before its start was recorded; then it has been running all the same.
    present = RunStatus.RUNNING if run.status is RunStatus.READY else run.status
    final = status_after_exit(present, exit_code, wound_down=run.wound_down_because is not None)
    ended = replace(run, status=final, exit_code=exit_code, stats={**run.stats, **(load or {})})
    return _ended(ended, now, reason or _default_message(run, exit_code))


def out_of_memory(memory_mbytes: int) -> str:
    """Why a run that had *memory_mbytes* was killed, and what to do: ``Out of memory (128 MiB): … with 256 MiB.``"""
    larger = next((step for step in MEMORY_STEPS_MBYTES if step > memory_mbytes), None)
    advice = "no run may have more, so make it use less" if larger is None else f"start it with {larger} MiB"
    return f"Out of memory ({memory_mbytes} MiB): {advice}."


def _default_message(run: Run, exit_code: int) -> str:
    if run.status is RunStatus.ABORTING:
        why = run.abort_wish.reason if run.abort_wish else None
        return f"Actor run was aborted: {why}." if why else "Actor run was aborted."
    if run.status is RunStatus.TIMING_OUT:
        return f"Actor run exceeded its timeout of {run.options.timeout_secs} s."
    if run.wound_down_because is not None:
        return f"Actor Standby run was finished: {run.wound_down_because}."
    return f"Actor finished with exit code {exit_code}"


def lasted_stats(run: Run, now: datetime) -> dict[str, Any]:
    """What a run's ``stats`` say at *now* of how long it has lasted."""
    lasted = max(0.0, (now - run.started_at).total_seconds())
    return {
        "durationMillis": int(lasted * 1000),
        "runTimeSecs": round(lasted, 3),
        "computeUnits": round(run.options.memory_mbytes / 1024 * lasted / 3600, 6),
    }


def _ended(run: Run, now: datetime, message: str) -> Run:
    ended = replace(run, finished_at=now, stats={**run.stats, **lasted_stats(run, now)}, restart_wish=None)
    # Given words win over the defaults, unless the system knows what they can't have meant. Who aborts a run may say
    # why just before (the SDKs' ``abort`` does); where the system aborts it, the wish has the reason.
    is_by_wish = ended.status is RunStatus.ABORTED and (run.abort_wish is None or run.abort_wish.reason is None)
    if run.is_status_message_terminal or (run.status_message and (is_by_wish or ended.status is RunStatus.SUCCEEDED)):
        return ended
    return replace(ended, status_message=storable(message, MAX_STATUS_MESSAGE_CHARS))
