"""Counts of requests as plain numbers, shown as Prometheus series when they are asked for."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

StatusClass = Literal["2xx", "3xx", "4xx", "5xx", "cut"]
Outcome = int | str | None
"""How a request ended: with a status, ``cut``, or None: nothing was answered."""


def status_class(status: int | None) -> StatusClass:
    """The label of an answer's *status*; None, no answer, is a cut one. 101 counts as 2xx: the upgrade was granted."""
    if status is None:
        return "cut"
    if status < 300:
        return "2xx"
    if status < 400:
        return "3xx"
    return "4xx" if status < 500 else "5xx"


# For all that can be answered: a look-up costs less than the question.
CLASSES: Mapping[Outcome, StatusClass] = {
    None: "cut",
    "cut": "cut",
    **{status: status_class(status) for status in range(100, 600)},
}


class Tally:
    """Requests of one kind and temperature: how many ended how, and how long they took."""

    __slots__ = ("_bounds", "counts", "ended", "secs")

    def __init__(self, statuses: Sequence[str], bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.ended = dict.fromkeys(statuses, 0)
        self.counts = [0] * (len(bounds) + 1)
        self.secs = 0.0

    def add(self, status: str, secs: float) -> None:
        """One more has ended."""
        self.ended[status] += 1
        self.counts[bisect_left(self._bounds, secs)] += 1
        self.secs += secs


class Tallies(Collector):
    """``greenroom_requests``, ``greenroom_request_seconds`` and the hits of the caches of heads."""

    def __init__(
        self, kinds: Sequence[str], statuses: Sequence[str], temperatures: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self._bounds = tuple(bounds)
        self.of = {labels: Tally(statuses, self._bounds) for labels in itertools.product(kinds, temperatures)}
        self.caches: dict[str, tuple[Callable[[], int], Callable[[], int]]] = {}
        self.before_shown: Callable[[], None] = lambda: None
        """Has whatever was gathered so far counted."""

    def collect(self) -> Iterator[Metric]:
        """The series as they stand."""
        self.before_shown()
        requests = CounterMetricFamily(
            "greenroom_requests",
            "Requests that have ended, by where they went, how they ended and whether a run was awake.",
            labels=("kind", "status", "temperature"),
        )
        seconds = HistogramMetricFamily(
            "greenroom_request_seconds",
            "From a request's head to the last byte of its answer.",
            labels=("kind", "temperature"),
        )
        edges = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for (kind, temperature), tally in self.of.items():
            for status, count in tally.ended.items():
                requests.add_metric((kind, status, temperature), count)
            buckets = list(zip(edges, itertools.accumulate(tally.counts), strict=True))
            seconds.add_metric((kind, temperature), buckets, tally.secs)
        yield requests
        yield seconds
        for at, name, what in ((0, "hits", "known already"), (1, "misses", "not known yet")):
            family = CounterMetricFamily(
                f"greenroom_head_cache_{name}", f"Heads of messages that were {what}, by cache.", labels=("cache",)
            )
            for cache, numbers in self.caches.items():
                family.add_metric((cache,), numbers[at]())
            yield family
