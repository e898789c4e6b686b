"""The policy driven from outside, line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy.observing import Limits
from loadtests.simulation.engine import Glimpse, simulate
from loadtests.simulation.ours import Ours
from loadtests.simulation.stdio import Driven
from loadtests.simulation.traffic import recorded

ROOT = Path(__file__).parent.parent.parent


def line(now: float, runs: list[dict[str, Any]] | None = None, **fields: Any) -> str:
    return json.dumps({"now": now, "pool": "p", "runs": runs or [], **fields})


def test_a_pool_lives() -> None:
    """Cold, starting, serving, idle: what is remembered of it is kept between its lines."""
    driven = Driven()
    cold = driven.answer(line(0, waiting=1, arrivals=1))
    assert (cold["wantedRuns"], cold["start"], cold["drain"]) == (1, 1, [])
    assert cold["reasons"] == ["1 run: 1 requests at up to 4 each"]
    starting = driven.answer(line(2, [{"id": "r", "state": "starting", "ageSecs": 2}], waiting=1, arrivals=0))
    assert starting["start"] == 0
    serving = {"id": "r", "state": "serving", "ageSecs": 4}
    assert driven.answer(line(4, [serving], arrivals=0))["drain"] == []
    kept = driven.answer(line(60, [{**serving, "idleSecs": 56}], arrivals=0))
    assert (kept["wantedRuns"], kept["lookAgainInSecs"]) == (1, 34)
    idle = driven.answer(line(94, [{**serving, "idleSecs": 90}], arrivals=0))
    assert idle["drain"] == [{"id": "r", "reason": "idle for 90 s"}]


def test_settings_and_policy_are_taken_from_the_line() -> None:
    """The idle timeout, the preset, single thresholds."""
    run = {"id": "r", "state": "serving", "ageSecs": 50, "idleSecs": 20}
    assert Driven().answer(line(50, [run], settings={"idleTimeoutSecs": 20}))["drain"]
    assert not Driven().answer(line(50, [run], settings={"idleTimeoutSecs": 20, "minRuns": 1}))["drain"]
    busy = [{"id": "r", "state": "serving", "inFlight": 4}]
    assert Driven().answer(line(50, busy, policy="platform"))["start"] == 1
    assert Driven().answer(line(50, busy, policy={"spare_slots": 4}))["start"] == 1


def test_pools_are_kept_apart() -> None:
    """What is known of one says nothing of another."""
    driven = Driven()
    for now in range(0, 20, 2):
        driven.answer(line(now, [{"id": "r", "state": "serving"}], arrivals=9))
    assert driven.memories["p"].service_secs is not None
    driven.answer(json.dumps({"now": 20, "pool": "q", "runs": []}))
    assert driven.memories["q"].service_secs is None


@dataclass(slots=True)
class Outside:
    """A pool of the simulator whose policy is asked line by line."""

    driven: Driven = field(default_factory=Driven)

    def choose(self, seen: Glimpse) -> tuple[int, list[int]]:
        runs = [
            {
                "id": run.id,
                "state": run.state,
                "ageSecs": seen.now - run.born,
                "inFlight": run.in_flight,
                "idleSecs": run.idle_secs(seen.now),
            }
            for run in seen.runs
        ]
        averages = {"inFlight": seen.average_in_flight, "waiting": seen.average_waiting}
        answer = self.driven.answer(
            line(seen.now, runs, waiting=seen.waiting, averages=averages, arrivals=seen.arrivals)
        )
        return answer["start"], [int(one["id"]) for one in answer["drain"]]


def test_from_outside_it_decides_as_from_inside() -> None:
    """On recorded traffic, with the settings that hold where a line has none: the same outcome to the last digit."""
    load = recorded("azure_llm23_code_thin")
    assert simulate(load, Outside()) == simulate(load, Ours(limits=Limits(idle_timeout_secs=90)))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        pytest.param("{", "A line is a JSON object", id="no JSON"),
        pytest.param("[" * 100_000, "A line is a JSON object", id="a deep one"),
        pytest.param("[]", "A line is a JSON object", id="a list"),
        pytest.param('{"runs": []}', "now is a number of seconds", id="no time"),
        pytest.param('{"now": NaN, "runs": []}', "now is a number of seconds", id="no number"),
        pytest.param('{"now": 1e300, "runs": []}', "now is a number of seconds", id="the end of time"),
        pytest.param('{"now": 1}', "runs is a list", id="no runs"),
        pytest.param('{"now": 1, "runs": [], "pool": []}', "pool is a text", id="a list for a pool"),
        pytest.param('{"now": 1, "runs": [], "policy": "best"}', "greenroom, platform", id="an unknown policy"),
        pytest.param('{"now": 1, "runs": [], "policy": {"a": 1}}', "a: no such threshold", id="an unknown threshold"),
        pytest.param('{"now": 1, "runs": [], "settings": []}', "settings is an object", id="settings"),
        pytest.param('{"now": 1, "runs": [], "memory": {"at": 1}, "waiting": "2"}', "waiting", id="a text for waiting"),
        pytest.param('{"now": 1, "runs": [{"id": "a"}]}', "starting, serving", id="a run without a state"),
        pytest.param("{" + " " * 4_000_000 + "}", "at most 4000000 characters", id="a long one"),
    ],
)
def test_a_bad_line_is_answered(bad: str, words: str) -> None:
    """With a typed error that says what is expected; what is remembered does not change."""
    driven = Driven()
    driven.answer(line(0, waiting=1))
    before = dict(driven.memories)
    answer = driven.answer(bad)
    assert answer["error"]["type"] == "invalid-request"
    assert words in answer["error"]["message"]
    assert driven.memories == before


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("now", "pool", "runs", "waiting", "averages", "arrivals", "settings", "policy", "serviceSecs", "mayStart")
RUN_KEYS = ("id", "state", "ageSecs", "inFlight", "idleSecs", "viewers", "overloadedRatio", "retiresBecause")


@given(
    st.dictionaries(st.sampled_from(KEYS), values, max_size=5),
    st.dictionaries(st.sampled_from(RUN_KEYS), values, max_size=4),
)
def test_no_line_is_fatal(fields: dict[str, Any], run: dict[str, Any]) -> None:
    """Whatever stands in it: a decision or an error, as JSON."""
    plain = {"now": 5, "runs": [{"id": "a", "state": "serving", **run}]}
    answer = Driven().answer(json.dumps({**plain, **fields}))
    assert ("error" in answer) != ("wantedRuns" in answer)
    json.dumps(answer)


def test_the_command_answers_line_by_line() -> None:
    """Each at once, before the next one is written; it ends with its input."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtests.simulate", "--policy-stdio"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for asked, key in ((line(0, waiting=1), "wantedRuns"), ("{", "error"), (line(2), "wantedRuns")):
            process.stdin.write(f"{asked}\n\n")
            process.stdin.flush()
            assert key in json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0
