"""
What a grown-up house does when its parts die: ``python -m loadtests.chaos [--quick] [--json FILE] [--seed N]``.

Three gateways behind HAProxy, two autoscalers, Redis and PostgreSQL are processes of their own, wired through links
that can be slow, cut or refused (``loadtests/chaos_wire.py``). While probers ask without a pause, every kind of fault
comes once, in an order and at moments that the seed decides; ``--quick`` has outages of 10 s in place of 60, and leaves
out the partitions that are rarer. For each fault: requests, failures, the longest time without a good warm answer, how
long it took until all was well again, and what must never happen and did.

``redis_commands_per_warm_request``  commands in Redis that more warm requests cause, of 10,000
``cpu_vs_embedded``            CPU for a warm request, gateway with Redis over ``greenroom serve``
``wake_added_by_redis_p95_ms`` a wake by gateway, Redis and autoscaler, beyond one in a single process
``requests_per_cpu_second_2_workers_vs_1``  of one gateway
``gateway_killed_failed``      requests that failed when a gateway was killed, beyond those that were in its hands
``leader_killed_gap_s``        from the kill to the answer of a sleeping Actor that was called at once
``redis_gone_warm_failed``     warm requests that failed while Redis was gone
``limit_violations``           requests that met another one in a run whose limit is 1, of 100,000 (quick: 10,000)
``double_starts``              runs started twice, or two runs started for one wake
``lost_writes``                writes that were acknowledged and are not there
``routes_10k_actors_s``, ``_mb``  a gateway's start with 10,000 more Actors, and its memory, beyond one without them

``--clocks-apart`` does all of it with clocks that are a minute off in either direction: leases, expiries and fencing go
by Redis' own clock, and a process measures its own waits by its monotonic one. Which start belongs to which wake can't
be told then, only whether a run was started twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from loadtests import chaos_figures
from loadtests.chaos_caller import Caller, closing
from loadtests.chaos_faults import Scene, begin, end, is_well, must_live
from loadtests.chaos_fleet import CLOCKS_APART, Fleet, housed
from loadtests.chaos_outcome import Outcome, broken, double_starts, split, starts_for_one_wake, table
from loadtests.chaos_plan import AGE_SECS, Fault, Kind, plan
from loadtests.chaos_probes import FRESH, WAKES, Probes, host_of
from loadtests.compare_targets import NotMeasured
from loadtests.figures import Report, command_line, finish
from loadtests.locust_setup import SetupFailed
from loadtests.peers.tools import NotInstalled

_WELL_SECS = 150.0
_LIMIT_REQUESTS, _LIMIT_REQUESTS_QUICK = 100_000, 10_000
_LEADER_GAP_SECS = 60.0
CHAOS = ("gateway_killed_failed", "leader_killed_gap_s", "redis_gone_warm_failed", "limit_violations")


async def fresh_secs(fleet: Fleet) -> float:
    """How long the caller of a sleeping Actor waits for his answer. Raises NotMeasured when there is none."""
    caller = Caller(fleet.balancer.port)
    with closing(caller):
        began = time.monotonic()
        while True:
            left = _LEADER_GAP_SECS - (time.monotonic() - began)
            reply = await caller.ask("GET", "/", host=host_of(FRESH), within_secs=max(0.1, left))
            if reply.status == 200:
                return time.monotonic() - began
            if left <= 0:
                raise NotMeasured(f"nothing was started within {_LEADER_GAP_SECS:g} s: {reply.problem}")


async def suffer(fleet: Fleet, probes: Probes, fault: Fault, report: Report) -> Outcome:
    """One fault, from its quiet before to when all is well again."""
    await asyncio.sleep(fault.quiet_secs)
    if fault.kind is not Kind.CALM:
        await asyncio.sleep(fleet.began + AGE_SECS - time.monotonic())
    scene: Scene = await asyncio.to_thread(begin, fleet, fault)
    if fault.kind is Kind.LEADER_KILLED:
        gap = await fresh_secs(fleet)
        report.add("leader_killed_gap_s", gap, "s", 5)
        scene.notes.append(f"a new leader after {gap:.1f} s")
    await asyncio.sleep(max(0.0, scene.began + fault.secs - time.monotonic()))
    await asyncio.to_thread(end, fleet, fault, scene)
    over = time.monotonic()
    is_healed = await _well_again(fleet, probes, over)
    if not is_healed:
        scene.notes.append(f"NOT WELL after {_WELL_SECS:g} s")
    healed = time.monotonic()
    outcome = Outcome(fault, scene.began, over, healed, scene.killed_gateway, scene.dead_by, notes=scene.notes)
    print(f"{fault.kind}: {outcome.healed - outcome.began:.1f} s {'; '.join(scene.notes)}", flush=True)
    return outcome


async def _well_again(fleet: Fleet, probes: Probes, since: float) -> bool:
    """All say that they are ready, and each prober had a good answer to a request sent after *since*."""
    while time.monotonic() < since + _WELL_SECS:
        good = {answer.prober for answer in probes.answers[-2000:] if answer.sent > since and not answer.problem}
        if len(good) == 4 and await asyncio.to_thread(is_well, fleet):
            return True
        await asyncio.sleep(0.1)
    return False


async def chaos(fleet: Fleet, faults: Sequence[Fault], given: argparse.Namespace, report: Report) -> None:
    """All faults one after the other, and what came of them, into *report*."""
    probes = Probes(fleet.balancer.port, wake_secs=_pick_secs(given) + 10)
    await probes.prepare()
    outcomes: list[Outcome] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(probes.probe())
            try:
                for fault in faults:
                    outcomes.append(await suffer(fleet, probes, fault, report))
                    must_live(fleet)
            finally:
                probes.is_over.set()
    except* NotMeasured as errors:
        raise NotMeasured(str(errors.exceptions[0])) from errors
    await probes.top_up(_LIMIT_REQUESTS_QUICK if given.quick else _LIMIT_REQUESTS)
    lost = await probes.lost_writes()
    twice = double_starts(probes.answers)
    if not given.clocks_apart:  # else a run may say that it was started before its caller came
        twice += starts_for_one_wake(probes.wakes, await asyncio.to_thread(_starts, fleet))
    split(probes.answers, outcomes)
    print(table(outcomes), flush=True)
    for line in [*twice, *lost][:20]:
        print(line, flush=True)
    add_chaos(report, outcomes)
    report.add("double_starts", len(twice), "", 0)
    report.add("lost_writes", len(lost), "", 0)
    report.raw |= {
        "chaos": [
            {
                "fault": str(outcome.fault.kind),
                "gateway": outcome.fault.gateway,
                "secs": outcome.fault.secs,
                "requests": {prober: len(outcome.of(prober)) for prober in ("warm", "wake", "limit", "write")},
                "failed": {prober: len(outcome.failed(prober)) for prober in ("warm", "wake", "limit", "write")},
                "broken": broken(outcome),
                "notes": outcome.notes,
            }
            for outcome in outcomes
        ],
        "problems": sorted({f"{answer.prober}: {answer.problem}" for answer in probes.answers if answer.problem})[:50],
        "twice": twice,
        "lost": lost[:50],
    }


def _starts(fleet: Fleet) -> list[tuple[str, float]]:
    """When runs of the sleeping Actors were started, those that failed apart."""
    ids = {fleet.site.call("GET", f"/acts/local~{name}")["id"]: name for name in WAKES}
    return [
        (ids[run["actId"]], datetime.fromisoformat(run["startedAt"]).timestamp())
        for run in fleet.runs()
        if run["actId"] in ids and run["status"] != "FAILED"
    ]


def add_chaos(report: Report, outcomes: Sequence[Outcome]) -> None:
    """The figures of the faults that were there."""
    by_kind = {outcome.fault.kind: outcome for outcome in outcomes}
    if killed := by_kind.get(Kind.GATEWAY_KILLED):
        beyond = [
            answer for prober in ("warm", "wake", "limit", "write") for answer in killed.failed_beyond_in_flight(prober)
        ]
        report.add("gateway_killed_failed", len(beyond), "requests", 0)
    if gone := by_kind.get(Kind.REDIS_GONE):
        report.add("redis_gone_warm_failed", len(gone.failed("warm")), "requests", 0)
    limited = [answer for outcome in outcomes for answer in outcome.of("limit")]
    report.add("limit_violations", sum(1 for answer in limited if answer.in_flight > 1), "requests", 0)
    report.add("limit_requests", len(limited), "requests")
    report.add("broken_invariants", sum(len(broken(outcome)) for outcome in outcomes), "", 0)
    unhealed = sum(1 for outcome in outcomes if any(note.startswith("NOT WELL") for note in outcome.notes))
    report.add("never_well_again", unhealed, "faults", 0)


def _pick_secs(given: argparse.Namespace) -> float:
    """Shorter than the outages of the plan, so that some wakes wait for their end and some are refused."""
    return 8.0 if given.quick else 20.0


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--seed", type=int, default=8, help="of the plan: order, moments and gateways")
    parser.add_argument("--outage", type=float, metavar="SECS", help="other than 60 (quick: 10)")
    parser.add_argument("--faults", metavar="NAMES", help=f"only these, with commas between: {', '.join(Kind)}")
    parser.add_argument("--only", choices=("faults", "figures"), help="only the faults, or only what needs none")
    parser.add_argument(
        "--clocks-apart",
        action="store_true",
        help="a gateway's clock is a minute ahead, that of an autoscaler a minute behind",
    )
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the logs of Greenroom's processes there")
    given = parser.parse_args()
    source = random.Random(given.seed)
    faults = plan(source.random, outage_secs=given.outage or (10.0 if given.quick else 60.0), is_quick=given.quick)
    if given.faults:
        wanted = {name.strip() for name in given.faults.split(",")}
        if unknown := wanted - set(Kind):
            parser.error(f"no such fault: {', '.join(sorted(unknown))}")
        faults = [fault for fault in faults if fault.kind in wanted]
    report = Report()
    report.raw |= {"seed": given.seed, "load_1min_at_start": os.getloadavg()[0]}
    if given.only != "figures":
        _attempt(report, lambda: run_chaos(faults, given, report), *CHAOS)
    if given.only != "faults":
        for name, measure in chaos_figures.MEASURES.items():
            _attempt(report, lambda measure=measure: measure(report, given.quick), *name.split(", "))
    finish(report, given)


def run_chaos(faults: Sequence[Fault], given: argparse.Namespace, report: Report) -> None:
    """A house for the faults."""
    with (
        tempfile.TemporaryDirectory(prefix="greenroom-chaos-", ignore_cleanup_errors=True) as folder,
        housed(
            Path(folder), pick_timeout_secs=_pick_secs(given), clocks=CLOCKS_APART if given.clocks_apart else None
        ) as fleet,
    ):
        try:
            fleet.push_actors()
            asyncio.run(chaos(fleet, faults, given, report))
        finally:
            if given.logs:
                given.logs.mkdir(parents=True, exist_ok=True)
                for log in Path(folder).glob("*.log"):
                    shutil.copy(log, given.logs)


def _attempt(report: Report, measure: Callable[[], None], *names: str) -> None:
    print(f"measuring {', '.join(names)}", flush=True)
    try:
        measure()
    except (NotMeasured, NotInstalled, SetupFailed, SystemExit, OSError) as error:
        measured = {figure.name for figure in report.figures}
        report.missing |= {name: str(error)[-500:] for name in names if name not in measured}


if __name__ == "__main__":
    main()
