"""The two transition tables, pair by pair, and what an exit code makes of a run."""

from __future__ import annotations

from itertools import product

import pytest

from gateway.core.lifecycle import (
    TERMINAL,
    Readiness,
    RunStatus,
    may_become,
    may_change,
    may_restart_after_error,
    status_after_exit,
)

S, R = RunStatus, Readiness

ALLOWED = {
    (S.READY, S.RUNNING),
    (S.READY, S.FAILED),
    (S.READY, S.ABORTING),
    (S.RUNNING, S.SUCCEEDED),
    (S.RUNNING, S.FAILED),
    (S.RUNNING, S.TIMING_OUT),
    (S.RUNNING, S.ABORTING),
    (S.TIMING_OUT, S.TIMED_OUT),
    (S.TIMING_OUT, S.ABORTING),
    (S.ABORTING, S.ABORTED),
}
ENDS = {S.SUCCEEDED, S.FAILED, S.TIMED_OUT, S.ABORTED}

READINESS_ALLOWED = {
    (R.STARTING, R.SERVING),
    (R.STARTING, R.DRAINING),
    (R.SERVING, R.FROZEN),
    (R.SERVING, R.DRAINING),
    (R.SERVING, R.STARTING),
    (R.FROZEN, R.SERVING),
    (R.FROZEN, R.DRAINING),
}


@pytest.mark.parametrize(("old", "new"), list(product(S, S)), ids=str)
def test_every_change_of_status(old: RunStatus, new: RunStatus) -> None:
    """The ten arrows of the life of a run are allowed and the other fifty-four pairs are not."""
    assert may_change(old, new) is ((old, new) in ALLOWED)


@pytest.mark.parametrize(("old", "new"), list(product(S, S)), ids=str)
def test_every_change_of_status_by_resurrect(old: RunStatus, new: RunStatus) -> None:
    """Resurrect brings a terminal run back to READY, and allows nothing else that was not allowed."""
    assert may_change(old, new, resurrect=True) is ((old, new) in ALLOWED or (old in ENDS and new is S.READY))


@pytest.mark.parametrize(("old", "new"), list(product(R, R)), ids=str)
def test_every_change_of_readiness(old: Readiness, new: Readiness) -> None:
    """starting → serving ⇄ frozen → draining, back to starting only to be probed again, and nothing after draining."""
    assert may_become(old, new) is ((old, new) in READINESS_ALLOWED)


def test_the_terminal_statuses() -> None:
    """Four of the eight words are final, and each says so itself."""
    assert TERMINAL == ENDS
    assert {status for status in S if status.is_terminal} == ENDS


def test_the_words_are_the_platforms() -> None:
    """Clients compare these texts: hyphens, not underscores."""
    assert [str(status) for status in S] == [
        "READY",
        "RUNNING",
        "SUCCEEDED",
        "FAILED",
        "TIMING-OUT",
        "TIMED-OUT",
        "ABORTING",
        "ABORTED",
    ]


@pytest.mark.parametrize(
    ("status", "exit_code", "wound_down", "expected"),
    [
        pytest.param(S.RUNNING, 0, False, S.SUCCEEDED, id="exit code 0 is success"),
        pytest.param(S.RUNNING, 1, False, S.FAILED, id="any other is failure"),
        pytest.param(S.RUNNING, 137, False, S.FAILED, id="killed is failure"),
        pytest.param(S.RUNNING, 143, True, S.SUCCEEDED, id="wound down by SIGTERM is success"),
        pytest.param(S.RUNNING, 137, True, S.SUCCEEDED, id="wound down by SIGKILL is success"),
        pytest.param(S.ABORTING, 0, False, S.ABORTED, id="a stored abort wins over exit code 0"),
        pytest.param(S.ABORTING, 0, True, S.ABORTED, id="a stored abort wins over a wind-down"),
        pytest.param(S.TIMING_OUT, 0, False, S.TIMED_OUT, id="a stored timeout wins over exit code 0"),
        pytest.param(S.TIMING_OUT, 137, True, S.TIMED_OUT, id="a stored timeout wins over a wind-down"),
    ],
)
def test_status_after_exit(status: RunStatus, exit_code: int, wound_down: bool, expected: RunStatus) -> None:
    """What was stored first decides, then the wind-down, then the exit code; the table allows each outcome."""
    assert status_after_exit(status, exit_code, wound_down=wound_down) is expected
    assert may_change(status, expected)


@pytest.mark.parametrize(
    ("earlier", "expected"),
    [
        pytest.param([], True, id="the first failure"),
        pytest.param([90.0, 95.0], True, id="the third"),
        pytest.param([90.0, 95.0, 99.0], False, id="the fourth within a minute"),
        pytest.param([40.0, 95.0, 99.0], True, id="the first is exactly a minute ago"),
        pytest.param([41.0, 95.0, 99.0], False, id="the first is not quite a minute ago"),
        pytest.param([1.0, 2.0, 3.0, 4.0, 99.0], True, id="many, but long ago"),
    ],
)
def test_three_failures_a_minute_are_forgiven(earlier: list[float], expected: bool) -> None:
    """The window slides: each restart counts for 60 s."""
    assert may_restart_after_error(earlier, 100.0) is expected
