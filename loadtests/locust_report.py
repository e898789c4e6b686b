"""
A house in use, and one report of it: ``python -m loadtests.locust_report [--quick] [--users N] [--minutes M]``.

Starts a Greenroom, lets the users of ``loadtests/locustfile.py`` at it (ten minutes; ``--quick``: one) and puts what
Greenroom itself counted beside Locust's statistics: as text, as a page (``--html FILE``), as figures (``--json FILE``).
``--web`` leaves the test to Locust's own web page, until Ctrl-C; Greenroom's figures are at ``/greenroom`` there.

``locust_failed``            requests, streams and messages that failed or were not what they had to be
``locust_requests``          how many there were
``greenroom_5xx``            answers of 500 and above that Greenroom itself counted
``greenroom_cpu_ms``         CPU of Greenroom (its Actors apart) for each request that it ended
``memory_grown_mb``          the worker's memory at the end above that after the first fifth of the time
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loadtests.compare_greenroom import worker_of
from loadtests.compare_targets import NotMeasured, children_of, cpu_secs, rss_mbytes
from loadtests.figures import Report, command_line, finish
from loadtests.locust_metrics import RequestRow, Series, growth, quantile, read_series, request_rows, total
from loadtests.locust_page import OWN_FIGURES, LocustRow, Sample, report_page
from loadtests.server import TOKEN, Server, running

_LOCUSTFILE = Path(__file__).parent / "locustfile.py"
_SAMPLE_SECS = 1.0
# Streams, sockets and held requests that are under way when the time is up.
_STOP_SECS = 30
_WEB_PORT = 8089


class Watch:
    """Samples a Greenroom, from a thread of its own, until it is closed."""

    def __init__(self, server: Server) -> None:
        self.samples: list[Sample] = []
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def close(self) -> None:
        """No more samples."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        url = f"http://127.0.0.1:{self._server.port}"
        began = before_at = time.monotonic()
        before, before_cpu = read_series(url), greenroom_cpu_secs(self._server)
        while not self._over.wait(_SAMPLE_SECS):
            try:
                now, series, cpu = time.monotonic(), read_series(url), greenroom_cpu_secs(self._server)
                memory = rss_mbytes(worker_of(self._server.pid))
            except (OSError, NotMeasured):
                continue  # a sample more or less
            past = now - before_at
            ended = total(growth(before, series), "greenroom_requests_total")
            self.samples.append(
                Sample(
                    at_secs=now - began,
                    requests_per_sec=ended / past,
                    cpu_cores=(cpu - before_cpu) / past,
                    memory_mbytes=memory,
                    runs=total(series, "greenroom_runs"),
                    held=total(series, "greenroom_held_requests"),
                    in_flight=total(series, "greenroom_requests_in_flight"),
                    websockets=total(series, "greenroom_websockets_open"),
                )
            )
            before, before_at, before_cpu = series, now, cpu


def greenroom_cpu_secs(server: Server) -> float:
    """CPU time of the parent, the worker and the holder of events sockets; not of shims and Actors."""
    return sum(cpu_secs(pid) for pid in (server.pid, *children_of(server.pid)))


def locust_rows(stats: list[dict[str, Any]]) -> list[LocustRow]:
    """The lines of the JSON that Locust ends with."""
    return [
        LocustRow(
            name=one["name"],
            requests=one["num_requests"],
            failures=one["num_failures"],
            p50_ms=percentile_of(one["response_times"], 0.5),
            p95_ms=percentile_of(one["response_times"], 0.95),
            p99_ms=percentile_of(one["response_times"], 0.99),
            max_ms=one["max_response_time"] or 0.0,
        )
        for one in stats
    ]


def percentile_of(counts: Mapping[str, int], share: float) -> float:
    """Of Locust's table of milliseconds, rounded to two digits, and how often they came."""
    wanted = share * sum(counts.values())
    reached = 0.0
    for milliseconds, count in sorted((float(key), count) for key, count in counts.items()):
        reached += count
        if reached >= wanted:
            return milliseconds
    return 0.0


def run_locust(server: Server, folder: Path, users: int, minutes: float) -> tuple[list[dict[str, Any]], str]:
    """Locust without its page; its statistics, and what it said of failures. Raises SystemExit where it had none."""
    result = folder / "locust"
    command = [
        *(sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--host", f"http://127.0.0.1:{server.port}"),
        *("--headless", "--users", str(users), "--spawn-rate", str(max(1, users // 10))),
        *("--run-time", f"{round(minutes * 60)}s", "--stop-timeout", str(_STOP_SECS)),
        *("--only-summary", "--json-file", str(result), "--csv", str(folder / "csv"), "--loglevel", "WARNING"),
        # What failed is a figure of ours; another exit code than 0 is one of Locust's own.
        *("--exit-code-on-error", "0"),
    ]
    done = subprocess.run(
        command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    path = result.with_suffix(".json")
    if done.returncode or not path.exists():
        raise SystemExit(f"Locust ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return json.loads(path.read_text()), (folder / "csv_failures.csv").read_text()


def run_web(server: Server) -> None:
    """Locust with its page, until it is interrupted."""
    print(
        f"Locust: http://127.0.0.1:{_WEB_PORT}, Greenroom's figures: http://127.0.0.1:{_WEB_PORT}/greenroom", flush=True
    )
    command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--host", f"http://127.0.0.1:{server.port}"]
    with contextlib.suppress(KeyboardInterrupt):  # which Locust hears itself
        subprocess.run(
            [*command, "--web-host", "127.0.0.1", "--web-port", str(_WEB_PORT)], env=_environment(), check=False
        )


def _environment() -> dict[str, str]:
    return {**os.environ, "GREENROOM_TOKEN": TOKEN}


def text_report(stats: list[LocustRow], rows: list[RequestRow], grown: Series) -> str:
    """Both tables, for a terminal."""
    lines = [f"{'callers (Locust)':<30}{'count':>9}{'failed':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'max ms':>9}"]
    lines += [
        f"{row.name[:29]:<30}{row.requests:>9}{row.failures:>8}{row.p50_ms:>9.0f}{row.p95_ms:>9.0f}{row.p99_ms:>9.0f}"
        f"{row.max_ms:>9.0f}"
        for row in sorted(stats, key=lambda row: row.name)
    ]
    lines += ["", f"{'Greenroom itself':<30}{'count':>9}{'5xx':>8}{'cut':>9}{'mean ms':>9}{'p95 <':>9}"]
    lines += [
        f"{row.kind + ', ' + row.temperature:<30}{row.count:>9.0f}{row.server_errors:>8.0f}{row.cut:>9.0f}"
        f"{row.mean_ms:>9.1f}{row.p95_ms:>9.0f}"
        for row in rows
    ]
    lines += ["", *(f"{title:<30}{total(grown, name):>9.0f}" for title, name in OWN_FIGURES), ""]
    return "\n".join(lines)


def add_figures(report: Report, stats: list[LocustRow], grown: Series, samples: list[Sample], cpu: float) -> None:
    """What both counted, as figures."""
    report.add("locust_failed", sum(row.failures for row in stats), "requests", 0)
    report.add("locust_requests", sum(row.requests for row in stats), "requests")
    for name, of in (("warm: page", "warm_page"), ("wake: page", "wake_page"), ("socket: echo", "socket_echo")):
        found = next((row for row in stats if row.name == name), None)
        if found is None:
            report.missing[f"{of}_p95_ms"] = f"there was no request {name!r}"
        else:
            report.add(f"{of}_p95_ms", found.p95_ms, "ms")
    ended = total(grown, "greenroom_requests_total")
    report.add("greenroom_5xx", total(grown, "greenroom_requests_total", status="5xx"), "answers", 0)
    report.add("greenroom_cpu_ms", 1000 * cpu / max(1.0, ended), "ms")
    report.add("wakes", total(grown, "greenroom_wake_seconds_count"), "")
    report.add("wake_p95_below_ms", 1000 * quantile(grown, "greenroom_wake_seconds", 0.95), "ms")
    if len(samples) >= 5:
        settled = samples[len(samples) // 5]
        report.add("memory_grown_mb", samples[-1].memory_mbytes - settled.memory_mbytes, "MiB")
        report.add("runs_at_most", max(sample.runs for sample in samples), "")
    else:
        report.missing["memory_grown_mb"] = "Greenroom could not be sampled"


def main() -> None:
    """Run and report."""
    parser = command_line(__doc__ or "")
    parser.add_argument("--users", type=_positive(int), help="other than 100 (quick: 40)")
    parser.add_argument("--minutes", type=_positive(float), help="other than 10 (quick: 1)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report there as a page")
    parser.add_argument("--web", action="store_true", help="Locust's own web page instead, until Ctrl-C")
    given = parser.parse_args()
    users = given.users or (40 if given.quick else 100)
    minutes = given.minutes or (1.0 if given.quick else 10.0)
    report = Report()
    with (
        tempfile.TemporaryDirectory(prefix="greenroom-locust-", ignore_cleanup_errors=True) as folder,
        running([], {"log_level": "warning"}) as server,
    ):
        if given.web:
            run_web(server)
            return
        url = f"http://127.0.0.1:{server.port}"
        before, cpu_before = read_series(url), greenroom_cpu_secs(server)
        watch = Watch(server)
        try:
            stats, failures = run_locust(server, Path(folder), users, minutes)
        finally:
            watch.close()
        grown, cpu = growth(before, read_series(url)), greenroom_cpu_secs(server) - cpu_before
    rows, lines = request_rows(grown), locust_rows(stats)
    add_figures(report, lines, grown, watch.samples, cpu)
    report.raw |= {"users": users, "minutes": minutes, "failures": failures.splitlines()[:50]}
    report.raw["locust"] = [vars(line) for line in lines]
    print(text_report(lines, rows, grown))
    if report.figures[0].value:
        print(failures)
    if given.html:
        title = f"{users} users, {minutes:g} min"
        given.html.write_text(report_page(title, lines, rows, grown, watch.samples))
    finish(report, given)


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value <= 10_000:
            raise argparse.ArgumentTypeError("between 0 and 10,000")
        return value

    return number


if __name__ == "__main__":
    main()
