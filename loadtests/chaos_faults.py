"""Brings a fault of the plan about, and ends it: signals for processes, wires for what lies between them."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from dataclasses import dataclass, field

from loadtests.chaos_fleet import Fleet, health, wait_until
from loadtests.chaos_plan import AUTOSCALERS, GATEWAYS, Fault, Kind
from loadtests.compare_targets import NotMeasured, children_of

_SLOW_SECS = 1.0
_LEADER_SECS = 30.0


@dataclass
class Scene:
    """What a fault was done to, and when."""

    began: float
    dead_by: float = 0.0
    killed: tuple[str, ...] = ()
    paused: str = ""
    links: tuple[str, ...] = ()
    limits: dict[int, tuple[int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def killed_gateway(self) -> str:
        """The gateway that died, if one did."""
        return next((name for name in self.killed if name in GATEWAYS), "")


def _links(store: str) -> tuple[str, ...]:
    return tuple(f"{name}:{store}" for name in (*GATEWAYS, *AUTOSCALERS))


def _leader(fleet: Fleet) -> str:
    name: str = wait_until(fleet.leader, _LEADER_SECS, "somebody leads before the fault")
    return name


def begin(fleet: Fleet, fault: Fault) -> Scene:
    """The fault is there. Raises NotMeasured where it can't be brought about."""
    kind = fault.kind
    needs_leader = kind in (
        *(Kind.LEADER_KILLED, Kind.BOTH_KILLED, Kind.LEADER_PAUSED),
        *(Kind.LEADER_CUT_OFF, Kind.LEADER_WITHOUT_RECORDS),
    )
    leader = _leader(fleet) if needs_leader else ""
    scene = Scene(time.monotonic())
    if kind in (Kind.GATEWAY_KILLED, Kind.LEADER_KILLED, Kind.BOTH_KILLED):
        scene.killed = tuple(name for name in (fault.gateway, leader) if name)
        for name in scene.killed:
            fleet.programs[name].kill()
        scene.dead_by = time.monotonic()
    elif kind is Kind.LEADER_PAUSED:
        scene.paused = leader
        fleet.programs[leader].signal_all(signal.SIGSTOP)
    elif kind is Kind.REDIS_EMPTY:
        fleet.redis.program.kill()
        fleet.redis.start()
    elif kind is Kind.REDIS_GONE:
        scene.links = _links("redis")
        fleet.wires.set("refuse", *scene.links)
        fleet.redis.program.kill()
    elif kind is Kind.REDIS_SLOW:
        scene.links = _links("redis")
        fleet.wires.set("delay", *scene.links, delay_secs=_SLOW_SECS)
    elif kind is Kind.RECORDS_RESTARTED:
        fleet.postgres.program.stop(signal.SIGINT)
        fleet.postgres.start()
    elif kind is Kind.RECORDS_GONE:
        scene.links = _links("records")
        fleet.wires.set("refuse", *scene.links)
        # As in a crash: nothing is written any more, and the log is read at the next start.
        fleet.postgres.program.stop(signal.SIGQUIT)
    elif kind is Kind.DISK_FULL:
        scene.limits = _fill_disk(fleet)
    elif kind is not Kind.CALM:
        of = fault.gateway or leader
        store = "redis" if kind in (Kind.GATEWAY_CUT_OFF, Kind.LEADER_CUT_OFF) else "records"
        scene.links = (f"{of}:{store}",)
        scene.notes.append(of)
        fleet.wires.set("hold", *scene.links)
    return scene


def _fill_disk(fleet: Fleet) -> dict[int, tuple[int, int]]:
    """The kernel lets no process of Greenroom write to a file, as if there were no room; what each might before."""
    before = {}
    for name, program in fleet.programs.items():
        # What descends from an autoscaler are shims and Actors, whose disk is another matter.
        for pid in (program.pid, *(children_of(program.pid) if name in GATEWAYS else ())):
            before[pid] = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[pid][1]))
    return before


def end(fleet: Fleet, fault: Fault, scene: Scene) -> None:
    """What was gone is there again, as an operator or his supervisor would have it."""
    for name in scene.killed:
        fleet.start(name)
    if scene.paused:
        fleet.programs[scene.paused].signal_all(signal.SIGCONT)
    if fault.kind is Kind.REDIS_GONE:
        fleet.redis.start()
    if fault.kind is Kind.RECORDS_GONE:
        fleet.postgres.start()
    if scene.links:
        fleet.wires.set("pass", *scene.links)
    for pid, limits in scene.limits.items():
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def is_well(fleet: Fleet) -> bool:
    """Whether each process says that it is ready, and exactly one that it leads."""
    if not all(fleet.is_ready(name) for name in GATEWAYS):
        return False
    told = [health(fleet.ports[name]) for name in AUTOSCALERS]
    leaders = [one for _, one in told if isinstance(one, dict) and one.get("leading") is True]
    return all(status == 200 for status, _ in told) and len(leaders) == 1


def must_live(fleet: Fleet) -> None:
    """Raises NotMeasured where a process has ended by itself: it has to live through every fault but its own."""
    for name, program in fleet.programs.items():
        if program.process is not None and program.process.poll() is not None:
            raise NotMeasured(f"{name} has ended by itself with {program.process.returncode}")
