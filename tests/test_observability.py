"""Metrics with bounded labels, log lines as data, and no token in either."""

from __future__ import annotations

import io
import json
import logging
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.lifecycle import Readiness, RunStatus, StartOutcome
from gateway.observability import Metrics, Redaction, configure_logging, log_context
from gateway.state.signals_memory import MemorySignals
from gateway.tallies import status_class

TOKENS = st.builds(
    lambda kind, text: f"greenroom_{kind}_{text}",
    st.sampled_from(["api", "run"]),
    st.text(string.ascii_letters + string.digits, min_size=32, max_size=43),
)
ANY_SECRETS = st.text(string.ascii_letters + string.digits + "-._~+/", min_size=8, max_size=40)
TEXTS = st.text(max_size=40)


@pytest.fixture
def log():
    """Logging configured as a process does it, into a text; as it was before, afterwards."""
    root = logging.getLogger()
    before = root.handlers, root.level
    stream = io.StringIO()

    def configure(log_format: str = "json", **options) -> io.StringIO:
        configure_logging(log_format, "info", stream=stream, **options)
        return stream

    yield configure
    logging.captureWarnings(False)
    root.handlers, root.level = before


def lines(stream: io.StringIO) -> list[dict]:
    """The JSON lines of *stream*."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@given(TEXTS, TOKENS, TEXTS)
def test_tokens_never_appear(before, token, after):
    """A token of Greenroom's own is taken out wherever it stands."""
    assert token not in Redaction().text(before + token + after)


@pytest.mark.parametrize(
    "around",
    [
        "GET /path?token={}&a=1 HTTP/1.1",
        "https://example.test/?a=1&Token={}",
        "next=%2Fpath%3Ftoken%3D{}",
        "Authorization: Bearer {}",
        "X-Apify-Authorization: bearer {}",
        "{{'authorization': 'Bearer {}'}}",
        "(b'authorization', b'Bearer {}')",
        '{{"Authorization": "Basic {}"}}',
        "authorization={}",
        "sent Bearer {} to nobody",
    ],
)
@given(ANY_SECRETS)
def test_credentials_never_appear(around, secret):
    """A secret of any shape is taken out where a request carries one, and doing it again changes nothing."""
    redacted = Redaction().text(around.format(secret))
    assert secret not in redacted.replace("[redacted]", "").replace("authorization", "").replace("Authorization", "")
    assert Redaction().text(redacted) == redacted


@given(TEXTS, ANY_SECRETS, TEXTS)
def test_exact_secrets_never_appear(before, secret, after):
    """The given token is taken out whatever it looks like, anywhere."""
    assert secret not in Redaction([secret]).text(before + secret + after).replace("[redacted]", "")


@pytest.mark.parametrize(
    "text",
    ["run Ab3dEf6hIj9lMn2pQ is serving", "GET /token/list?limit=3", "the token is unknown", "3 tokens: none used"],
)
def test_plain_texts_stay(text):
    """What carries no secret is left as it is."""
    assert Redaction().text(text) == text


def test_a_line_is_data(log):
    """A line says when, how grave, who, what, and about which request and run; further fields go along."""
    stream = log()
    with log_context(request_id="req-1"), log_context(run_id="run-1"):
        logging.getLogger("gateway.proxy").info("forwarded %d", 7, extra={"status": 200, "held_ms": 1.5})
    logging.getLogger("gateway.proxy").info("afterwards")
    first, second = lines(stream)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "gateway.proxy",
        "message": "forwarded 7",
        "request_id": "req-1",
        "run_id": "run-1",
        "status": 200,
        "held_ms": 1.5,
    }
    assert "request_id" not in second
    assert "run_id" not in second


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_part_of_a_line_leaks(log, log_format):
    """Message, arguments, further fields, exceptions and their chains: none shows a token."""
    secret, given_token = "greenroom_api_" + "a1B2" * 10, "given-by-hand"
    stream = log(log_format, secrets=[given_token])
    try:
        try:
            raise ValueError(f"bad token={secret}")
        except ValueError as error:
            raise RuntimeError(given_token) from error
    except RuntimeError:
        logging.getLogger("x").exception(
            "for %s",
            secret,
            extra={"headers": {"Authorization": "Bearer zzz9", "a": [secret]}, "token": "zzz9", "thing": object()},
        )
    text = stream.getvalue()
    assert "ValueError" in text
    assert "Traceback" in text
    for hidden in (secret, given_token, "zzz9"):
        assert hidden not in text


def test_levels_and_formats(log):
    """Less than the level is left out; text is for people, and `auto` is JSON where nobody looks."""
    stream = log("text")
    logging.getLogger("x").debug("too fine")
    logging.getLogger("x").warning("look", extra={"count": 3})
    assert stream.getvalue().endswith("warning look count=3\n")
    log("auto")
    logging.getLogger("x").info("hello")
    assert json.loads(stream.getvalue().splitlines()[-1])["message"] == "hello"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(None, "cut"), (101, "2xx"), (200, "2xx"), (204, "2xx"), (301, "3xx"), (404, "4xx"), (503, "5xx"), (599, "5xx")],
)
def test_status_class(status, expected):
    """A hundred codes, five labels."""
    assert status_class(status) == expected


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """What Prometheus reads: value by name and labels."""
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_what_is_counted():
    """Each event is counted under its labels, as a reader of /metrics sees it."""
    metrics = Metrics()
    metrics.request(kind="standby", status=200, was_cold=False, secs=0.002)
    metrics.request(kind="standby", status=200, was_cut=True, was_cold=True, secs=2)
    metrics.request(kind="api", status=404, secs=0.002)
    metrics.set_runs({Readiness.SERVING: 3})
    metrics.set_runs({Readiness.STARTING: 1})
    metrics.count_start(StartOutcome.SERVING)
    metrics.count_end(RunStatus.SUCCEEDED)
    metrics.wake_seconds.observe(0.3)
    metrics.decisions.inc()
    metrics.held_requests.set(4)
    with metrics.open_websocket():
        found = samples(metrics)
    assert found["greenroom_requests_total", ("standby", "2xx", "warm")] == 1
    assert found["greenroom_requests_total", ("standby", "cut", "cold")] == 1
    assert found["greenroom_requests_total", ("api", "4xx", "none")] == 1
    assert found["greenroom_request_seconds_count", ("standby", "warm")] == 1
    assert found["greenroom_runs", ("serving",)] == 0
    assert found["greenroom_runs", ("starting",)] == 1
    assert found["greenroom_run_starts_total", ("serving",)] == 1
    assert found["greenroom_run_ends_total", ("SUCCEEDED",)] == 1
    assert found["greenroom_wake_seconds_count", ()] == 1
    assert found["greenroom_autoscaler_decisions_total", ()] == 1
    assert found["greenroom_held_requests", ()] == 4
    assert found["greenroom_websockets_open", ()] == 1
    assert samples(metrics)["greenroom_websockets_open", ()] == 0


def test_what_the_signals_are_asked():
    """Commands by name, and whether they can be reached at all."""

    class Shared(MemorySignals):
        trouble = None

        def commands_issued(self):
            return {"report_demand": 3, "PUBLISH": 2}

    metrics, signals = Metrics(), Shared()
    metrics.watch_signals(signals)
    found = samples(metrics)
    assert found["greenroom_redis_commands_total", ("report_demand",)] == 3
    assert found["greenroom_redis_commands_total", ("PUBLISH",)] == 2
    assert found["greenroom_signals_up", ()] == 1
    signals.trouble = "it does not answer in time"
    assert samples(metrics)["greenroom_signals_up", ()] == 0


def test_labels_are_bounded():
    """All series that can be are there from the start: nothing that a caller sends makes a new one."""
    metrics = Metrics()
    before = set(samples(metrics))
    metrics.request(kind="live_view", status=418, secs=0.002)
    metrics.count_end(RunStatus.ABORTED)
    assert set(samples(metrics)) == before
