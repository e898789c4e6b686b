"""Which images are removed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.image_cleaning import KeptImage, removable
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Build, Origin

NOW = datetime(2026, 1, 20, tzinfo=UTC)
WEEK = timedelta(days=7)
BUILD = Build(
    id="b",
    actor_id="a",
    user_id="u",
    version_number="0.1",
    build_number="0.1.1",
    status=RunStatus.SUCCEEDED,
    started_at=NOW,
    origin=Origin.API,
)


@pytest.mark.parametrize(
    ("age_days", "status", "tagged", "in_use", "keep", "goes"),
    [
        pytest.param(8, RunStatus.SUCCEEDED, False, False, WEEK, True, id="old, and nothing needs it"),
        pytest.param(7, RunStatus.SUCCEEDED, False, False, WEEK, True, id="just old enough"),
        pytest.param(6.9, RunStatus.SUCCEEDED, False, False, WEEK, False, id="not old enough"),
        pytest.param(0, RunStatus.SUCCEEDED, False, False, timedelta(), True, id="0 days: at once"),
        pytest.param(99, RunStatus.SUCCEEDED, True, False, WEEK, False, id="a tag points to it"),
        pytest.param(99, RunStatus.SUCCEEDED, False, True, WEEK, False, id="a run uses it"),
        pytest.param(0, None, False, False, WEEK, True, id="of a deleted build: at once"),
        pytest.param(0, None, False, True, WEEK, False, id="of a deleted build that a run uses"),
        pytest.param(0, RunStatus.FAILED, False, False, WEEK, True, id="of a build that failed: at once"),
        pytest.param(0, RunStatus.ABORTED, False, False, WEEK, True, id="of an aborted build: at once"),
        pytest.param(99, RunStatus.RUNNING, False, False, timedelta(), False, id="of a build under way"),
        pytest.param(99, RunStatus.READY, False, False, timedelta(), False, id="of a build that waits"),
    ],
)
def test_removable(
    age_days: float, status: RunStatus | None, tagged: bool, in_use: bool, keep: timedelta, goes: bool
) -> None:
    """By tags, runs, age and the build's own end."""
    found = removable(
        [KeptImage(build_id="b", made_at=NOW - timedelta(days=age_days))],
        {} if status is None else {"b": replace(BUILD, status=status)},
        tagged={"b"} if tagged else (),
        in_use={"b"} if in_use else (),
        now=NOW,
        keep=keep,
    )
    assert found == (["b"] if goes else [])


ids = st.frozensets(st.sampled_from("abcdef"))


@given(ids, ids, ids, ids, st.integers(0, 30))
def test_what_is_needed_stays(
    there: frozenset[str], known: frozenset[str], tagged: frozenset[str], in_use: frozenset[str], days: int
) -> None:
    """Only what is there goes, never what a tag or a run holds, and the older it is the sooner."""

    def gone(age: int) -> set[str]:
        images = [KeptImage(build_id=build_id, made_at=NOW - timedelta(days=age)) for build_id in there]
        builds = {build_id: replace(BUILD, id=build_id) for build_id in known}
        return set(removable(images, builds, tagged=tagged, in_use=in_use, now=NOW, keep=WEEK))

    assert gone(days) <= there - tagged - in_use
    assert gone(days) <= gone(days + 1)
