"""Counts of requests: added in a moment, and shown as Prometheus wants them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric

from gateway.tallies import CLASSES, Tallies, status_class

KINDS, STATUSES, TEMPERATURES = ("standby", "own"), ("2xx", "5xx", "cut"), ("warm", "cold")
BOUNDS = (0.01, 0.1, 1.0)


def tallies() -> Tallies:
    return Tallies(KINDS, STATUSES, TEMPERATURES, BOUNDS)


def shown(counted: Tallies, name: str, **labels: str) -> float:
    """The value of the one series of this name and these labels."""
    values = [
        sample.value
        for metric in counted.collect()
        for sample in metric.samples
        if sample.name == name and sample.labels == labels
    ]
    (value,) = values
    return value


def test_everything_is_shown_before_anything_has_happened() -> None:
    """So that a rate over a series is right from its first request on: each pair of labels is there, with 0."""
    metrics: dict[str, Metric] = {metric.name: metric for metric in tallies().collect()}
    counts = [sample for sample in metrics["greenroom_requests"].samples if sample.name.endswith("_total")]
    assert len(counts) == len(KINDS) * len(STATUSES) * len(TEMPERATURES)
    assert {sample.value for sample in counts} == {0}


def test_a_request_counts_once_where_it_belongs() -> None:
    """And nowhere else."""
    counted = tallies()
    counted.of["standby", "cold"].add("5xx", 0.5)
    for kind, status, temperature in itertools.product(KINDS, STATUSES, TEMPERATURES):
        labels = {"kind": kind, "status": status, "temperature": temperature}
        expected = 1 if (kind, status, temperature) == ("standby", "5xx", "cold") else 0
        assert shown(counted, "greenroom_requests_total", **labels) == expected
    labels = {"kind": "standby", "temperature": "cold"}
    assert shown(counted, "greenroom_request_seconds_count", **labels) == 1
    assert shown(counted, "greenroom_request_seconds_sum", **labels) == 0.5


def test_what_is_no_status_is_refused() -> None:
    """Labels are few and known before; nothing from outside can make one."""
    with pytest.raises(KeyError):
        tallies().of["own", "warm"].add("418", 0.1)


@pytest.mark.parametrize(
    ("secs", "first"),
    [
        pytest.param(0.0, "0.01", id="no time at all"),
        pytest.param(0.01, "0.01", id="exactly a bound belongs to it"),
        pytest.param(0.0100001, "0.1", id="a little more does not"),
        pytest.param(1.0, "1.0", id="exactly the last bound"),
        pytest.param(3600.0, "+Inf", id="longer than all of them"),
    ],
)
def test_the_first_bucket_that_counts_it(secs: float, first: str) -> None:
    """It and all wider ones do: ``le`` means at most."""
    counted = tallies()
    counted.of["own", "warm"].add("2xx", secs)
    edges = ["0.01", "0.1", "1.0", "+Inf"]
    buckets = [
        shown(counted, "greenroom_request_seconds_bucket", kind="own", temperature="warm", le=edge) for edge in edges
    ]
    at = edges.index(first)
    assert buckets == [0] * at + [1] * (len(edges) - at)


@given(st.lists(st.tuples(st.sampled_from(STATUSES), st.floats(0, 10))))
def test_nothing_is_lost(requests: list[tuple[str, float]]) -> None:
    """Whatever comes: counts by status, by time and in all agree, and the times add up."""
    counted = tallies()
    for status, secs in requests:
        counted.of["standby", "warm"].add(status, secs)
    labels = {"kind": "standby", "temperature": "warm"}
    by_status = [shown(counted, "greenroom_requests_total", status=status, **labels) for status in STATUSES]
    assert sum(by_status) == len(requests)
    assert shown(counted, "greenroom_request_seconds_count", **labels) == len(requests)
    assert shown(counted, "greenroom_request_seconds_bucket", le="+Inf", **labels) == len(requests)
    assert shown(counted, "greenroom_request_seconds_sum", **labels) == pytest.approx(sum(secs for _, secs in requests))


def test_the_hits_of_a_cache_are_asked_for_when_they_are_shown() -> None:
    """The caches count by themselves."""
    counted, hits = tallies(), [3]
    counted.caches["answer"] = (lambda: hits[0], lambda: 1)
    assert shown(counted, "greenroom_head_cache_hits_total", cache="answer") == 3
    hits[0] = 7
    assert shown(counted, "greenroom_head_cache_hits_total", cache="answer") == 7
    assert shown(counted, "greenroom_head_cache_misses_total", cache="answer") == 1


def test_what_is_still_gathered_is_counted_before_it_is_shown() -> None:
    """Whoever looks sees all that has ended."""
    counted = tallies()
    counted.before_shown = lambda: counted.of["own", "warm"].add("2xx", 0.1)
    assert shown(counted, "greenroom_requests_total", kind="own", status="2xx", temperature="warm") == 1


@pytest.mark.parametrize("outcome", [None, "cut", 100, 204, 304, 404, 599])
def test_every_way_to_end_has_a_label(outcome: int | str | None) -> None:
    """The same as a status by itself has."""
    assert CLASSES[outcome] == ("cut" if isinstance(outcome, str) else status_class(outcome))
