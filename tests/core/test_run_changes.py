"""How a run's record changes over its life: the table is followed, whatever happens in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import run_changes
from gateway.core.lifecycle import RunStatus, may_change
from gateway.core.model import AbortWish, Origin, RestartKind, RestartWish, Run, RunOptions

S = RunStatus
K = RestartKind
AT = datetime(2026, 1, 2, tzinfo=UTC)
LATER = AT + timedelta(seconds=90, milliseconds=500)
RUN = Run(
    id="r",
    actor_id="a",
    user_id="u",
    build_id="b",
    build_number="0.1.1",
    status=S.READY,
    started_at=AT,
    origin=Origin.API,
    options=RunOptions(timeout_secs=60, memory_mbytes=2048),
    live_view_label="label",
    default_key_value_store_id="k",
    default_dataset_id="d",
    default_request_queue_id="q",
    stats={"restartCount": 2},
)


def run(status: RunStatus = S.RUNNING, **facts: object) -> Run:
    return replace(RUN, status=status, **facts)  # type: ignore[arg-type]


Step = Callable[[Run], Run | None]

STEPS: dict[str, Step] = {
    "started": lambda run: run_changes.started(run, {"pid": 1}),
    "serving": run_changes.serving,
    "winding down": lambda run: run_changes.winding_down(run, "idle for 5 s"),
    "timing out": run_changes.timing_out,
    "aborting gracefully": lambda run: run_changes.aborting(run, AbortWish(gracefully=True, requested_at=LATER)),
    "aborting": lambda run: run_changes.aborting(run, AbortWish(gracefully=False, requested_at=LATER, reason="stop")),
    "reboot": lambda run: run_changes.restart_wished(run, RestartWish(kind=K.REBOOT, requested_at=LATER)),
    "migrate": lambda run: run_changes.restart_wished(run, RestartWish(kind=K.MIGRATION, requested_at=LATER)),
    "migration due": run_changes.migration_due,
    "restarted": lambda run: run_changes.restarted(run, {"pid": 2}),
    "failed to start": lambda run: run_changes.failed_to_start(run, LATER, "no such command"),
    "exited 0": lambda run: run_changes.exited(run, LATER, 0, None),
    "exited 137": lambda run: run_changes.exited(run, LATER, 137, "Out of memory"),
}


def follows_the_table(old: RunStatus, new: RunStatus) -> bool:
    """One arrow; or two, for a run that ended before its start was recorded."""
    return may_change(old, new) or (old is S.READY and may_change(old, S.RUNNING) and may_change(S.RUNNING, new))


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=30))
def test_whatever_happens_the_table_is_followed(names: list[str]) -> None:
    """No report comes too late to be harmless: a terminal run is left alone, and every change is an arrow."""
    present = RUN
    for name in names:
        new = STEPS[name](present)
        if present.status.is_terminal:
            assert new is None, name
        if new is None:
            continue
        assert new.status is present.status or follows_the_table(present.status, new.status), name
        assert (new.finished_at is not None) is new.status.is_terminal
        assert not new.status.is_terminal or new.status_message
        assert (new.id, new.version, new.started_at) == (RUN.id, RUN.version, AT)
        present = new


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=30), st.sampled_from(["exited 0", "exited 137"]))
def test_an_exit_always_ends_it(names: list[str], exit_name: str) -> None:
    """Whatever came before; unless somebody has wished for another process, and then after that one's exit."""
    present = RUN
    for name in [*names, exit_name]:
        present = STEPS[name](present) or present
    assert present.status.is_terminal or present.restart_wish is not None
    present = STEPS[exit_name](STEPS["restarted"](present) or present) or present
    assert present.status.is_terminal
    assert present.restart_wish is None


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(S.READY, S.RUNNING, id="it runs"),
        pytest.param(S.RUNNING, S.RUNNING, id="adopted: its placement is renewed"),
        pytest.param(S.ABORTING, S.ABORTING, id="aborted meanwhile: it stays so"),
        pytest.param(S.TIMING_OUT, S.TIMING_OUT, id="timing out: it stays so"),
        pytest.param(S.FAILED, None, id="ended: too late"),
    ],
)
def test_started(before: RunStatus, expected: RunStatus | None) -> None:
    """A living run learns where it is."""
    new = run_changes.started(run(before), {"pid": 7})
    assert (new.status if new else None) is expected
    assert new is None or new.placement == {"pid": 7}


def test_serving_is_noted_once() -> None:
    """While it lives."""
    new = run_changes.serving(run())
    assert new is not None
    assert new.is_container_server_ready
    assert run_changes.serving(new) is None
    assert run_changes.serving(run(S.SUCCEEDED)) is None


def test_the_first_reason_of_a_wind_down_holds() -> None:
    """Asked twice, nothing changes."""
    new = run_changes.winding_down(run(), "idle for 5 s")
    assert new is not None
    assert new.wound_down_because == "idle for 5 s"
    assert run_changes.winding_down(new, "a newer build has taken over") is None


@pytest.mark.parametrize("status", S)
def test_only_a_running_run_times_out(status: RunStatus) -> None:
    """READY has not begun; the others are on their way out."""
    new = run_changes.timing_out(run(status))
    assert (new is not None) is (status is S.RUNNING)
    assert new is None or new.status is S.TIMING_OUT


@pytest.mark.parametrize("status", S)
def test_what_can_be_aborted(status: RunStatus) -> None:
    """READY, RUNNING and TIMING-OUT; anything else is left as it is."""
    new = run_changes.aborting(run(status), AbortWish(gracefully=True, requested_at=LATER))
    assert (new is not None) is (status in (S.READY, S.RUNNING, S.TIMING_OUT))
    assert new is None or (new.status, new.abort_wish) == (
        S.ABORTING,
        AbortWish(gracefully=True, requested_at=LATER),
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param(True, True, None, id="a second graceful one joins the first"),
        pytest.param(False, True, None, id="a graceful one is too late after a hard one"),
        pytest.param(False, False, None, id="a second hard one changes nothing"),
        pytest.param(True, False, AbortWish(gracefully=False, requested_at=LATER), id="a hard one ends the window"),
    ],
)
def test_two_aborts(first: bool, second: bool, expected: AbortWish | None) -> None:
    """The race rules of the platform."""
    once = run_changes.aborting(run(), AbortWish(gracefully=first, requested_at=AT))
    assert once is not None
    twice = run_changes.aborting(once, AbortWish(gracefully=second, requested_at=LATER))
    assert (twice.abort_wish if twice else None) == expected
    assert twice is None or twice.status is S.ABORTING


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(run(S.READY), S.FAILED, id="could not be started"),
        pytest.param(run(S.RUNNING), S.FAILED, id="lost"),
        pytest.param(run(S.ABORTING), S.ABORTED, id="aborted before it was started"),
        pytest.param(run(S.TIMING_OUT), S.TIMED_OUT, id="lost while timing out"),
        pytest.param(run(S.RUNNING, wound_down_because="idle"), S.SUCCEEDED, id="lost while it was wound down"),
        pytest.param(run(S.ABORTING, wound_down_because="idle"), S.ABORTED, id="an abort wins over a wind-down"),
        pytest.param(run(S.SUCCEEDED), None, id="ended already"),
    ],
)
def test_without_a_process(before: Run, expected: RunStatus | None) -> None:
    """It ends as far as the table lets it, without an exit code and with the reason."""
    new = run_changes.failed_to_start(before, LATER, "the reason")
    assert (new.status if new else None) is expected
    assert new is None or (new.exit_code, new.status_message, new.finished_at) == (None, "the reason", LATER)


@pytest.mark.parametrize(
    ("before", "exit_code", "reason", "status", "message"),
    [
        pytest.param(run(), 0, None, S.SUCCEEDED, "Actor finished with exit code 0", id="success"),
        pytest.param(run(), 3, None, S.FAILED, "Actor finished with exit code 3", id="failure"),
        pytest.param(run(), 137, "Out of memory", S.FAILED, "Out of memory", id="the launcher knows more"),
        pytest.param(run(S.READY), 0, None, S.SUCCEEDED, "Actor finished with exit code 0", id="faster than its start"),
        pytest.param(run(S.ABORTING), 0, None, S.ABORTED, "Actor run was aborted.", id="aborted, though it ended well"),
        pytest.param(
            run(S.TIMING_OUT), 0, None, S.TIMED_OUT, "Actor run exceeded its timeout of 60 s.", id="its time was over"
        ),
        pytest.param(
            run(wound_down_because="idle for 5 s"),
            137,
            None,
            S.SUCCEEDED,
            "Actor Standby run was finished: idle for 5 s.",
            id="wound down, though it was killed",
        ),
        pytest.param(
            run(S.ABORTING, wound_down_because="idle for 5 s"),
            0,
            None,
            S.ABORTED,
            "Actor run was aborted.",
            id="aborted while it was wound down: status and message agree",
        ),
        pytest.param(run(status_message="Done: 5 pages."), 0, None, S.SUCCEEDED, "Done: 5 pages.", id="its own words"),
        pytest.param(
            run(status_message="Page 3 of 5"),
            1,
            None,
            S.FAILED,
            "Actor finished with exit code 1",
            id="its last words before a crash meant something else",
        ),
        pytest.param(
            run(status_message="Bad input.", is_status_message_terminal=True),
            1,
            "killed",
            S.FAILED,
            "Bad input.",
            id="a terminal message is the last word",
        ),
        pytest.param(run(), 1, "x" * 2000, S.FAILED, "x" * 1000, id="cut at 1000 characters"),
    ],
)
def test_how_it_ended(before: Run, exit_code: int, reason: str | None, status: RunStatus, message: str) -> None:
    """What was stored first decides the status, then the exit code; the message says the same."""
    new = run_changes.exited(before, LATER, exit_code, reason)
    assert new is not None
    assert (new.status, new.status_message, new.exit_code, new.finished_at) == (status, message, exit_code, LATER)


def test_whatever_is_said_of_the_end_can_be_stored() -> None:
    """What programs print may hold what no database takes: half a character, and the character 0."""
    for ended in (
        run_changes.exited(run(), LATER, 1, "pip: caf\udce9 \0 ü😀" + "x" * 2000),
        run_changes.failed_to_start(run(S.READY), LATER, "pip: caf\udce9 \0 ü😀" + "x" * 2000),
    ):
        assert ended is not None
        message = ended.status_message or ""
        assert message.startswith("pip: caf\ufffd \ufffd ü😀x")
        assert len(message) == run_changes.MAX_STATUS_MESSAGE_CHARS


def test_the_end_is_counted() -> None:
    """Duration and compute units (GiB hours) beside what was there; a clock that went back makes no negative time."""
    new = run_changes.exited(run(), LATER, 0, None)
    assert new is not None
    assert new.stats == {"restartCount": 2, "durationMillis": 90500, "runTimeSecs": 90.5, "computeUnits": 0.050278}
    early = run_changes.exited(run(), AT - timedelta(seconds=5), 0, None)
    assert early is not None
    assert early.stats["durationMillis"] == 0


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(run(), "Actor run was aborted: Greenroom stops.", id="told at the end"),
        pytest.param(
            run(status_message="Page 3"),
            "Actor run was aborted: Greenroom stops.",
            id="in place of the Actor's progress",
        ),
        pytest.param(
            run(status_message="Done.", is_status_message_terminal=True), "Done.", id="not of the Actor's last word"
        ),
    ],
)
def test_an_abort_may_say_why(before: Run, expected: str) -> None:
    """The reason of whoever aborts is what the ended run tells."""
    wish = AbortWish(gracefully=True, requested_at=LATER, reason="Greenroom stops")
    new = run_changes.aborting(before, wish)
    assert new is not None
    ended = run_changes.exited(new, LATER, 143, None)
    assert ended is not None
    assert ended.status_message == expected


def wished(kind: RestartKind, status: RunStatus = S.RUNNING, **facts: object) -> Run:
    return run(status, restart_wish=RestartWish(kind=kind, requested_at=AT), **facts)


@pytest.mark.parametrize("kind", [K.REBOOT, K.MIGRATION])
@pytest.mark.parametrize("status", S)
def test_only_a_running_run_can_be_restarted(status: RunStatus, kind: RestartKind) -> None:
    """One that has not begun, is about to end or has ended is left as it is."""
    wish = RestartWish(kind=kind, requested_at=LATER)
    new = run_changes.restart_wished(run(status), wish)
    assert (new.restart_wish if new else None) == (wish if status is S.RUNNING else None)
    assert new is None or new.status is S.RUNNING


@pytest.mark.parametrize(
    ("pending", "wish", "expected"),
    [
        pytest.param(K.REBOOT, K.REBOOT, None, id="a second reboot joins the first"),
        pytest.param(K.REBOOT, K.MIGRATION, None, id="a migration joins a reboot"),
        pytest.param(K.MIGRATION, K.MIGRATION, None, id="a second migration joins the first, and its time"),
        pytest.param(K.MIGRATION, K.REBOOT, K.MIGRATION_NOW, id="a reboot ends the time of a migration"),
        pytest.param(K.MIGRATION_NOW, K.REBOOT, None, id="but only once"),
        pytest.param(K.AFTER_ERROR, K.REBOOT, None, id="a reboot joins a restart after a failure"),
    ],
)
def test_a_restart_joins_one_that_is_pending(
    pending: RestartKind, wish: RestartKind, expected: RestartKind | None
) -> None:
    """There is never more than one restart for all who wished for it, and the first keeps its time."""
    new = run_changes.restart_wished(wished(pending), RestartWish(kind=wish, requested_at=LATER))
    assert (new.restart_wish if new else None) == (RestartWish(kind=expected, requested_at=AT) if expected else None)


@pytest.mark.parametrize(
    ("before", "exit_code", "expected"),
    [
        pytest.param(wished(K.REBOOT), 0, True, id="rebooted, whatever the code"),
        pytest.param(wished(K.REBOOT), 137, True, id="rebooted, though it was killed"),
        pytest.param(wished(K.MIGRATION), 0, False, id="done before the time of its migration was over"),
        pytest.param(wished(K.MIGRATION), 1, True, id="failed while migrating"),
        pytest.param(wished(K.MIGRATION_NOW), 0, True, id="stopped for its migration"),
        pytest.param(wished(K.AFTER_ERROR), 1, True, id="failed, and to be restarted"),
        pytest.param(wished(K.REBOOT, S.ABORTING), 137, False, id="an abort wins"),
        pytest.param(wished(K.REBOOT, S.TIMING_OUT), 137, False, id="the timeout wins"),
        pytest.param(wished(K.REBOOT, wound_down_because="idle"), 137, False, id="a wind-down wins"),
        pytest.param(run(), 1, False, id="nobody wished for it"),
    ],
)
def test_what_goes_on_after_the_end_of_its_process(before: Run, exit_code: int, expected: bool) -> None:
    """A run that goes on does not end by that exit; one that doesn't ends, and the wish with it."""
    assert run_changes.is_to_go_on(before, exit_code) is expected
    new = run_changes.exited(before, LATER, exit_code, None)
    assert (new is None) is expected
    assert new is None or (new.status.is_terminal and new.restart_wish is None)


@pytest.mark.parametrize(
    ("kind", "counter"),
    [
        pytest.param(K.REBOOT, "rebootCount", id="reboot"),
        pytest.param(K.MIGRATION, "migrationCount", id="migration that failed before its time was over"),
        pytest.param(K.MIGRATION_NOW, "migrationCount", id="migration, by reboot or time"),
        pytest.param(K.AFTER_ERROR, "restartCount", id="failure"),
    ],
)
def test_a_restart_is_counted_once_and_as_what_it_was(kind: RestartKind, counter: str) -> None:
    """The wish is taken back in the same write; what was known of the process before is forgotten."""
    before = wished(kind, is_container_server_ready=True, placement={"pid": 1})
    new = run_changes.restarted(before, {"pid": 2})
    assert new is not None
    assert (new.restart_wish, new.placement, new.is_container_server_ready) == (None, {"pid": 2}, False)
    assert new.stats == {**RUN.stats, counter: RUN.stats.get(counter, 0) + 1}
    assert run_changes.restarted(new, {"pid": 3}) is None


FORGIVING = RunOptions(restart_on_error=True)


@pytest.mark.parametrize(
    ("before", "exit_code", "expected"),
    [
        pytest.param(run(options=FORGIVING), 1, True, id="it failed"),
        pytest.param(run(S.READY, options=FORGIVING), 1, True, id="it failed faster than its start was recorded"),
        pytest.param(run(options=FORGIVING), 0, False, id="it succeeded"),
        pytest.param(run(), 1, False, id="nobody asked for restarts"),
        pytest.param(run(options=FORGIVING, pool_id="p"), 1, False, id="a standby run"),
        pytest.param(run(options=FORGIVING, is_status_message_terminal=True), 1, False, id="it said that it failed"),
        pytest.param(run(S.ABORTING, options=FORGIVING), 1, False, id="aborted"),
        pytest.param(run(S.TIMING_OUT, options=FORGIVING), 1, False, id="out of time"),
        pytest.param(run(options=FORGIVING, wound_down_because="idle"), 1, False, id="wound down"),
        pytest.param(wished(K.REBOOT, options=FORGIVING), 137, False, id="a reboot is no failure"),
    ],
)
def test_which_failures_are_forgiven(before: Run, exit_code: int, expected: bool) -> None:
    """Those of batch runs that asked for it and did not declare them themselves."""
    new = run_changes.failed_but_restarts(before, LATER, exit_code)
    assert (new is not None) is expected
    assert new is None or new == replace(
        before, status=S.RUNNING, restart_wish=RestartWish(kind=K.AFTER_ERROR, requested_at=LATER)
    )


def test_its_load_is_in_the_stats_of_an_ended_run() -> None:
    """Beside what else is counted."""
    new = run_changes.exited(run(), LATER, 0, None, load={"memMaxBytes": 7})
    assert new is not None
    assert (new.stats["memMaxBytes"], new.stats["restartCount"]) == (7, 2)
