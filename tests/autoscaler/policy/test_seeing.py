"""How a pool looks to the policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from autoscaler.policy.observing import Limits, RunSeen
from autoscaler.policy.seeing import RunView, generation_of, limits_of, runs_seen
from gateway.core.demand import RunUse
from gateway.core.lifecycle import Readiness
from gateway.core.load import Load
from gateway.core.standby import Generation, StandbyConfig, StandbyTarget

OURS = Generation(build_id="build", memory_mbytes=1024)
VIEW = RunView(run_id="a", generation=OURS, readiness=Readiness.SERVING, age_secs=9.0)
TARGET = StandbyTarget(
    actor_id="actor",
    owner_id="owner",
    owner_name="olga",
    is_public_actor=False,
    config=StandbyConfig(is_enabled=True),
    generation=OURS,
)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(TARGET, OURS, id="on"),
        pytest.param(replace(TARGET, config=StandbyConfig(is_enabled=False)), None, id="switched off"),
        pytest.param(replace(TARGET, generation=None), None, id="no build"),
        pytest.param(None, None, id="deleted"),
    ],
)
def test_what_new_runs_are_made_from(target: StandbyTarget | None, expected: Generation | None) -> None:
    """Nothing, where there can't be any."""
    assert generation_of(target) == expected


def test_the_owners_limits() -> None:
    """Each setting of the Actor that a decision goes by."""
    config = StandbyConfig(
        desired_requests_per_run=2,
        max_requests_per_run=5,
        idle_timeout_secs=7.5,
        min_runs=1,
        max_runs=9,
        freeze_after_secs=3.5,
        freeze_with_open_sockets=True,
    )
    assert limits_of(config) == Limits(
        desired_requests_per_run=2,
        max_requests_per_run=5,
        idle_timeout_secs=7.5,
        min_runs=1,
        max_runs=9,
        freeze_after_secs=3.5,
        freeze_with_open_sockets=True,
    )


@pytest.mark.parametrize(
    ("view", "wanted", "expected"),
    [
        pytest.param(VIEW, OURS, None, id="as it should be"),
        pytest.param(VIEW, replace(OURS, build_id="next"), "a newer build", id="another build"),
        pytest.param(VIEW, replace(OURS, memory_mbytes=2048), "2048 MB of memory are set now", id="other memory"),
        pytest.param(replace(VIEW, leaves_because="its node is drained"), OURS, "its node is drained", id="must leave"),
        pytest.param(VIEW, None, None, id="there are to be none at all, which is another reason"),
    ],
)
def test_why_a_run_retires(view: RunView, wanted: Generation | None, expected: str | None) -> None:
    """In words that stand behind "another run has taken over"."""
    (run,) = runs_seen([view], {}, wanted)
    assert run.retires_because == expected


def load(**facts: Any) -> Load:
    plain: dict[str, Any] = dict.fromkeys(("cpu_current", "cpu_avg", "cpu_max"), 0.0)
    plain |= dict.fromkeys(("memory_current", "memory_avg", "memory_max"), 0)
    return Load(is_cpu_overloaded=False, **{**plain, **facts})


def test_a_run_with_its_use_and_its_load() -> None:
    """Each by its id; of one that nobody has told of nothing is assumed."""
    uses = {"a": RunUse(in_flight=2, idle_secs=0.0, viewers=1, silent=1)}
    views = [VIEW, replace(VIEW, run_id="b", may_freeze=False, cpu_ratio=0.25)]
    assert runs_seen(views, uses, OURS, {"a": load(overloaded_ratio=0.75)}) == (
        RunSeen(
            run_id="a",
            state=Readiness.SERVING,
            age_secs=9.0,
            in_flight=2,
            viewers=1,
            overloaded_ratio=0.75,
            has_open_sockets=True,
        ),
        RunSeen(run_id="b", state=Readiness.SERVING, age_secs=9.0, may_freeze=False, cpu_ratio=0.25),
    )
