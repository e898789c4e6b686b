"""
The policy driven from outside: one JSON line of observation in, one JSON line of decision out.

    {"now": 12.0, "pool": "a", "runs": [{"id": "r1", "state": "serving", "ageSecs": 9.5, "inFlight": 4}],
     "waiting": 3, "averages": {"inFlight": 3.6, "waiting": 0.8}, "arrivals": 14,
     "settings": {"maxRequestsPerActorRun": 4, "idleTimeoutSecs": 90}}

In a line only now and runs must be there:

    now         seconds on a clock of yours that does not go back
    pool        a text; what is remembered is kept for each pool in this process (default "")
    runs        all that are not gone: id; state, one of starting, serving, frozen, draining; ageSecs since its start
                command; inFlight; idleSecs, since its last request ended or it began to serve (0 while it serves one);
                viewers (open live views); overloadedRatio, the share of the last seconds with its CPU at its limit;
                retiresBecause, a text where it is to be replaced; and for freezing: cpuRatio, the share of its limit
                that it uses (default: unknown, then it is not frozen), hasOpenSockets (false), mayFreeze (true)
    waiting     requests that no run has taken yet
    averages    inFlight and waiting, averaged over the time since the pool's last line (default: as they are now)
    arrivals    requests that came since the pool's last line (default: as many as are more than at the last line)
    finished    requests that ended in a run since then (default: as many as came and are not there any more)
    settings    maxRequestsPerActorRun (4), desiredRequestsPerActorRun (3, may be fractional), idleTimeoutSecs (90),
                minRuns (0), maxRuns (none), freezeAfterSecs (none: runs are not frozen), freezeWithOpenSockets (false)
    policy      "greenroom" (default) or "platform", or an object with thresholds of autoscaler/policy/thresholds.py,
                such as {"late_price_secs": 28}
    serviceSecs, startSecs   where you measure how long a request and a start take (default: as it is seen from here)
    mayStart, startUnasked, hasCpuLeft, clockSecs, isOn   see autoscaler/policy/observing.py

Write a line every two seconds, and at once when a request finds no free slot. The answer:

    {"pool": "a", "wantedRuns": 2, "presentRuns": 1, "start": 1, "drain": [{"id": "r2", "reason": "…"}],
     "freeze": [], "resume": [], "reasons": ["2 runs: …"], "lookAgainInSecs": null}

start is how many runs to start now, drain which ones take nothing new and end with their last request, freeze which
ones stand still until a later line's resume names them. A line that can't be read is answered with {"error": {"type":
…, "message": …}} and changes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from autoscaler.policy.deciding import decide
from autoscaler.policy.memory import Memory
from autoscaler.policy.observing import Observation
from autoscaler.policy.thresholds import PRESETS, Policy
from gateway.core.errors import GreenroomError, InvalidRequest

IDLE_TIMEOUT_SECS = 90.0
_LONGEST_LINE = 4_000_000
_MOST_POOLS = 100_000


@dataclass(slots=True)
class Driven:
    """The pools of one driver, each with what is remembered of it."""

    memories: dict[str, Memory] = field(default_factory=dict)

    def answers(self, lines: Iterable[str]) -> Iterator[str]:
        """One line for each line that isn't empty, at once."""
        for line in lines:
            if line.strip():
                yield json.dumps(self.answer(line), ensure_ascii=False)

    def answer(self, line: str) -> dict[str, Any]:
        """The decision on one line, or what is wrong with it."""
        try:
            return self._decided(_parsed(line))
        except GreenroomError as error:
            return error.body()

    def _decided(self, given: dict[str, Any]) -> dict[str, Any]:
        now, pool = given.get("now"), given.get("pool", "")
        if isinstance(now, bool) or not isinstance(now, int | float) or not math.isfinite(now) or abs(now) > 1e12:
            raise InvalidRequest("now is a number of seconds.")
        if not isinstance(pool, str | int) or isinstance(pool, bool):
            raise InvalidRequest("pool is a text.")
        pool = str(pool)
        if pool not in self.memories and len(self.memories) >= _MOST_POOLS:
            raise InvalidRequest(f"At most {_MOST_POOLS} pools.")
        policy = _policy(given.get("policy", "greenroom"))
        settings = given.get("settings")
        if settings is None or isinstance(settings, dict):
            given = {**given, "settings": {"idleTimeoutSecs": IDLE_TIMEOUT_SECS, **(settings or {})}}
        seen = replace(Observation.from_json({**given, "memory": None}), memory=self.memories.get(pool, Memory()))
        decision = decide(policy, seen, float(now))
        self.memories[pool] = decision.memory
        return {"pool": pool, **decision.to_json()}


def _parsed(line: str) -> dict[str, Any]:
    if len(line) > _LONGEST_LINE:
        raise InvalidRequest(f"A line has at most {_LONGEST_LINE} characters.")
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"A line is a JSON object: {error}.") from error
    if not isinstance(given, dict):
        raise InvalidRequest("A line is a JSON object.")
    return given


def _policy(given: Any) -> Policy:
    if isinstance(given, dict):
        return Policy.from_json(given)
    if not isinstance(given, str) or given not in PRESETS:
        raise InvalidRequest(f"policy is one of {', '.join(PRESETS)}, or an object with thresholds.")
    return PRESETS[given]
