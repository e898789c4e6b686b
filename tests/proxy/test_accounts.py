"""What is counted and noted of requests that have ended: once each, where it belongs, and in time for who looks."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.core.errors import GreenroomError, StandbyBadGateway
from gateway.core.lifecycle import Readiness
from gateway.observability import Metrics, RequestKind
from gateway.proxy.accounts import Accounts, Timing
from gateway.proxy.route_table import LiveRun
from gateway.request_log import RequestLog
from gateway.state.ports import RunRoute


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    """As ``configure_logging`` sets it by default, whatever other tests have left."""
    logger = logging.getLogger("gateway.requests")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


class Book:
    """Accounts with a log of their own."""

    def __init__(self) -> None:
        self.metrics, self.log, self.stream = Metrics(), RequestLog(), io.StringIO()
        self.log.write_to(self.stream, "json")
        self.accounts = Accounts(self.metrics, self.log)

    def ended(
        self,
        *,
        kind: RequestKind = "standby",
        method: str | bytes = b"GET",
        status: int | None = 200,
        error: GreenroomError | None = None,
        run_id: str | None = "Run1",
        **timing: Any,
    ) -> None:
        """One that came at 10 s and ended at 10.5 s."""
        run = LiveRun(_route(run_id), used_at=0.0) if run_id is not None else None
        times = Timing(arrived=10.0, run=run, **timing)
        self.accounts.ended(kind, method, status, times, b"0123456789abcdef01234567", error, 10.5)

    def counted(self) -> dict[str, float]:
        """The series of requests that are not 0, by kind, status and temperature."""
        text = self.metrics.render()[0].decode()
        found = {}
        for line in text.splitlines():
            if line.startswith("greenroom_requests_total{") and not line.endswith(" 0.0"):
                labels, value = line.removeprefix("greenroom_requests_total").rsplit(" ", 1)
                found[" ".join(part.split('"')[1] for part in labels.split(","))] = float(value)
        return found

    def lines(self) -> list[dict[str, Any]]:
        """What was written, once the loop has come to it."""
        self.log.flush()
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def _route(run_id: str) -> RunRoute:
    return RunRoute(
        run_id=run_id, actor_id="A", user_id="U", live_view_label=f"label-{run_id}", readiness=Readiness.SERVING
    )


@pytest.mark.parametrize(
    ("changes", "series", "line"),
    [
        pytest.param({}, "standby 2xx warm", {"message": "standby GET 200", "run_id": "Run1"}, id="warm"),
        pytest.param({"method": "POST"}, "standby 2xx warm", {"message": "standby POST 200"}, id="a method as text"),
        pytest.param(
            {"kind": "live_view", "status": 304}, "live_view 3xx warm", {"message": "live_view GET 304"}, id="view"
        ),
        pytest.param(
            {"was_held": True, "admitted": 10.25}, "standby 2xx cold", {"held_ms": 250.0}, id="one that waited"
        ),
        pytest.param(
            {"run_id": None, "status": 404}, "standby 4xx none", {"message": "standby GET 404"}, id="without a run"
        ),
        pytest.param({"status": None}, "standby cut warm", {"message": "standby GET None"}, id="a caller who left"),
        pytest.param({"was_cut": True}, "standby cut warm", {"message": "standby GET cut"}, id="cut"),
        pytest.param(
            {"status": 502, "error": StandbyBadGateway("It broke.")},
            "standby 5xx warm",
            {"error_type": StandbyBadGateway.error_type},
            id="an error",
        ),
    ],
)
async def test_each_is_counted_and_written_once(changes: dict[str, Any], series: str, line: dict[str, Any]) -> None:
    """Whoever looks at the metrics sees it at once; its line comes a moment later at most."""
    book = Book()
    book.ended(**changes)
    assert book.counted() == {series: 1}
    (written,) = book.lines()
    assert written | line == written
    assert written["duration_ms"] == 500.0
    assert book.counted() == {series: 1}


async def test_lines_of_unlike_requests_beside_each_other() -> None:
    """What two lines share is made once for both, and only for these: each says its own."""
    book = Book()
    for number in range(60):
        book.ended(run_id=f"Run{number % 3}", method=(b"GET", b"HEAD")[number % 2], status=(200, 404)[number % 5 == 0])
    lines = book.lines()
    assert [line["run_id"] for line in lines] == [f"Run{number % 3}" for number in range(60)]
    assert [line["message"] for line in lines] == [
        f"standby {('GET', 'HEAD')[number % 2]} {(200, 404)[number % 5 == 0]}" for number in range(60)
    ]
    assert book.counted() == {"standby 2xx warm": 48, "standby 4xx warm": 12}


async def test_what_is_remembered_of_runs_has_a_bound() -> None:
    """Runs come and go; what is common to their requests does not stay for ever."""
    book = Book()
    for number in range(5000):
        book.ended(run_id=f"Run{number}")
    assert len(book.accounts._known) <= 1024
    assert book.counted() == {"standby 2xx warm": 5000}
