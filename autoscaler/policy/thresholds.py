"""No I/O: every threshold of the policy, with its unit, its default and the reason for it; and the two presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from gateway.core.errors import InvalidConfig


class RequestsRule(StrEnum):
    """How requests become a number of runs: by slots as the platform does, or by windows and what waiting costs."""

    SLOTS = "slots"
    WINDOWS = "windows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    What a decision goes by; what the owner of a pool sets (limits of a run, idle timeout, bounds) is not in here.

    ``requests_rule``: see ``RequestsRule``. All below is for ``windows`` alone.
    ``stable_window_secs`` 60: long enough that the noise of some requests a second is a tenth of them, short enough
    that a new level is believed within a minute. Knative's.
    ``panic_window_secs`` 6: the shortest in which a burst of requests of half a second is told from chance. Knative's.
    ``panic_factor`` 2: panic begins when the panic window asks for so many times the runs that serve. Knative's.
    ``panic_hold_secs`` 20: for so long after the last such moment nothing shrinks. Knative holds for 60 s; the waiting
    that bursts cause is over in a few seconds where runs start in three, and each held run is paid for.
    ``late_after_secs`` 1: who waits no longer has not noticed; a queue that is served within it needs no further run.
    ``queue_ratio`` 0.3: how much of ``late_after_secs`` a queue may use up before a run is started for it. The rest is
    for what a start takes longer than expected, and for who comes meanwhile.
    ``late_price_secs`` 70: run-seconds that one late request less is worth: about a minute of one run. With less, the
    simulator shows longer waits than Knative's on some traffic; with more, it shows little to be had for it. One number
    decides the trade everywhere: how many runs, and how long the last one is kept where that is learned. 0: off.
    ``spare_slots`` 0: free slots kept for a burst. None by default: they are paid for all the time.
    ``scale_down_delay_secs`` 10: the largest need of so many seconds counts. Three starts' worth: with less, a
    fluctuation costs a new start each time.
    ``shrink_margin_ratio`` 0.05: fewer runs only where so much more demand would not ask for them either. Counts over a
    minute differ by a few per cent under a steady load; without a margin they would turn the number to and fro.
    ``max_scale_up_factor`` 1000 and ``max_scale_down_factor`` 2: bounds of one decision against the runs there are, as
    Knative has them: growth is free, and no mistake takes away more than half.
    ``longest_drain_secs`` 10: a run that is in use is wound down only where requests last no longer than that on
    average. Else the run that is to go is kept busy by a few long ones, and is paid for without serving anybody new.
    ``assumed_start_secs`` 3: until a start was measured.
    ``overloaded_ratio`` 0.5: a run whose CPU was at its limit for more than this share of the last seconds is
    overloaded ("most of the last seconds").
    ``quiet_below_ratio`` 0.02: only a run that uses less than this share of its processor limit is frozen. A server
    that waits uses a thousandth, also with timers; one that works on something of its own at least a tenth.
    ``cpu_left_ratio`` 0.1: the load rule starts a run only where so much of the machine's CPU was idle in the last
    seconds. With less, one run more would only take from the others what it gets itself. 0: always.
    ``learns_idle_timeout`` on or off: the last run is kept for as long as pays by the pool's own gaps between requests,
    and never longer than its idle timeout.
    ``starts_ahead`` on or off: a run is started before anybody asks for it, where the pool's own gaps, or its habits of
    the day and the week, say that this pays: by the price of a late request, by how likely it is and how long the run
    waits for it, whatever the idle timeout.
    ``ahead_budget_ratio`` 0.1: what runs may wait in vain for those who were foreseen: so much of the run-seconds that
    the pool has used in the last day or so. A history that misleads costs a tenth, and no more.
    ``gaps_needed`` 12: before so many gaps were seen, the idle timeout holds as it is set.
    ``cold_late_requests`` 2: how many are late when a pool wakes, on average: who wakes it, and who comes meanwhile.
    """

    requests_rule: RequestsRule = RequestsRule.WINDOWS
    stable_window_secs: int = 60
    panic_window_secs: int = 6
    panic_factor: float = 2.0
    panic_hold_secs: float = 20.0
    late_after_secs: float = 1.0
    queue_ratio: float = 0.3
    late_price_secs: float = 70.0
    spare_slots: int = 0
    scale_down_delay_secs: float = 10.0
    shrink_margin_ratio: float = 0.05
    max_scale_up_factor: float = 1000.0
    max_scale_down_factor: float = 2.0
    longest_drain_secs: float = 10.0
    assumed_start_secs: float = 3.0
    overloaded_ratio: float = 0.5
    cpu_left_ratio: float = 0.1
    quiet_below_ratio: float = 0.02
    learns_idle_timeout: bool = False
    starts_ahead: bool = False
    ahead_budget_ratio: float = 0.1
    gaps_needed: int = 12
    cold_late_requests: float = 2.0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            is_whole = name in _WHOLE
            fits = isinstance(value, int) if is_whole else isinstance(value, int | float) and math.isfinite(value)
            if not fits or isinstance(value, bool) or not least <= value <= most:
                kind = "a whole number" if is_whole else "a number"
                raise InvalidConfig(f"{name} is {kind} from {least:g} to {most:g}, not {value!r:.60}.")
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise InvalidConfig(f"{name} is true or false, not {getattr(self, name)!r:.60}.")

    @property
    def wake_costs_secs(self) -> float:
        """The run-seconds that a wake is worth: what its late requests are, and its start."""
        return self.late_price_secs * self.cold_late_requests + self.assumed_start_secs

    def to_json(self) -> dict[str, Any]:
        """What is stored beside a decision."""
        return {**asdict(self), "requests_rule": str(self.requests_rule)}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Policy:
        """The policy again; unknown thresholds are refused, those left out have their defaults."""
        unknown = given.keys() - {field.name for field in fields(cls)}
        if unknown:
            known = ", ".join(field.name for field in fields(cls))
            raise InvalidConfig(f"{', '.join(sorted(unknown))[:200]}: no such threshold. Known ones: {known}.")
        rule = given.get("requests_rule", RequestsRule.WINDOWS)
        if rule not in list(RequestsRule):
            raise InvalidConfig(f"requests_rule is one of {', '.join(RequestsRule)}, not {rule!r:.60}.")
        return cls(**{**given, "requests_rule": RequestsRule(rule)})


_FLAGS = ("learns_idle_timeout", "starts_ahead")
_WHOLE = frozenset({"stable_window_secs", "panic_window_secs", "spare_slots", "gaps_needed"})
_RANGES: dict[str, tuple[float, float]] = {
    "stable_window_secs": (1, 60),
    "panic_window_secs": (1, 60),
    "panic_factor": (1, 1000),
    "panic_hold_secs": (0, 3600),
    "late_after_secs": (0, 3600),
    "queue_ratio": (0, 1),
    "late_price_secs": (0, 86_400),
    "spare_slots": (0, 1_000_000),
    "scale_down_delay_secs": (0, 3600),
    "shrink_margin_ratio": (0, 10),
    "max_scale_up_factor": (1, 1_000_000),
    "max_scale_down_factor": (1, 1_000_000),
    "longest_drain_secs": (0, 86_400),
    "assumed_start_secs": (0, 3600),
    "overloaded_ratio": (0, 1),
    "cpu_left_ratio": (0, 1),
    "quiet_below_ratio": (0, 1),
    "ahead_budget_ratio": (0, 1),
    "gaps_needed": (1, 1_000_000),
    "cold_late_requests": (0, 1000),
}
GREENROOM = Policy()
PLATFORM = Policy(requests_rule=RequestsRule.SLOTS)
PRESETS = {"greenroom": GREENROOM, "platform": PLATFORM}


def chosen(preset: str, thresholds: Mapping[str, Any]) -> Policy:
    """
    The policy of *preset* with these *thresholds* in place of its own.

    Raises InvalidConfig, which names what is wrong and what is expected.
    """
    if "requests_rule" in thresholds:
        raise InvalidConfig("autoscaler_thresholds: requests_rule comes with autoscaler_preset, not with these.")
    try:
        return Policy.from_json({**PRESETS[preset].to_json(), **thresholds})
    except InvalidConfig as error:
        raise InvalidConfig(f"autoscaler_thresholds: {error.message}") from None
