"""No I/O: how a pool looks to the policy, of what the supervisor and the gateways know of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoscaler.policy.observing import Limits, RunSeen
from gateway.core.demand import RunUse
from gateway.core.lifecycle import Readiness
from gateway.core.load import Load
from gateway.core.standby import Generation, StandbyConfig, StandbyTarget

_UNUSED = RunUse(in_flight=0, idle_secs=0.0)
_UNKNOWN: Mapping[str, Load] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """
    One live run of the pool as the supervisor knows it.

    ``leaves_because``: why it must leave its machine; it is replaced as one of an old build is. ``may_freeze`` and
    ``cpu_ratio``: see ``RunSeen``.
    """

    run_id: str
    generation: Generation
    readiness: Readiness
    age_secs: float
    leaves_because: str | None = None
    may_freeze: bool = True
    cpu_ratio: float | None = None


def generation_of(target: StandbyTarget | None) -> Generation | None:
    """What new runs are made from; None when *target* can't have runs any more: deleted, switched off, no build."""
    return target.generation if target is not None and target.config.is_enabled else None


def limits_of(config: StandbyConfig) -> Limits:
    """What the owner of the pool has set."""
    return Limits(
        max_requests_per_run=config.max_requests_per_run,
        desired_requests_per_run=config.desired_requests_per_run,
        idle_timeout_secs=config.idle_timeout_secs,
        min_runs=config.min_runs,
        max_runs=config.max_runs,
        freeze_after_secs=config.freeze_after_secs,
        freeze_with_open_sockets=config.freeze_with_open_sockets,
    )


def runs_seen(
    views: Sequence[RunView],
    uses: Mapping[str, RunUse],
    generation: Generation | None,
    loads: Mapping[str, Load] = _UNKNOWN,
) -> tuple[RunSeen, ...]:
    """The runs of a pool with the *uses* that all gateways make of them, and their *loads* where those are known."""
    return tuple(_run_seen(view, uses.get(view.run_id, _UNUSED), loads.get(view.run_id), generation) for view in views)


def _run_seen(view: RunView, use: RunUse, load: Load | None, generation: Generation | None) -> RunSeen:
    return RunSeen(
        run_id=view.run_id,
        state=view.readiness,
        age_secs=view.age_secs,
        in_flight=use.in_flight,
        idle_secs=use.idle_secs,
        viewers=use.viewers,
        overloaded_ratio=load.overloaded_ratio if load else 0.0,
        has_open_sockets=use.silent > 0,
        retires_because=view.leaves_because or _outdated(view.generation, generation),
        may_freeze=view.may_freeze,
        cpu_ratio=view.cpu_ratio,
    )


def _outdated(own: Generation, wanted: Generation | None) -> str | None:
    if wanted is None or own == wanted:
        return None
    return "a newer build" if own.build_id != wanted.build_id else f"{wanted.memory_mbytes} MB of memory are set now"
