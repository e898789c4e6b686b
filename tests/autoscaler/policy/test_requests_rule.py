"""How many runs the requests ask for: the parts of the rule by themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Limits, Observation, RunSeen
from autoscaler.policy.requests_rule import needed, service_secs, start_secs
from autoscaler.policy.thresholds import GREENROOM
from autoscaler.policy.windows import Window
from gateway.core.lifecycle import Readiness

LIMITS = Limits()


def remembered(*, rate: float, in_flight: float = 0.0, there: int = 0, newest_rate: float | None = None) -> Memory:
    """A minute at *rate* arrivals a second, the last six seconds at *newest_rate*; *there* requests are open."""
    newest = rate if newest_rate is None else newest_rate
    return Memory(
        at=1000.0,
        in_flight=Window(0.0, 1000.0, (in_flight,) * 60),
        arrivals=Window(0.0, 1000.0, (rate,) * 54 + (newest,) * 6),
        open_requests=there,
    )


def run(age: float = 100.0, state: Readiness = Readiness.SERVING) -> RunSeen:
    return RunSeen(run_id=f"{state}{age}", state=state, age_secs=age)


def asked(memory: Memory, *runs: RunSeen, queue: float = 1.0, service: float = 0.5) -> int:
    policy = replace(GREENROOM, queue_ratio=queue, late_price_secs=0)
    seen = Observation(limits=LIMITS, runs=runs, service_secs=service, start_secs=3.0)
    return needed(policy, seen, memory, runs).runs


@pytest.mark.parametrize(
    ("memory", "runs", "expected"),
    [
        pytest.param(remembered(rate=10, there=20), [run()], 3, id="the example: 26 will be there, 12 a run"),
        pytest.param(remembered(rate=10, there=2), [run()], 1, id="8 will be there"),
        pytest.param(remembered(rate=2, there=30), [run()], 1, id="12 will be there: one is enough"),
        pytest.param(remembered(rate=2, there=31), [run()], 2, id="13: one is not"),
        pytest.param(remembered(rate=2, there=31), [run(), run(1.0, Readiness.STARTING)], 1, id="one will have helped"),
        pytest.param(remembered(rate=2, there=30, newest_rate=6), [run()], 2, id="they come faster now"),
        pytest.param(remembered(rate=0, there=1), [], 1, id="one, and nobody else"),
        pytest.param(remembered(rate=0), [], 0, id="nobody"),
    ],
)
def test_a_run_is_started_for_those_who_would_wait_too_long(memory: Memory, runs: list[RunSeen], expected: int) -> None:
    """As many as serve within a second who is there when a run that is started now would serve."""
    assert asked(memory, *runs) == expected


def test_a_margin_makes_it_sooner() -> None:
    """With a third of the second for the queue: 6.7 a run instead of 12."""
    memory = remembered(rate=2, there=26)
    assert (asked(memory, run()), asked(memory, run(), queue=1 / 3)) == (1, 2)


@pytest.mark.parametrize(("present", "expected"), [(0, 2), (2, 2), (3, 3), (4, 3)])
def test_fewer_only_with_a_margin(present: int, expected: int) -> None:
    """5.9 of long requests at 3 each are two runs; 5 % more are three, so the third one stays."""
    memory = remembered(rate=0, in_flight=5.9)
    runs = [run(float(number)) for number in range(present)]
    assert asked(memory, *runs, service=600.0) == expected


def test_measured_beats_seen_beats_assumed() -> None:
    """For how long a request and a start take."""
    nothing = Observation(limits=LIMITS)
    measured = Observation(limits=LIMITS, service_secs=7.0, start_secs=8.0)
    seen = Memory(busy_secs=10.0, finished=5.0, start_secs=4.0)
    assert (service_secs(nothing, Memory()), start_secs(GREENROOM, nothing, Memory())) == (None, 3.0)
    assert (service_secs(nothing, seen), start_secs(GREENROOM, nothing, seen)) == (2.0, 4.0)
    assert (service_secs(measured, seen), start_secs(GREENROOM, measured, seen)) == (7.0, 8.0)
    assert service_secs(replace(nothing, service_secs=0.0), seen) == 0.001
