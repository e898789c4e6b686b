"""The figures of several workers as one text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.figures_text import with_workers


def figures(requests: float, kinds: dict[str, float], times: list[float]) -> str:
    """As a worker tells them: with labels, without, and of several series each."""
    registry = CollectorRegistry()
    Gauge("held", "Requests that wait.", registry=registry).set(requests)
    counted = Counter("ends", 'With "quotes", {braces} and \\ in its help.', ("kind",), registry=registry)
    for kind, number in kinds.items():
        counted.labels(kind).inc(number)
    histogram = Histogram("secs", "Times.", buckets=(1, 2), registry=registry)
    for secs in times:
        histogram.observe(secs)
    return generate_latest(registry).decode()


def series_of(text: str) -> dict[tuple[str, str, frozenset[tuple[str, str]]], float]:
    """Every series as a collector reads it: family, name, labels."""
    return {
        (family.name, sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


texts = st.builds(
    figures,
    st.floats(0, 1e9),
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zl", "Zp"])), st.floats(0, 9)
    ),
    st.lists(st.floats(0, 9)),
)


@given(st.dictionaries(st.integers(0, 20), texts, min_size=1, max_size=3))
def test_each_series_of_each_worker_is_there_once(given: dict[int, str]) -> None:
    """With its own labels, its value, and the number of its worker; each family is declared once."""
    merged = with_workers(given)
    expected = {
        (family, name, labels | {("worker", str(number))}): value
        for number, text in given.items()
        for (family, name, labels), value in series_of(text).items()
    }
    assert series_of(merged) == expected
    declared = [line for line in merged.splitlines() if line.startswith("# TYPE ")]
    assert len(declared) == len({line.split()[2] for line in declared})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("up 1", 'up{worker="3"} 1', id="no labels"),
        pytest.param('up{a="b"} 1', 'up{worker="3",a="b"} 1', id="labels"),
        pytest.param("up{} 1", 'up{worker="3"} 1', id="empty labels"),
        pytest.param('up{a="}{"} 1', 'up{worker="3",a="}{"} 1', id="braces in a value"),
    ],
)
def test_one_series(line: str, expected: str) -> None:
    """The label stands first."""
    assert with_workers({3: f"# TYPE up gauge\n{line}\n"}) == f"# TYPE up gauge\n{expected}\n"
