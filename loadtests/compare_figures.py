"""What ``loadtests.compare`` measures, figure by figure."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtests.compare_events import first_events_ms
from loadtests.compare_greenroom import serving_greenroom
from loadtests.compare_hosts import ADDED_AT_ONCE, MANY_HOSTS, add_hosts, added_hosts_ms, visit
from loadtests.compare_rounds import Outcome, cpu, interleaved, median, median_ratio
from loadtests.compare_samples import Bench, Latency, Sample
from loadtests.compare_targets import Cores, NotMeasured, Target
from loadtests.compare_upstreams import SMALL, host_of
from loadtests.figures import percentile
from loadtests.peers.roster import PEERS, QUICK
from loadtests.peers.templates import Upstream
from loadtests.server import TOKEN, Server

LIMITS = {
    "cpu_vs_go": 0.45,
    "cpu_vs_nginx": 1.6,
    "cpu_varied_vs_nginx": 2.2,
    "asgi_cpu_vs_go": 1.0,
    "stream_cpu_vs_nginx": 0.8,
    "ws_cpu_vs_haproxy": 1.5,
    "added_p50_ms": 1.0,
    "added_p95_ms": 5.0,
    "added_p99_ms": 10.0,
    "mem_10k_hosts_mb": 15.0,
    "mem_1k_ws_mb": 10.0,
    "route_add_p95_ms": 10.0,
    "sse_first_byte_p95_ms": 5.0,
}
STEADY = ("cpu_vs_go", "cpu_vs_nginx", "asgi_cpu_vs_go")
ADDED = ("added_p50_ms", "added_p95_ms", "added_p99_ms")
MEMORY = ("mem_10k_hosts_mb", "mem_1k_ws_mb")
ROUTES = "route_add_p95_ms"
FIRST_EVENT = "sse_first_byte_p95_ms"
MANY_SOCKETS = 1000
_SOCKETS_BEFORE = 50
_WARM_REQUESTS = 3000
_STREAMS = 200
_BESIDE_ADDED = ("nginx",)


@dataclass(frozen=True)
class Plan:
    """How much is measured. Seconds are those of one sample."""

    rounds: int
    secs: float
    peers: tuple[str, ...]
    is_quick: bool

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """As the command line says."""
        everyone = tuple(peer.name for peer in PEERS)
        rounds, secs, peers = (3, 1.0, QUICK) if given.quick else (5, 2.0, everyone)
        return cls(given.rounds or rounds, given.secs or secs, peers, given.quick)


@dataclass(frozen=True)
class Comparison:
    """All that serves, and the bench."""

    plan: Plan
    bench: Bench
    targets: dict[str, Target]
    upstreams: tuple[Upstream, ...]
    outcome: Outcome

    def among(self, *names: str, beside: tuple[str, ...] = ()) -> list[Target]:
        """Those of *names* that serve; in a whole comparison also those of *beside*."""
        wanted = names if self.plan.is_quick else names + beside
        return [self.targets[name] for name in dict.fromkeys(wanted) if name in self.targets]

    def raw(self, name: str, samples: dict[str, list[Any]]) -> None:
        """Keep every sample."""
        self.outcome.report.raw[name] = {who: [asdict(one) for one in all_of] for who, all_of in samples.items()}

    # --- CPU ---

    def steady(self) -> None:
        """Equal requests, over every proxy."""
        targets = [target for target in self.targets.values() if target.only_in in ("", "steady")]
        taken = interleaved(targets, self.plan.rounds, lambda target: self.bench.steady(target, self.plan.secs))
        self.raw("steady", taken)
        costs = {name: cpu(samples) for name, samples in taken.items()}
        self.outcome.ratio("cpu_vs_go", costs, "splice", "go", LIMITS["cpu_vs_go"])
        self.outcome.ratio("cpu_vs_nginx", costs, "splice", "nginx", LIMITS["cpu_vs_nginx"])
        self.outcome.ratio("asgi_cpu_vs_go", costs, "asgi", "go", LIMITS["asgi_cpu_vs_go"])
        self._beside("cpu_vs_go_buffer_pool", costs, "go_buffer_pool")
        self._costs("cpu_us", costs)

    def varied(self) -> None:
        """Requests of which no two are alike."""
        targets = self.among("splice", "nginx", beside=("asgi", "haproxy", "go", "envoy"))
        taken = interleaved(targets, self.plan.rounds, lambda target: self.bench.varied(target, self.plan.secs))
        self.raw("varied", taken)
        costs = {name: cpu(samples) for name, samples in taken.items()}
        name = "cpu_varied_vs_nginx"
        self.outcome.ratio(name, costs, "splice", "nginx", LIMITS[name])
        self._costs("cpu_varied_us", costs)

    def streams(self) -> None:
        """Large bodies, in one direction and in the other."""
        everyone = tuple(name for name, target in self.targets.items() if target.only_in in ("", "streams"))
        both = interleaved(
            self.among("splice", "nginx", "nginx_large_buffers", beside=everyone),
            self.plan.rounds,
            lambda target: (self.bench.down(target, self.plan.secs), self.bench.up(target, self.plan.secs)),
        )
        self.raw("down", {name: [down for down, _ in pairs] for name, pairs in both.items()})
        self.raw("up", {name: [up for _, up in pairs] for name, pairs in both.items()})
        costs = {name: [(down.cpu_us + up.cpu_us) / 2 for down, up in pairs] for name, pairs in both.items()}
        name = "stream_cpu_vs_nginx"
        self.outcome.ratio(name, costs, "splice", "nginx", LIMITS[name])
        self._beside(f"{name}_large_buffers", costs, "nginx_large_buffers")
        self._costs("stream_cpu_us", costs, "us/MiB")

    def sockets(self) -> None:
        """WebSocket messages."""
        able = tuple(name for name, target in self.targets.items() if target.has_sockets and not target.only_in)
        targets = self.among("splice", "haproxy", beside=able)
        taken = interleaved(targets, self.plan.rounds, lambda target: self.bench.messages(target, self.plan.secs))
        self.raw("messages", taken)
        costs = {name: cpu(samples) for name, samples in taken.items()}
        name = "ws_cpu_vs_haproxy"
        self.outcome.ratio(name, costs, "splice", "haproxy", LIMITS[name])
        self._costs("ws_cpu_us", costs)

    def _beside(self, name: str, costs: dict[str, list[float]], theirs: str) -> None:
        """The same ratio to a variant that is tuned further; it has no limit."""
        if costs.get("splice") and costs.get(theirs):
            self.outcome.add(name, median_ratio(costs["splice"], costs[theirs]), "x")

    def _costs(self, prefix: str, costs: dict[str, list[float]], unit: str = "us") -> None:
        for name, values in costs.items():
            self.outcome.add(f"{prefix}_{name}", median(values), unit)

    # --- Latency ---

    def added(self) -> None:
        """What a proxy adds at half of what the protocol class can serve; nginx at the same rate beside it."""
        splice = self.targets.get("splice")
        if splice is None:
            raise NotMeasured("Greenroom's protocol class does not serve")
        rate = 0.5 * self._capacity(splice)
        small = self.upstreams[0]
        direct = Target(
            name="direct",
            title="no proxy",
            port=small.port,
            pids=list,
            serving=lambda: 0,
            tail=str,
        )
        taken: dict[str, list[Latency]] = interleaved(
            [direct, *self.among("splice", *_BESIDE_ADDED)],
            self.plan.rounds,
            lambda target: self.bench.latency(target.at, f"{small.host}:{target.port}", rate, max(1.5, self.plan.secs)),
        )
        self.raw("latency", taken)
        self.outcome.report.raw["latency_rate_per_sec"] = rate
        if not taken.get("direct") or not taken.get("splice"):
            self.outcome.miss("a rate of half the capacity could not be held", *ADDED)
            return
        for name in ADDED:
            share = name.split("_")[1]
            for who in ("splice", *_BESIDE_ADDED):
                if not taken.get(who):
                    continue
                beyond = [
                    getattr(ours, share) - getattr(plain, share)
                    for ours, plain in zip(taken[who], taken["direct"], strict=True)
                ]
                if who == "splice":
                    self.outcome.add(name, median(beyond), "ms", LIMITS[name])
                else:
                    self.outcome.add(f"{who}_{name}", median(beyond), "ms")
        self.outcome.add("added_at_rate", rate, "/s")

    def _capacity(self, target: Target) -> float:
        """Requests per second of the steady rounds, or of one sample where there were none."""
        known = self.outcome.report.raw.get("steady", {}).get(target.name)
        samples = [Sample(**one) for one in known] if known else [self.bench.steady(target, self.plan.secs)]
        return median([sample.per_sec for sample in samples])

    # --- Memory of the others ---

    def memory_beside(self) -> None:
        """What a thousand sockets take in other proxies, which have served before."""
        for target in self.targets.values():
            if target.name in ("splice", "asgi") or target.only_in or not target.has_sockets:
                continue
            with contextlib.suppress(NotMeasured):
                added = sockets_mbytes(self.bench, target)
                self.outcome.add(f"mem_1k_ws_mb_{target.name}", added, "MiB")


# --- Memory and routes: of a Greenroom that has done nothing else --------------------------------------------------


def sockets_mbytes(bench: Bench, target: Target) -> float:
    """What a thousand silent WebSockets add to the memory of *target*."""
    with bench.held_sockets(target, _SOCKETS_BEFORE):
        pass  # what the first ones of a process need for ever
    before = target.rss_mbytes()
    with bench.held_sockets(target, MANY_SOCKETS):
        return target.rss_mbytes() - before


def memory(bench: Bench, cores: Cores, folder: Path, outcome: Outcome) -> None:
    """Both figures of memory: one process for the sockets and for the rest, a second one with the hosts."""
    data = folder / "data"
    warm = [(host_of(SMALL[0]), TOKEN)] * _WARM_REQUESTS
    with serving_greenroom("splice", folder / "rest", bench.programs, cores, data=data) as (target, server):
        visit(server, warm, status=200)
        at_rest = target.rss_mbytes()
        if outcome.wants("mem_1k_ws_mb"):
            outcome.add("mem_1k_ws_mb", sockets_mbytes(bench, target), "MiB", LIMITS["mem_1k_ws_mb"])
    outcome.add("mem_rest_mb", at_rest, "MiB")
    if outcome.wants("mem_10k_hosts_mb"):
        hosts = add_hosts(data, MANY_HOSTS)
        with serving_greenroom("splice", folder / "hosts", bench.programs, cores, data=data) as (target, server):
            visit(server, warm, status=200)
            # They have no build: known, their token checked, and refused for that.
            visit(server, hosts, status=404, saying=b"A build")
            outcome.add("mem_10k_hosts_mb", target.rss_mbytes() - at_rest, "MiB", LIMITS["mem_10k_hosts_mb"])


def routes(server: Server, outcome: Outcome) -> None:
    """How soon new hosts are known, in a Greenroom that serves."""
    took = asyncio.run(added_hosts_ms(server, ADDED_AT_ONCE))
    outcome.report.raw["route_add_ms"] = [round(value, 3) for value in took]
    outcome.add(ROUTES, percentile(took, 0.95), "ms", LIMITS[ROUTES])


def first_events(servers: dict[str, Server], outcome: Outcome) -> None:
    """How soon an event passes; the figure is the protocol class's, the ASGI proxy's stands beside it."""
    for path, server in servers.items():
        took = asyncio.run(first_events_ms(server, _STREAMS))
        outcome.report.raw[f"sse_first_byte_ms_{path}"] = [round(value, 3) for value in took]
        if path == "splice":
            outcome.add(FIRST_EVENT, percentile(took, 0.95), "ms", LIMITS[FIRST_EVENT])
        else:
            outcome.add(f"{path}_{FIRST_EVENT}", percentile(took, 0.95), "ms")
