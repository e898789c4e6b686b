"""
No I/O: every policy over its settings and all traces, and the two questions that are asked of it.

Outcomes are summed over several seeds of the service times and of the spread of arrivals inside their seconds: with one
seed, Knative's own late requests on the same trace vary between 8 and 52.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial

from autoscaler.policy.observing import Limits
from autoscaler.policy.thresholds import GREENROOM, PLATFORM
from loadtests.simulation.engine import Chooser, Outcome, Workload, simulate
from loadtests.simulation.fixed import FixedIdle
from loadtests.simulation.hybrid import Hybrid
from loadtests.simulation.kpa import Kpa
from loadtests.simulation.ours import Ours

KPA = "kpa"
OURS = "greenroom"


@dataclass(frozen=True, slots=True)
class Setting:
    """A policy with its settings in words; ``make`` gives it anew for each pool."""

    policy: str
    words: str
    make: Callable[[], Chooser]

    @property
    def title(self) -> str:
        """Both in one."""
        return f"{self.policy} ({self.words})"


class Learning(Enum):
    """What our policy learns from a pool's past: nothing, how long to keep the last run, or when to start, too."""

    NONE = auto()
    IDLE = auto()
    BOTH = auto()


@dataclass(frozen=True, slots=True)
class Total:
    """Late requests and run-seconds of one trace, for each seed."""

    late: Sequence[int]
    run_secs: Sequence[float]
    starts: int


@dataclass(frozen=True, slots=True)
class Result:
    """What one setting came to on each trace."""

    setting: Setting
    totals: Mapping[str, Total] = field(default_factory=dict)

    def late(self, trace: str) -> int:
        """Over all seeds."""
        return sum(self.totals[trace].late)

    def run_secs(self, trace: str) -> float:
        """Over all seeds."""
        return sum(self.totals[trace].run_secs)

    @property
    def all_late(self) -> int:
        """Over all traces."""
        return sum(map(self.late, self.totals))

    def run_secs_ratios(self, other: Result) -> dict[str, float]:
        """Over those of *other*, for each trace."""
        return {trace: self.run_secs(trace) / other.run_secs(trace) for trace in self.totals}

    def mean_run_secs_ratio(self, other: Result) -> float:
        """Their geometric mean."""
        ratios = self.run_secs_ratios(other).values()
        return math.exp(sum(map(math.log, ratios)) / len(ratios))


def kpa_settings(*, swept: bool) -> list[Setting]:
    """Knative's defaults first; then other targets and grace periods."""
    pairs = [(0.7, 30.0)]
    if swept:
        pairs += [(ratio, grace) for ratio in (0.5, 0.7, 0.9, 1.0) for grace in (0.0, 30.0, 90.0)]
    return [
        Setting(
            KPA, f"target {ratio:g} of 4, grace {grace:g} s", partial(Kpa, utilization_ratio=ratio, grace_secs=grace)
        )
        for ratio, grace in dict.fromkeys(pairs)
    ]


def other_settings(*, swept: bool) -> list[Setting]:
    """Fixed idle timeout, hybrid histogram and the platform's rules."""
    idle = (15.0, 30.0, 60.0, 90.0, 120.0, 300.0) if swept else (60.0, 300.0)
    tails = (0.8, 0.9, 0.95, 0.99) if swept else (0.99,)
    settings = [Setting("fixed", f"idle {secs:g} s", partial(FixedIdle, secs)) for secs in idle]
    settings += [Setting("hybrid", f"tail {tail:g}", partial(Hybrid, tail_ratio=tail)) for tail in tails]
    for desired in (2, 3) if swept else (3,):
        for secs in idle:
            limits = Limits(idle_timeout_secs=secs, desired_requests_per_run=desired)
            settings.append(Setting("platform", f"desired {desired}, idle {secs:g} s", partial(Ours, PLATFORM, limits)))
    return settings


def our_settings(*, swept: bool) -> list[Setting]:
    """
    Idle timeouts, prices of a late request, and the desired load of a run, those that answer the questions first; and
    both ways to learn from the past.
    """
    chosen = [(90.0, 70.0, 3, Learning.NONE), (90.0, 24.0, 3, Learning.NONE), (51.0, 60.0, 3, Learning.NONE)]
    chosen += [(300.0, 70.0, 3, Learning.BOTH)]
    if swept:
        prices = (15.0, 20.0, 24.0, 28.0, 34.0, 50.0, 60.0, 70.0, 80.0)
        chosen += [(idle, price, 3, Learning.NONE) for idle in (30.0, 45.0, 51.0, 60.0, 90.0) for price in prices]
        chosen += [(90.0, price, desired, Learning.NONE) for price in (24.0, 70.0) for desired in (2, 4)]
        chosen += [
            (idle, price, 3, learning)
            for idle in (90.0, 120.0, 300.0)
            for price in (24.0, 50.0, 70.0)
            for learning in (Learning.IDLE, Learning.BOTH)
        ]
    return [ours(*settings) for settings in dict.fromkeys(chosen)]


def ours(idle_secs: float, price_secs: float, desired: int, learning: Learning) -> Setting:
    """One setting of our own policy."""
    policy = replace(
        GREENROOM,
        late_price_secs=price_secs,
        learns_idle_timeout=learning is not Learning.NONE,
        starts_ahead=learning is Learning.BOTH,
    )
    limits = Limits(idle_timeout_secs=idle_secs, desired_requests_per_run=desired)
    idle = {
        Learning.NONE: f"idle {idle_secs:g} s",
        Learning.IDLE: f"idle up to {idle_secs:g} s, learned",
        Learning.BOTH: f"idle up to {idle_secs:g} s, learned, ahead",
    }[learning]
    return Setting(OURS, f"{idle}, price {price_secs:g} s, desired {desired}", partial(Ours, policy, limits))


def play(setting: Setting, loads: Mapping[str, Sequence[Workload]]) -> Result:
    """*setting* on every trace, with every seed."""
    totals = {}
    for trace, seeds in loads.items():
        totals[trace] = total_of([simulate(load, setting.make()) for load in seeds])
    return Result(setting, totals)


def total_of(outcomes: Sequence[Outcome]) -> Total:
    """Of one trace, with each seed."""
    return Total(
        late=[outcome.late for outcome in outcomes],
        run_secs=[outcome.run_secs for outcome in outcomes],
        starts=sum(outcome.starts for outcome in outcomes),
    )


def fewest_late(results: Iterable[Result], kpa: Result) -> Result | None:
    """The first question: the fewest late requests with no more run-seconds than Knative's on any trace."""
    fit = [result for result in results if max(result.run_secs_ratios(kpa).values()) <= 1.0]
    return min(fit, key=lambda result: (result.all_late, result.mean_run_secs_ratio(kpa)), default=None)


def fewest_run_secs(results: Iterable[Result], kpa: Result, *, on_each_trace: bool) -> Result | None:
    """
    The second question: the fewest run-seconds with no more late requests than Knative's, on each trace or summed over
    them, and with no more run-seconds on any trace.
    """
    fit = [
        result
        for result in results
        if max(result.run_secs_ratios(kpa).values()) <= 1.0
        and (
            all(result.late(trace) <= kpa.late(trace) for trace in kpa.totals)
            if on_each_trace
            else result.all_late <= kpa.all_late
        )
    ]
    return min(fit, key=lambda result: result.mean_run_secs_ratio(kpa), default=None)
