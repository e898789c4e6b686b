"""Observations as JSON: what is stored, and what somebody else writes."""

from __future__ import annotations

from typing import Any

import pytest

from autoscaler.policy.observing import Limits, Observation, RunSeen
from gateway.core.errors import InvalidRequest
from gateway.core.lifecycle import Readiness


def test_all_but_runs_may_be_left_out() -> None:
    """The defaults are those of an Actor that has set nothing."""
    assert Observation.from_json({"runs": []}) == Observation(limits=Limits())
    seen = Observation.from_json({"runs": [{"id": 7, "state": "serving"}], "settings": {"maxRequestsPerActorRun": 2}})
    assert seen.runs == (RunSeen(run_id="7", state=Readiness.SERVING),)
    assert seen.limits == Limits(max_requests_per_run=2, desired_requests_per_run=2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param({}, "runs is a list", id="no runs"),
        pytest.param({"runs": {}}, "runs is a list", id="runs as an object"),
        pytest.param({"runs": [1]}, r"runs\[0\] is an object", id="a run that is a number"),
        pytest.param({"runs": [{"id": "a"}]}, "starting, serving, frozen, draining", id="no state"),
        pytest.param({"runs": [{"id": "", "state": "serving"}]}, "id is a text", id="no id"),
        pytest.param({"runs": [{"id": "a", "state": "serving"}] * 2}, "an id of its own", id="one id twice"),
        pytest.param({"runs": [{"id": "a", "state": ["serving"]}]}, "state is one of", id="a list for a state"),
        pytest.param({"runs": [{"id": "a", "state": "serving", "inFlight": -1}]}, "inFlight", id="less than none"),
        pytest.param({"runs": [{"id": "a", "state": "serving", "idleSecs": "1"}]}, "idleSecs", id="text"),
        pytest.param({"runs": [{"id": "a", "state": "serving", "ageSecs": float("inf")}]}, "ageSecs", id="for ever"),
        pytest.param({"runs": [{"id": "a", "state": "serving", "overloadedRatio": 2}]}, "from 0 to 1", id="a ratio"),
        pytest.param({"runs": [{"id": "a", "state": "serving", "retiresBecause": 1}]}, "retiresBecause", id="a reason"),
        pytest.param({"runs": [], "waiting": 1.5}, "waiting is a whole number", id="half a request"),
        pytest.param({"runs": [], "waiting": True}, "waiting is a whole number", id="a flag"),
        pytest.param({"runs": [], "averages": 3}, "averages is an object", id="averages"),
        pytest.param({"runs": [], "averages": {"inFlight": float("nan")}}, "inFlight is a number", id="not a number"),
        pytest.param({"runs": [], "settings": {"maxRequestsPerActorRun": 0}}, "from 1", id="a limit of none"),
        pytest.param({"runs": [], "settings": {"desiredRequestsPerActorRun": 9}}, "to 4", id="desired above most"),
        pytest.param({"runs": [], "settings": {"maxRuns": 0}}, "maxRuns", id="no runs at all"),
        pytest.param({"runs": [], "settings": {"idleTimeoutSecs": -1}}, "idleTimeoutSecs", id="before it was idle"),
        pytest.param({"runs": [], "isOn": 1}, "true or false", id="a number for a flag"),
    ],
)
def test_what_is_refused(given: dict[str, Any], words: str) -> None:
    """With the field and what is expected there."""
    with pytest.raises(InvalidRequest, match=words):
        Observation.from_json(given)
