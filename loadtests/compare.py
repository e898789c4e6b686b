"""
Greenroom against other proxies: ``python -m loadtests.compare [--quick] [--json FILE] [--chart FILE]``.

Each proxy has one core to itself with one process or thread that serves; callers and upstreams share the other core.
Greenroom is a whole ``greenroom serve`` with everything on (token check, slots, request ids, metrics, log), once with
its protocol class (``splice``) and once with the ASGI proxy (``asgi``); its upstreams are runs of ordinary Actors.
CPU is the proxy's own, from the kernel's account, by request; medians of interleaved rounds, ratios within one round.

``cpu_vs_*``            a warm GET of 100 bytes, the same again and again, 32 callers
``cpu_varied_vs_nginx`` fresh traceparent, changing cookie, 64 lengths of answers, four hosts
``asgi_cpu_vs_go``      the first again, by the ASGI proxy
``stream_cpu_vs_nginx`` bodies of 10 MiB: the mean of what a MiB costs down and up
``ws_cpu_vs_haproxy``   WebSocket messages of 100 bytes, 32 sockets
``added_*_ms``          what callers wait longer than without a proxy, at half of the rate that the protocol class can
                        serve (requests are sent on schedule, whether or not earlier ones were answered)
``mem_10k_hosts_mb``    10,000 more Actors, each with a token: the worker's memory once each host was asked, above that
                        of one without them
``mem_1k_ws_mb``        1,000 silent WebSockets, above the same process before
``route_add_p95_ms``    from the answer to an Actor's creation until its host is known, 50 created at once
``sse_first_byte_p95_ms`` from an Actor's write of the first event of a stream to its caller's read of it

The proxies are set up as their manuals advise. Beside nginx and Go stands a variant of each that is tuned further:
``stream_cpu_vs_nginx_large_buffers`` and ``cpu_vs_go_buffer_pool``, which have no limit. They are fetched where
the machine has none (``loadtests/peers/tools.py``).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from loadtests.compare_chart import Bar, chart
from loadtests.compare_figures import (
    ADDED,
    FIRST_EVENT,
    LIMITS,
    MEMORY,
    ROUTES,
    STEADY,
    Comparison,
    Plan,
    first_events,
    memory,
    routes,
)
from loadtests.compare_greenroom import serving_greenroom
from loadtests.compare_profile import profile
from loadtests.compare_rounds import Outcome
from loadtests.compare_samples import Bench
from loadtests.compare_targets import Cores, NotMeasured, Target, serving_peer
from loadtests.compare_upstreams import Programs, serving_upstreams
from loadtests.figures import command_line, finish
from loadtests.peers.roster import PEERS
from loadtests.peers.tools import NotInstalled, tool
from loadtests.server import Server


def compare(given: argparse.Namespace, outcome: Outcome, folder: Path) -> None:
    """Everything that is asked for, into *outcome*."""
    plan, cores = Plan.of(given), Cores.of_this_machine()
    outcome.report.raw["load_1min_at_start"] = os.getloadavg()[0]
    outcome.report.raw["what_peers_can_not_set"] = {peer.name: peer.lacks for peer in PEERS if peer.lacks}
    # Callers, upstreams and this process are on one core, the proxies on the other.
    os.sched_setaffinity(0, {cores.load})
    bench = Bench(Programs.found(), folder)
    with contextlib.ExitStack() as stack:
        upstreams = stack.enter_context(serving_upstreams(bench.programs, cores.load, folder / "upstreams"))
        targets: dict[str, Target] = {}
        servers: dict[str, Server] = {}
        for path in ("splice", "asgi"):
            try:
                target, started = stack.enter_context(serving_greenroom(path, folder / path, bench.programs, cores))
            except NotMeasured as error:
                print(f"Greenroom ({path}) can't be measured: {error}", flush=True)
                continue
            targets[path], servers[path] = target, started
        for peer in PEERS:
            if peer.name not in plan.peers:
                continue
            try:
                place = folder / "peers" / peer.name
                targets[peer.name] = stack.enter_context(
                    serving_peer(peer, tool(peer.tool), upstreams, cores.proxy, place)
                )
            except (NotInstalled, NotMeasured) as error:
                print(f"{peer.title} is missing: {error}", flush=True)
                outcome.report.raw.setdefault("missing_peers", {})[peer.name] = str(error)
        here = Comparison(plan, bench, targets, upstreams, outcome)
        _attempt(outcome, here.steady, *STEADY)
        _attempt(outcome, here.varied, "cpu_varied_vs_nginx")
        _attempt(outcome, here.streams, "stream_cpu_vs_nginx")
        _attempt(outcome, here.sockets, "ws_cpu_vs_haproxy")
        _attempt(outcome, here.added, *ADDED)
        if not plan.is_quick:
            _attempt(outcome, here.memory_beside, "mem_1k_ws_mb")
        if given.profile and "splice" in targets:
            profile(targets["splice"], bench, given.profile)
        if servers:
            server = next(iter(servers.values()))
            _attempt(outcome, lambda: routes(server, outcome), ROUTES)
            _attempt(outcome, lambda: first_events(servers, outcome), FIRST_EVENT)
        else:
            outcome.miss("Greenroom did not serve", ROUTES, FIRST_EVENT)
    _attempt(outcome, lambda: memory(bench, cores, folder / "memory", outcome), *MEMORY)
    if given.chart:
        titles = {name: target.title for name, target in targets.items() if not target.only_in}
        draw(outcome, given.chart, titles)


def _attempt(outcome: Outcome, measure: Callable[[], None], *names: str) -> None:
    if not outcome.wants(*names):
        return
    print(f"measuring {', '.join(name for name in names if outcome.wants(name))}", flush=True)
    try:
        measure()
    except NotMeasured as error:
        measured = {figure.name for figure in outcome.report.figures}
        outcome.miss(str(error), *(name for name in names if name not in measured))


def draw(outcome: Outcome, path: Path, titles: dict[str, str]) -> None:
    """The chart of CPU per request."""
    prefix = "cpu_us_"
    bars = [
        Bar(titles[name], figure.value, is_ours=name in ("splice", "asgi"))
        for figure in outcome.report.figures
        if figure.name.startswith(prefix) and (name := figure.name.removeprefix(prefix)) in titles
    ]
    if not bars:
        print(f"no chart: {STEADY[0]} was not measured", flush=True)
        return
    note = "One core each, the same upstream; Greenroom with token check, slots, metrics and log. loadtests.compare"
    path.write_text(chart("CPU per proxied request", "microseconds, warm GET of 100 bytes", bars, note))


def main() -> None:
    """Measure and report."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the CPU per request there, as SVG")
    parser.add_argument("--only", metavar="NAMES", help=f"only these figures, with commas between: {', '.join(LIMITS)}")
    parser.add_argument("--rounds", type=int, help="other than 5 (quick: 3)")
    parser.add_argument("--secs", type=float, help="of one sample, in whole seconds; other than 2 (quick: 1)")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="py-spy's collapsed stacks of the protocol class")
    given = parser.parse_args()
    asked = frozenset(given.only.split(",")) if given.only else None
    if asked and (unknown := asked - LIMITS.keys()):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    outcome = Outcome(asked=asked)
    with tempfile.TemporaryDirectory(prefix="greenroom-compare-", ignore_cleanup_errors=True) as folder:
        # nginx' workers may be another user's, who has to get at what stands in here.
        Path(folder).chmod(0o755)
        try:
            compare(given, outcome, Path(folder))
        except (NotInstalled, NotMeasured) as error:
            measured = {figure.name for figure in outcome.report.figures}
            outcome.miss(str(error), *(LIMITS.keys() - measured))
    finish(outcome.report, given)


if __name__ == "__main__":
    main()
