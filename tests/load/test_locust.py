"""Locust's users against a real Greenroom, and the report of both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.locust_metrics import growth, parse_series, quantile, request_rows, total
from loadtests.locust_page import LocustRow, Sample, report_page
from loadtests.locust_report import locust_rows, percentile_of
from loadtests.locust_setup import SetupFailed, site_of

ROOT = Path(__file__).resolve().parents[2]
BEFORE = """\
# HELP greenroom_requests_total Requests.
greenroom_requests_total{kind="standby",status="2xx",temperature="warm"} 3.0
greenroom_requests_total{kind="standby",status="5xx",temperature="warm"} 0.0
greenroom_request_seconds_bucket{kind="standby",le="0.001",temperature="warm"} 3.0
greenroom_request_seconds_bucket{kind="standby",le="0.01",temperature="warm"} 3.0
greenroom_request_seconds_bucket{kind="standby",le="+Inf",temperature="warm"} 3.0
greenroom_request_seconds_count{kind="standby",temperature="warm"} 3.0
greenroom_request_seconds_sum{kind="standby",temperature="warm"} 0.003
"""
AFTER = """\
greenroom_requests_total{kind="standby",status="2xx",temperature="warm"} 12.0
greenroom_requests_total{kind="standby",status="5xx",temperature="warm"} 1.0
greenroom_request_seconds_bucket{kind="standby",le="0.001",temperature="warm"} 3.0
greenroom_request_seconds_bucket{kind="standby",le="0.01",temperature="warm"} 13.0
greenroom_request_seconds_bucket{kind="standby",le="+Inf",temperature="warm"} 13.0
greenroom_request_seconds_count{kind="standby",temperature="warm"} 13.0
greenroom_request_seconds_sum{kind="standby",temperature="warm"} 0.103
"""


def test_rows_are_what_has_grown():
    """Of a Greenroom that has served before, only what happened meanwhile is told."""
    (row,) = request_rows(growth(parse_series(BEFORE), parse_series(AFTER)))
    assert (row.kind, row.temperature) == ("standby", "warm")
    assert (row.count, row.server_errors, row.cut) == (10, 1, 0)
    assert row.mean_ms == pytest.approx(10)
    assert row.p95_ms == 10


def test_kinds_without_requests_have_no_row():
    """What did not happen is not shown."""
    assert request_rows(growth(parse_series(AFTER), parse_series(AFTER))) == []


@pytest.mark.parametrize(
    ("share", "edge"),
    [
        pytest.param(0.2, 0.001, id="in the first bucket"),
        pytest.param(0.95, 0.01, id="in the last finite one"),
    ],
)
def test_quantiles_are_edges_of_buckets(share, edge):
    """A histogram tells a value's upper bound, and nothing finer."""
    assert quantile(parse_series(AFTER), "greenroom_request_seconds", share, kind="standby") == edge
    assert quantile(parse_series(AFTER), "greenroom_request_seconds", share, kind="api") == 0


def test_totals_sum_over_the_labels_that_are_not_named():
    """A name alone is all of its samples."""
    assert total(parse_series(AFTER), "greenroom_requests_total") == 13
    assert total(parse_series(AFTER), "greenroom_requests_total", status="5xx") == 1


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        pytest.param({"1": 50, "2": 50}, 0.5, 1, id="median"),
        pytest.param({"10": 1, "2": 99}, 0.99, 2, id="keys are numbers, not texts"),
        pytest.param({"10": 1, "2": 99}, 1.0, 10, id="all"),
        pytest.param({}, 0.5, 0, id="nothing"),
    ],
)
def test_percentiles_of_locusts_table(counts, share, value):
    """The smallest time that so many requests don't exceed."""
    assert percentile_of(counts, share) == value


def test_failures_stand_out_in_the_page():
    """A failure is marked, and no text of a name becomes markup."""
    row = LocustRow(name="<b>x</b>", requests=10, failures=3, p50_ms=1, p95_ms=2, p99_ms=3, max_ms=4)
    samples = [Sample(at, 5.0, 0.1, 80.0, 1.0, 0.0, 0.0, 0.0) for at in (0.0, 1.0, 2.0)]
    page = report_page("a & b", [row], [], {}, samples)
    assert '<td class="bad">3</td>' in page
    assert "<b>x</b>" not in page
    assert "a &amp; b" in page
    assert page.count("<polyline") == 7


@pytest.mark.parametrize(
    ("url", "environment", "says"),
    [
        pytest.param(None, {"GREENROOM_TOKEN": "t"}, "--host", id="no address"),
        pytest.param("https://127.0.0.1:1", {"GREENROOM_TOKEN": "t"}, "plain HTTP", id="TLS"),
        pytest.param("http://127.0.0.1:1", {}, "GREENROOM_TOKEN", id="no token"),
        pytest.param("http://127.0.0.1:1", {"GREENROOM_TOKEN": "t"}, "can't be reached", id="nobody there"),
    ],
)
def test_what_is_missing_is_told(url, environment, says):
    """Locust against nothing says what it needs."""
    with pytest.raises(SetupFailed, match=says):
        site_of(url, environment)


def test_a_locust_row_is_read():
    """From the JSON that Locust ends with."""
    (row,) = locust_rows(
        [
            {
                "name": "warm: page",
                "num_requests": 4,
                "num_failures": 1,
                "response_times": {"1": 3, "20": 1},
                "max_response_time": 21.5,
            }
        ]
    )
    assert row == LocustRow("warm: page", requests=4, failures=1, p50_ms=1, p95_ms=20, p99_ms=20, max_ms=21.5)


@pytest.mark.slow
def test_users_of_every_kind_are_served(tmp_path):
    """Some seconds of all users: none fails, each kind came through, and both sides' figures are in the report."""
    command = [sys.executable, "-m", "loadtests.locust_report", "--users", "40", "--minutes", "0.4"]
    outputs = ["--json", str(tmp_path / "figures"), "--html", str(tmp_path / "page")]
    done = subprocess.run([*command, *outputs], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "figures").read_text())
    assert told["figures"]["locust_failed"]["value"] == 0
    assert told["figures"]["greenroom_5xx"]["value"] == 0
    names = {row["name"].partition(":")[0] for row in told["raw"]["locust"]}
    assert names >= {"warm", "wake", "stream", "socket", "api", "live view"}
    assert "api: run an Actor" in {row["name"] for row in told["raw"]["locust"]}
    page = (tmp_path / "page").read_text()
    assert "stream: to its end" in page
    assert "standby, warm" in page
