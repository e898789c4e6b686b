"""What a person is told of a pool in one sentence, state by state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.api.pool_views import PoolNow, pool_view, pools_now, summary
from gateway.core.demand import DemandReport, PoolDemand, RunUse
from gateway.core.lifecycle import Readiness
from gateway.core.load import Load
from gateway.core.standby import Generation, PoolKey, StandbyConfig, StandbyTarget
from gateway.core.trouble import PoolTrouble
from gateway.state.ports import RunRoute

POOL = PoolKey(target_id="actor", user_id="owner")
GENERATION = Generation(build_id="build", memory_mbytes=1024)
TROUBLE = PoolTrouble(
    pool=POOL,
    generation=GENERATION,
    failed_starts=3,
    crashes=0,
    message="Its last 3 runs never served.",
    run_id="gone",
    retry_after_secs=12.3,
)
SERVING, STARTING, FROZEN, DRAINING = Readiness.SERVING, Readiness.STARTING, Readiness.FROZEN, Readiness.DRAINING


def target(generation: Generation | None = GENERATION, **config: Any) -> StandbyTarget:
    return StandbyTarget(
        actor_id="actor",
        owner_id="owner",
        owner_name="ann",
        is_public_actor=False,
        config=StandbyConfig(**{"is_enabled": True, **config}),
        generation=generation,
    )


def run(
    readiness: Readiness = SERVING, in_flight: int = 0, idle_secs: float = 0.0, **use: Any
) -> tuple[RunRoute, RunUse]:
    route = RunRoute(
        run_id="run",
        actor_id="actor",
        user_id="owner",
        live_view_label="label",
        readiness=readiness,
        pool=POOL,
        generation=GENERATION,
    )
    return route, RunUse(in_flight=in_flight, idle_secs=idle_secs, **use)


@pytest.mark.parametrize(
    ("runs", "facts", "config", "expected"),
    [
        pytest.param([], {}, {}, "Asleep: the next request starts a run.", id="asleep"),
        pytest.param([], {"waiting": 2}, {}, "No run yet: 2 requests waiting for a run.", id="woken just now"),
        pytest.param(
            [], {}, {"min_runs": 2}, "No run yet: minRuns 2 starts as soon as pace and machine allow.", id="to be warm"
        ),
        pytest.param([], {}, {"is_enabled": False}, "The Actor has no standby mode.", id="no standby mode"),
        pytest.param(
            [run()], {}, {"is_enabled": False}, "1 run: the Actor has no standby mode any more.", id="switched off"
        ),
        pytest.param([], {"trouble": TROUBLE}, {}, "Its last 3 runs never served.", id="in quarantine"),
        pytest.param(
            [run(in_flight=2)],
            {},
            {},
            "1 run: 2 requests in flight at up to 4 each; wound down after 300 s without use.",
            id="in use",
        ),
        pytest.param(
            [run(in_flight=4), run(STARTING)],
            {"waiting": 1},
            {},
            "2 runs (1 serving, 1 starting): 4 requests in flight at up to 4 each, 1 request waiting for a run; "
            "wound down after 300 s without use.",
            id="one more is starting",
        ),
        pytest.param(
            [run(STARTING)],
            {"waiting": 1},
            {},
            "1 run, starting: not in use yet, 1 request waiting for a run; wound down after 300 s without use.",
            id="the first is starting",
        ),
        pytest.param(
            [run(idle_secs=12.4), run(idle_secs=80)],
            {},
            {"idle_timeout_secs": 90},
            "2 runs: unused for 12 s; wound down after 90 s without use, in 78 s.",
            id="idle",
        ),
        pytest.param(
            [run(FROZEN, idle_secs=40)],
            {},
            {"freeze_after_secs": 10},
            "1 run, frozen: unused for 40 s; frozen after 10 s and wound down after 300 s without use, in 260 s.",
            id="frozen",
        ),
        pytest.param(
            [run(idle_secs=500)],
            {},
            {"min_runs": 1},
            "1 run: unused for 500 s; kept warm by minRuns 1.",
            id="kept warm",
        ),
        pytest.param(
            [run(idle_secs=5), run(idle_secs=6)],
            {},
            {"min_runs": 1},
            "2 runs: unused for 5 s; wound down after 300 s without use, in 295 s, but for 1 that minRuns keeps warm.",
            id="more than are kept warm",
        ),
        pytest.param(
            [run(viewers=1)],
            {},
            {},
            "1 run: 1 request by the live view; wound down after 300 s without use.",
            id="looked at",
        ),
        pytest.param(
            [run(idle_secs=70, silent=1)],
            {},
            {},
            "1 run: 1 socket or stream silent for too long to be use; wound down after 300 s without use, in 230 s.",
            id="a silent socket",
        ),
    ],
)
def test_summary(
    runs: list[tuple[RunRoute, RunUse]], facts: dict[str, Any], config: dict[str, Any], expected: str
) -> None:
    """How many runs, in what state, who uses them, who waits, and what will become of them."""
    assert summary(PoolNow(key=POOL, target=target(**config), runs=tuple(runs), **facts)) == expected


def test_an_actor_without_a_build_is_told_which_it_lacks() -> None:
    """The tag is named; an Actor that is gone has no standby mode."""
    now = PoolNow(key=POOL, target=target(None, build="beta"), runs=())
    assert summary(now) == "No build of the Actor has the tag or number 'beta': there is nothing to run."
    assert summary(PoolNow(key=POOL, target=None, runs=())) == "The Actor has no standby mode."


def test_pools_are_made_of_what_all_gateways_report() -> None:
    """Use adds up over gateways, runs of others' pools are not among it, and what is in trouble says so."""
    other = PoolKey(target_id="actor", user_id="owner", scope="narrow")
    route, _ = run()
    reports = [
        DemandReport(
            gateway_id=gateway_id,
            routes_seen=1,
            pools={POOL: PoolDemand(in_flight=1, waiting=waiting)},
            runs={"run": RunUse(in_flight=1, idle_secs=0.0)},
        )
        for gateway_id, waiting in (("a", 0), ("b", 3))
    ]
    load = Load(
        cpu_current=97.26,
        cpu_avg=1.0,
        cpu_max=99.0,
        memory_current=1024,
        memory_avg=1024,
        memory_max=1024,
        is_cpu_overloaded=True,
    )
    route = replace(route, is_overloaded=True)
    first, second = pools_now([other, POOL], target(), [route], reports, [TROUBLE], {"run": load})
    view = pool_view(first)
    assert (view["id"], view["inFlight"], view["waiting"]) == (POOL.id, 2, 3)
    assert view["runs"] == [
        {
            "id": "run",
            "readiness": "serving",
            "buildId": "build",
            "isOutdated": False,
            "isOverloaded": True,
            "cpuPercent": 97.3,
            "memoryBytes": 1024,
            "inFlight": 2,
            "liveViewRequests": 0,
            "silentStreams": 0,
            "idleSecs": None,
        }
    ]
    assert view["quarantine"]["retryAfterSecs"] == 13
    assert view["summary"] == TROUBLE.message
    untroubled = summary(replace(first, trouble=None))
    assert untroubled.startswith("1 run: 2 requests in flight at up to 4 each, 1 overloaded, 3 requests waiting")
    assert (second.key, second.runs, second.waiting, second.trouble) == (other, (), 0, None)
