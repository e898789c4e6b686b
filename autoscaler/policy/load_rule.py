"""No I/O: how many runs the CPU asks for. It never decides between one and none: that is for requests alone."""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.policy.observing import Observation, RunSeen
from autoscaler.policy.thresholds import Policy

NO_CPU = "none for load, since the machine has no CPU left"


def asked_by_load(policy: Policy, seen: Observation, runs: Sequence[RunSeen]) -> tuple[int, str | None]:
    """
    Runs, and why; 0 and None where no run is overloaded.

    With half of those that are up overloaded, one more; with fewer, as many as there are: without one of them the
    others would be. A run that starts is the one more already, and its own load says nothing: booting is not overload.
    """
    up = [run for run in runs if run.is_up]
    overloaded = sum(run.overloaded_ratio > policy.overloaded_ratio for run in up)
    if not overloaded:
        return 0, None
    share = f"{overloaded} of {len(up)} overloaded for most of the last seconds"
    if 2 * overloaded < len(up):
        return len(up), f"as many as there are: {share}"
    if not seen.has_cpu_left:
        return len(up), f"{NO_CPU}: {share}"
    return len(up) + 1, f"one more for load: {share}"
