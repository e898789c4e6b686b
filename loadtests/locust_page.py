"""The report of a load test with Locust as a page: its statistics, Greenroom's figures, and how they went over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from loadtests.locust_metrics import RequestRow, Series, total

_WIDTH, _HEIGHT = 720, 120
_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c1e21 }
table { border-collapse: collapse; margin: .5rem 0 2rem; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
.bad { color: #b00020; font-weight: 600 }
svg { display: block; background: #f6f7f9 } figure { margin: 0 0 1.2rem } figcaption { font-weight: 600 }
"""


@dataclass(frozen=True)
class LocustRow:
    """One line of Locust's statistics; times in milliseconds."""

    name: str
    requests: int
    failures: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class Sample:
    """Greenroom at one moment: seconds since the start, and what it did and held then."""

    at_secs: float
    requests_per_sec: float
    cpu_cores: float
    memory_mbytes: float
    runs: float
    held: float
    in_flight: float
    websockets: float


_CHARTS: tuple[tuple[str, Callable[[Sample], float]], ...] = (
    ("Requests per second that Greenroom ended", lambda sample: sample.requests_per_sec),
    ("Cores that Greenroom used (its Actors apart)", lambda sample: sample.cpu_cores),
    ("Memory of the worker, MiB", lambda sample: sample.memory_mbytes),
    ("Live runs", lambda sample: sample.runs),
    ("Requests held for a run", lambda sample: sample.held),
    ("Requests in flight", lambda sample: sample.in_flight),
    ("Open WebSockets", lambda sample: sample.websockets),
)
OWN_FIGURES = (
    ("wakes", "greenroom_wake_seconds_count"),
    ("starts of runs", "greenroom_run_starts_total"),
    ("ends of runs", "greenroom_run_ends_total"),
    ("quarantines", "greenroom_quarantines_total"),
    ("decisions", "greenroom_autoscaler_decisions_total"),
)


def metrics_page(rows: Sequence[RequestRow], series: Series) -> str:
    """What Greenroom has counted since its start; a page beside Locust's own."""
    return _page("Greenroom", [_refresh(), "<h1>Greenroom's own figures</h1>", requests_table(rows), own_table(series)])


def report_page(
    title: str, stats: Sequence[LocustRow], rows: Sequence[RequestRow], grown: Series, samples: Sequence[Sample]
) -> str:
    """The whole report."""
    return _page(
        title,
        [
            f"<h1>{escape(title)}</h1>",
            "<h2>What the callers saw (Locust)</h2>",
            locust_table(stats),
            "<h2>What Greenroom counted meanwhile</h2>",
            requests_table(rows),
            own_table(grown),
            *(_chart(name, [(sample.at_secs, of(sample)) for sample in samples]) for name, of in _CHARTS),
        ],
    )


def locust_table(stats: Sequence[LocustRow]) -> str:
    """Locust's statistics; failures stand out."""
    head = ("request", "count", "failures", "p50 ms", "p95 ms", "p99 ms", "max ms")
    lines = [
        (row.name, row.requests, row.failures, row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms)
        for row in sorted(stats, key=lambda row: row.name)
    ]
    return _table(head, lines, is_bad=lambda column, value: column == 2 and value != 0)


def requests_table(rows: Sequence[RequestRow]) -> str:
    """Requests by kind and temperature; 5xx and cut answers stand out."""
    head = ("kind, temperature", "count", "5xx", "cut", "mean ms", "p95 below ms")
    lines = [
        (f"{row.kind}, {row.temperature}", row.count, row.server_errors, row.cut, row.mean_ms, row.p95_ms)
        for row in rows
    ]
    return _table(head, lines, is_bad=lambda column, value: column == 2 and value != 0)


def own_table(series: Series) -> str:
    """Counts of what Greenroom did besides."""
    return _table(("what", "count"), [(title, total(series, name)) for title, name in OWN_FIGURES])


def _table(
    head: Sequence[str],
    lines: Sequence[Sequence[str | float]],
    is_bad: Callable[[int, str | float], bool] = lambda column, value: False,
) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = ""
    for line in lines:
        cells = (
            f'<td class="bad">{_cell(value)}</td>' if is_bad(column, value) else f"<td>{_cell(value)}</td>"
            for column, value in enumerate(line)
        )
        body += f"<tr>{''.join(cells)}</tr>\n"
    return f"<table><thead><tr>{titles}</tr></thead><tbody>\n{body}</tbody></table>"


def _cell(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _chart(title: str, points: Sequence[tuple[float, float]]) -> str:
    if not points:
        return ""
    last = max(at for at, _ in points) or 1.0
    highest = max(value for _, value in points)
    scale = highest or 1.0
    path = " ".join(f"{at / last * _WIDTH:.1f},{_HEIGHT - value / scale * (_HEIGHT - 8):.1f}" for at, value in points)
    return (
        f"<figure><figcaption>{escape(title)}: up to {_cell(highest)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}"><polyline points="{path}" fill="none" stroke="#1463b8" stroke-width="1.5"/>'
        f"</svg>0 to {last:.0f} s</figure>"
    )


def _refresh() -> str:
    return '<meta http-equiv="refresh" content="5">'


def _page(title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
