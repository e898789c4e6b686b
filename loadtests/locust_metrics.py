"""Greenroom's own figures: ``/metrics`` as numbers, and how they changed while a load test ran."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Labels = frozenset[tuple[str, str]]
Series = Mapping[tuple[str, Labels], float]

_READ_SECS = 10


def parse_series(text: str) -> dict[tuple[str, Labels], float]:
    """The samples of a text in Prometheus' format, by name and labels; Greenroom's label values need no escapes."""
    series = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        head, _, value = line.rpartition(" ")
        name, _, rest = head.partition("{")
        pairs = (pair.partition("=") for pair in rest.removesuffix("}").split(",") if pair)
        series[name, frozenset((label, text.strip('"')) for label, _, text in pairs)] = float(value)
    return series


def read_series(url: str) -> dict[tuple[str, Labels], float]:
    """What the process at *url* counts now. Raises OSError."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=_READ_SECS) as answer:
        return parse_series(answer.read().decode())


def total(series: Series, name: str, **labels: str) -> float:
    """The sum of all samples of *name* that have these labels."""
    wanted = set(labels.items())
    return sum(value for (found, has), value in series.items() if found == name and wanted <= has)


def growth(before: Series, after: Series) -> dict[tuple[str, Labels], float]:
    """How much each sample has grown; what is a gauge has no meaning in it."""
    return {key: value - before.get(key, 0.0) for key, value in after.items()}


@dataclass(frozen=True)
class RequestRow:
    """Requests of one kind and temperature, as Greenroom counted them."""

    kind: str
    temperature: str
    count: float
    server_errors: float
    cut: float
    mean_ms: float
    p95_ms: float


def request_rows(series: Series) -> list[RequestRow]:
    """Each kind and temperature that had a request; quantiles are the upper edges of the histogram's buckets."""
    rows = []
    pairs = sorted({(dict(labels)["kind"], dict(labels)["temperature"]) for name, labels in series if _is_count(name)})
    for kind, temperature in pairs:
        labels = {"kind": kind, "temperature": temperature}
        count = total(series, "greenroom_requests_total", **labels)
        if count <= 0:
            continue
        timed = total(series, "greenroom_request_seconds_count", **labels)
        rows.append(
            RequestRow(
                kind=kind,
                temperature=temperature,
                count=count,
                server_errors=total(series, "greenroom_requests_total", status="5xx", **labels),
                cut=total(series, "greenroom_requests_total", status="cut", **labels),
                mean_ms=1000 * total(series, "greenroom_request_seconds_sum", **labels) / max(1.0, timed),
                p95_ms=1000 * quantile(series, "greenroom_request_seconds", 0.95, **labels),
            )
        )
    return rows


def _is_count(name: str) -> bool:
    return name == "greenroom_requests_total"


def quantile(series: Series, name: str, share: float, **labels: str) -> float:
    """The upper edge of the bucket in which *share* of a histogram's values end; 0 for one without values."""
    edges = sorted(_buckets(series, name, labels))
    if not edges or edges[-1][1] <= 0:
        return 0.0
    wanted = share * edges[-1][1]
    finite = [edge for edge, _ in edges if edge != float("inf")]
    reached = next(edge for edge, count in edges if count >= wanted)
    return min(reached, finite[-1]) if finite else 0.0


def _buckets(series: Series, name: str, labels: Mapping[str, str]) -> Iterable[tuple[float, float]]:
    sums: dict[float, float] = {}
    for (found, has), value in series.items():
        facts = dict(has)
        if found == f"{name}_bucket" and labels.items() <= facts.items():
            edge = float(facts["le"])
            sums[edge] = sums.get(edge, 0.0) + value
    return sums.items()
