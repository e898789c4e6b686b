"""
Policies side by side on recorded and made traffic, without a clock:
``python -m loadtests.simulate [--quick] [--json FILE] [--chart FILE.svg]``, or ``--policy-stdio`` to drive the policy.

Two questions are asked of the policy in ``autoscaler/policy``, each with one setting for all traces: how many requests
are late (wait for more than a second) at no more run-seconds than Knative's on any trace; and how many run-seconds it
takes at no more late requests than Knative's on any trace. What is left is told by two who know more than a policy can:
one the rate of each minute, of which he makes the best, with a setting of his own for each trace; one every moment. A
run takes 3 s to start and 4 requests at once, a request 0.5 s on average (exponential); decisions are made every 2 s
and when a request finds no free slot.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from loadtests.figures import Report, command_line, finish
from loadtests.simulation import stdio
from loadtests.simulation.chart import Point, chart
from loadtests.simulation.engine import Workload
from loadtests.simulation.informed import best_for_each, informed_results
from loadtests.simulation.many_pools import secs_for_a_tick
from loadtests.simulation.oracle import oracle_run_secs
from loadtests.simulation.questions import (
    OURS,
    Result,
    Setting,
    fewest_late,
    fewest_run_secs,
    kpa_settings,
    other_settings,
    our_settings,
    play,
)
from loadtests.simulation.traffic import PATTERNS, TRACES, pattern, recorded

SEEDS = range(1, 7)
_QUICK_PATTERNS = ("spike", "slow_drip")


def traces() -> dict[str, list[Workload]]:
    """The recorded traffic, with several seeds each: a figure by one seed would be luck."""
    return {name: [recorded(name, spread_seed=seed, service_seed=seed + 100) for seed in SEEDS] for name in TRACES}


def patterns(*, quick: bool) -> dict[str, list[Workload]]:
    """The made traffic; starts take longer or shorter by a third."""
    return {name: [pattern(name, start_spread=0.3)] for name in (_QUICK_PATTERNS if quick else PATTERNS)}


def answer(report: Report, kpa: Result, results: Sequence[Result]) -> None:
    """The figures of both questions, and how they spread over the seeds."""
    fewest = fewest_late(results, kpa)
    if fewest is None:
        report.missing["late_vs_kpa"] = "no setting has so few run-seconds"
    else:
        report.add("late_vs_kpa", fewest.all_late / kpa.all_late, "", 0.7)
        report.raw["late_vs_kpa"] = told(fewest, kpa)
    cheapest = fewest_run_secs(results, kpa, on_each_trace=True)
    if cheapest is None:
        for name in ("run_seconds_vs_kpa", "run_seconds_vs_kpa_worst"):
            report.missing[name] = "no setting has so few late requests"
    else:
        report.add("run_seconds_vs_kpa", cheapest.mean_run_secs_ratio(kpa), "", 0.9)
        report.add("run_seconds_vs_kpa_worst", max(cheapest.run_secs_ratios(kpa).values()), "", 1.0)
        report.raw["run_seconds_vs_kpa"] = told(cheapest, kpa)
    in_sum = fewest_run_secs(results, kpa, on_each_trace=False)
    if in_sum is not None:
        report.add("run_seconds_vs_kpa_late_in_sum", in_sum.mean_run_secs_ratio(kpa), "")
        report.raw["run_seconds_vs_kpa_late_in_sum"] = told(in_sum, kpa)


def told(result: Result, kpa: Result) -> dict[str, Any]:
    """A result with its setting, for each trace and seed."""
    return {
        "setting": result.setting.title,
        "late": {trace: list(total.late) for trace, total in result.totals.items()},
        "late_of_kpa": {trace: list(total.late) for trace, total in kpa.totals.items()},
        "run_secs_vs_kpa": {
            trace: [
                round(mine / theirs, 4) for mine, theirs in zip(total.run_secs, kpa.totals[trace].run_secs, strict=True)
            ]
            for trace, total in result.totals.items()
        },
        "late_vs_kpa_by_seed": [
            round(
                sum(total.late[number] for total in result.totals.values())
                / max(1, sum(total.late[number] for total in kpa.totals.values())),
                3,
            )
            for number in range(len(next(iter(result.totals.values())).late))
        ],
    }


def all_of(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """What each setting came to, on recorded and on made traffic."""
    found: dict[str, dict[str, Any]] = {}
    for result in results:
        of_setting = found.setdefault(result.setting.title, {})
        for name, total in result.totals.items():
            of_setting[name] = {
                "late": result.late(name),
                "run_secs": round(result.run_secs(name), 1),
                "starts": total.starts,
            }
    return found


def side_by_side(
    kpa: Result,
    results: Sequence[Result],
    oracles: Mapping[str, float],
    informed: Mapping[str, tuple[int, float]] | None = None,
) -> str:
    """For each trace or pattern: late requests, and run-seconds over Knative's, of each setting."""
    names = list(kpa.totals)
    rows = [["policy", *names]]
    for result in results:
        ratios = result.run_secs_ratios(kpa)
        rows.append([result.setting.title, *(f"{result.late(name)} · {ratios[name]:.3f}" for name in names)])
    if informed:
        cells = (informed.get(name) for name in names)
        rows.append(
            ["knows the rates, its best for each", *(f"{one[0]} · {one[1]:.3f}" if one else "-" for one in cells)]
        )
    rows.append(["knows the future", *(f"0 · {oracles[name]:.3f}" for name in names)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def oracle_ratios(kpa: Result, loads: Mapping[str, Sequence[Workload]]) -> dict[str, float]:
    """Run-seconds of who knows the future, over Knative's."""
    return {name: sum(map(oracle_run_secs, seeds)) / kpa.run_secs(name) for name, seeds in loads.items()}


def drawn(
    kpa: Result, results: Sequence[Result], loads: Mapping[str, Sequence[Workload]], oracles: Mapping[str, float]
) -> str:
    """The chart of the recorded traffic."""
    requests = {name: sum(len(load.arrivals) for load in seeds) for name, seeds in loads.items()}
    panels = {
        name: [
            Point(
                policy=result.setting.policy,
                run_secs_ratio=result.run_secs_ratios(kpa)[name],
                late_ratio=result.late(name) / requests[name],
                title=result.setting.title,
            )
            for result in results
        ]
        for name in loads
    }
    note = f"Each dot is one setting, summed over {len(SEEDS)} seeds. Late: waited for more than a second."
    return chart("Late requests against run-seconds", panels, oracles, note)


def played(settings: Sequence[Setting], loads: Mapping[str, Sequence[Workload]]) -> list[Result]:
    """Each setting on all traffic, as many at once as there are processors."""
    with ProcessPoolExecutor() as pool:
        return list(pool.map(partial(play, loads=loads), settings))


def measure(given: argparse.Namespace) -> Report:
    """All figures; the side-by-side tables are printed on the way."""
    report = Report()
    swept = not given.quick
    settings = [*kpa_settings(swept=swept), *other_settings(swept=swept), *our_settings(swept=swept)]
    loads = traces()
    results = played(settings, loads)
    kpa = results[0]
    oracles = oracle_ratios(kpa, loads)
    print("Recorded traffic: late requests · run-seconds over Knative's")
    informed = informed_results(loads, swept=swept)
    best = best_for_each(informed, kpa)
    print(side_by_side(kpa, results, oracles, best), end="\n\n", flush=True)
    if given.chart:
        given.chart.write_text(drawn(kpa, [*results, *informed], loads, oracles))
    made = patterns(quick=given.quick)
    few = [*kpa_settings(swept=False), *other_settings(swept=False), *our_settings(swept=False)]
    made_results = played(few, made)
    print("Made traffic, starts of 3 s that vary by a third")
    print(side_by_side(made_results[0], made_results, oracle_ratios(made_results[0], made)), end="\n\n", flush=True)
    report.add("decide_10k_pools_s", secs_for_a_tick(10_000), "s", 1.0)
    answer(report, kpa, [result for result in results if result.setting.policy == OURS])
    report.add("run_seconds_of_oracle_vs_kpa", math.prod(oracles.values()) ** (1 / len(oracles)), "")
    report.raw["oracle_run_secs_vs_kpa"] = oracles
    if len(best) == len(loads):
        ratios = [ratio for _, ratio in best.values()]
        report.add("run_seconds_of_informed_vs_kpa", math.prod(ratios) ** (1 / len(ratios)), "")
    report.raw["informed_run_secs_vs_kpa"] = {name: ratio for name, (_, ratio) in best.items()}
    report.raw["all"] = all_of([*results, *informed, *made_results])
    return report


def main() -> None:
    """Simulate and report, or be driven."""
    parser = command_line(f"{__doc__}\n--policy-stdio: {stdio.__doc__}")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="draw late requests against run-seconds there")
    parser.add_argument("--policy-stdio", action="store_true", help="read observations, write decisions; see above")
    given = parser.parse_args()
    if given.policy_stdio:
        for line in stdio.Driven().answers(sys.stdin):
            print(line, flush=True)
        return
    finish(measure(given), given)


if __name__ == "__main__":
    main()
