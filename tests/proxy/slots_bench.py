"""A desk of slots with a clock that is moved by hand, and requests that wait at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from gateway.core.errors import (
    GreenroomError,
)
from gateway.core.lifecycle import Readiness
from gateway.core.standby import Generation, PoolKey
from gateway.proxy.route_table import LiveRun
from gateway.proxy.slots import Held, SlotDesk, Want
from gateway.state.ports import PoolBlocked, RouteEnded, RoutesReset, RunRoute

POOL = PoolKey(target_id="actor", user_id="owner")
ELSEWHERE = PoolKey(target_id="other", user_id="owner")
GENERATIONS = [Generation(build_id=build, memory_mbytes=1024) for build in ("old", "new")]
OLD, NEW = GENERATIONS


def route(
    run_id: str,
    readiness: Readiness = Readiness.SERVING,
    *,
    generation: Generation = OLD,
    pool: PoolKey | None = POOL,
) -> RunRoute:
    return RunRoute(
        run_id=run_id,
        actor_id="actor",
        user_id="owner",
        live_view_label=f"label-{run_id}",
        readiness=readiness,
        pool=pool,
        generation=generation if pool else None,
    )


def ended(run_id: str, error_type: str | None = None) -> RouteEnded:
    return RouteEnded(
        run_id=run_id,
        live_view_label=f"label-{run_id}",
        error_type=error_type,
        message="It ended.",
        exit_code=3,
        log_tail=("last line",),
    )


@dataclass
class Bench:
    """A desk with a clock and a poke that can be looked at."""

    room_size: int = 1000
    now: float = 100.0
    chance: float = 0.0
    pokes: int = 0
    desk: SlotDesk = field(init=False)
    versions: count[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.desk = SlotDesk(
            "gateway",
            room_size=self.room_size,
            clock=lambda: self.now,
            chance=lambda: self.chance,
            poke=self.poke,
        )

    def poke(self) -> None:
        self.pokes += 1

    def apply(self, *changes: RunRoute | RouteEnded | RoutesReset | PoolBlocked) -> list[LiveRun]:
        gone: list[LiveRun] = []
        for change in changes:
            gone += self.desk.apply(change, next(self.versions))
        return gone

    def run(self, run_id: str) -> LiveRun:
        run = self.desk.routes.run(run_id)
        assert run is not None
        return run


def want(
    limit: int = 10,
    *,
    caller: str = "ann",
    desired: int | None = None,
    generation: Generation = OLD,
    pool: PoolKey = POOL,
    is_owner: bool = False,
) -> Want:
    return Want(
        pool=pool,
        generation=generation,
        desired=desired or limit,
        limit=limit,
        idle_timeout_secs=30.0,
        caller=caller,
        is_owner=is_owner,
    )


@dataclass(eq=False)
class Waiter:
    """A held request and all that it was told."""

    held: Held
    told: list[LiveRun | GreenroomError] = field(default_factory=list)

    @property
    def outcome(self) -> LiveRun | GreenroomError | None:
        assert len(self.told) <= 1, "settled more than once"
        return self.told[0] if self.told else None


def waits(bench: Bench, wanted: Want) -> Waiter:
    """A request that finds no slot and waits."""
    assert bench.desk.take(wanted) is None
    told: list[LiveRun | GreenroomError] = []
    held = Held(caller=wanted.caller, want=wanted, settle=told.append)
    bench.desk.hold(held)
    return Waiter(held, told)


def failed(waiters: list[Waiter]) -> list[Waiter]:
    return [waiter for waiter in waiters if isinstance(waiter.outcome, GreenroomError)]


def granted(waiters: list[Waiter]) -> list[Waiter]:
    return [waiter for waiter in waiters if isinstance(waiter.outcome, LiveRun)]
