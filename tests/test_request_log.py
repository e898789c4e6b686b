"""The line of each request: what it says in each form, when it is written, and that it stops nothing."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

import pytest

from gateway.request_log import About, RequestLog

LOGGER = "gateway.requests"


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """As ``configure_logging`` sets it by default, whatever other tests have left."""
    logger = logging.getLogger(LOGGER)
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


class Stream(io.StringIO):
    """Counts how often it is written to; breaks when told."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.has_come = asyncio.Event()
        self.problem: Exception | None = None

    def write(self, text: str) -> int:
        self.writes += 1
        self.has_come.set()
        if self.problem is not None:
            raise self.problem
        return super().write(text)

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


def opened(log_format: Literal["json", "text"] = "json") -> tuple[RequestLog, Stream]:
    log, stream = RequestLog(), Stream()
    log.write_to(stream, log_format)
    return log, stream


def ended(log: RequestLog, **changes: Any) -> None:
    """A request has ended."""
    about: dict[str, Any] = {
        "kind": "standby",
        "method": "GET",
        "outcome": 200,
        "request_id": "id-1",
        "run_id": "run-1",
        "error_type": None,
        "secs": 0.01234,
        "held_secs": 0.0,
    }
    kind, method, outcome, request_id, run_id, error_type, secs, held_secs = (about | changes).values()
    now = time.monotonic()
    log.add(About(kind, method, run_id, error_type), outcome, request_id.encode(), now - secs, now, held_secs)


TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, {}, id="an answer"),
        pytest.param({"run_id": None}, {"run_id": None}, id="without a run"),
        pytest.param(
            {"outcome": 503, "error_type": "waiting-room-full"},
            {"message": "standby GET 503", "error_type": "waiting-room-full"},
            id="an error",
        ),
        pytest.param({"outcome": "cut"}, {"message": "standby GET cut"}, id="an answer that was cut"),
        pytest.param({"outcome": None}, {"message": "standby GET None"}, id="a caller who left"),
        pytest.param({"held_secs": 1.5}, {"held_ms": 1500.0}, id="one that waited"),
        pytest.param(
            {"method": b"POST"},
            {"message": "standby POST 200"},
            id="bytes, as the protocol class has them",
        ),
    ],
)
async def test_a_line_as_json(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    """One object a line, with the fields that all log lines have."""
    log, stream = opened()
    ended(log, **changes)
    log.flush()
    (line,) = stream.lines
    told = json.loads(line)
    assert re.fullmatch(TIME, told.pop("time"))
    usual = {
        "level": "info",
        "logger": LOGGER,
        "message": "standby GET 200",
        "request_id": "id-1",
        "run_id": "run-1",
        "error_type": None,
        "duration_ms": 12.3,
        "held_ms": 0.0,
    }
    assert told == {name: value for name, value in (usual | expected).items() if (name, value) != ("run_id", None)}


async def test_a_line_as_text() -> None:
    """For a person at a terminal, who knows the day."""
    log, stream = opened("text")
    ended(log, outcome=502, error_type="standby-bad-gateway")
    ended(log, run_id=None)
    log.flush()
    first, second = stream.lines
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} info    standby GET 502 request_id=id-1 run_id=run-1 error_type=standby-bad-gateway "
        r"duration_ms=12\.3 held_ms=0\.0",
        first,
    )
    assert "run_id" not in second
    assert "error_type" not in second


async def test_each_line_has_the_time_at_which_its_request_ended() -> None:
    """Not that at which it was written; many share a millisecond, and none gets another's."""
    log, stream = opened()
    now = time.monotonic()
    for number in range(200):
        log.add(About("standby", "GET", None, None), 200, b"id", now, now + number * 0.0003)
    log.flush()
    times = [datetime.fromisoformat(json.loads(line)["time"]).timestamp() for line in stream.lines]
    shift = times[0] - now
    assert all(abs(at - shift - now - number * 0.0003) < 0.0021 for number, at in enumerate(times))
    assert times == sorted(times)
    assert 55 <= len(set(times)) <= 62


@pytest.mark.parametrize("ms", [0.0, 0.04, 0.06, 12.3, 199.9, 200.0, 1234.5])
async def test_durations_of_every_size(ms: float) -> None:
    """In milliseconds with one digit."""
    log, stream = opened()
    ended(log, secs=ms / 1000)
    log.flush()
    assert json.loads(stream.lines[0])["duration_ms"] == pytest.approx(ms, abs=0.051)


async def test_lines_are_written_together_and_soon() -> None:
    """Hundreds that end in one moment are one write, without anybody asking for it."""
    log, stream = opened()
    for number in range(300):
        ended(log, request_id=f"id-{number}")
    assert stream.writes == 0
    async with asyncio.timeout(10):
        await stream.has_come.wait()
    assert stream.writes == 1
    assert [json.loads(line)["request_id"] for line in stream.lines] == [f"id-{number}" for number in range(300)]


async def test_no_more_are_gathered_than_fit() -> None:
    """However many end before the loop comes to the timer, what is kept in memory has a bound."""
    log, stream = opened()
    for _ in range(10_000):
        ended(log)
    assert len(stream.lines) > 9_000
    assert stream.writes < 50
    log.flush()
    assert len(stream.lines) == 10_000


async def test_whatever_else_is_logged_comes_after_what_ended_before() -> None:
    """The handler of the same stream asks for it."""
    log, stream = opened()
    ended(log)
    log.keep_order()
    stream.write("something else\n")
    ended(log)
    log.flush()
    assert [line.startswith("{") for line in stream.lines] == [True, False, True]


async def test_another_thread_has_no_order_to_keep() -> None:
    """What is gathered belongs to the loop; a thread that flushed it could write a line twice."""
    log, stream = opened()
    ended(log)
    thread = threading.Thread(target=log.keep_order)
    thread.start()
    thread.join()
    assert stream.writes == 0
    log.flush()
    assert len(stream.lines) == 1


@pytest.mark.parametrize(
    "problem",
    [pytest.param(OSError(28, "No space left on device"), id="full"), pytest.param(ValueError("closed"), id="closed")],
)
async def test_a_stream_that_can_not_be_written_to_stops_no_request(problem: Exception) -> None:
    """What could not be written is lost; what comes later is not."""
    log, stream = opened()
    stream.problem = problem
    ended(log)
    log.flush()
    stream.problem = None
    ended(log, request_id="later")
    log.flush()
    assert [json.loads(line)["request_id"] for line in stream.lines] == ["later"]


async def test_a_level_above_info_writes_nothing() -> None:
    """And keeps nothing for later."""
    log, stream = opened()
    logging.getLogger(LOGGER).setLevel(logging.WARNING)
    ended(log)
    log.flush()
    logging.getLogger(LOGGER).setLevel(logging.INFO)
    log.flush()
    assert stream.lines == []


async def test_a_new_stream_gets_nothing_of_what_was_meant_for_the_old_one() -> None:
    """Which is written out first, in its own form."""
    log, old = opened()
    ended(log, request_id="old")
    new = Stream()
    log.write_to(new, "text")
    ended(log, request_id="new")
    log.flush()
    assert json.loads(old.lines[0])["request_id"] == "old"
    assert len(old.lines) == 1
    assert "request_id=new" in new.lines[0]
    assert len(new.lines) == 1


def test_without_a_stream_it_is_logged_as_everything_is(caplog: pytest.LogCaptureFixture) -> None:
    """Also outside of an event loop: in somebody else's server it is the root logger that decides."""
    with caplog.at_level(logging.INFO, LOGGER):
        ended(RequestLog(), error_type="bad-request", outcome=400)
    (record,) = caplog.records
    assert record.getMessage() == "standby GET 400"
    assert vars(record)["error_type"] == "bad-request"
    assert vars(record)["request_id"] == "id-1"
