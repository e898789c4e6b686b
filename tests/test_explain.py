"""What ``greenroom explain`` prints of a pool and its decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.commands.explain import explain_actor, lines_of_decision, lines_of_pool
from gateway.core.times import iso
from gateway.refusals import Refused

NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
RUN = {
    "id": "R" * 17,
    "readiness": "serving",
    "inFlight": 2,
    "idleSecs": None,
    "isOutdated": False,
    "isOverloaded": True,
    "cpuPercent": 96.4,
    "memoryBytes": 50 * 2**20,
}
IDLE_RUN = {
    **RUN,
    "readiness": "frozen",
    "inFlight": 0,
    "idleSecs": 130.0,
    "isOutdated": True,
    "isOverloaded": False,
    "cpuPercent": None,
    "memoryBytes": None,
}


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local time is UTC for these tests."""
    monkeypatch.setattr("gateway.commands.explain.local", lambda at: at.astimezone(UTC))


def decision(ago_secs: float = 12.0, **fields: Any) -> dict[str, Any]:
    return {
        "id": "d",
        "at": iso(NOW - timedelta(seconds=ago_secs)),
        "wantedRuns": 1,
        "presentRuns": 0,
        "reasons": ["1 run: 1 request waits"],
        "decision": {},
        **fields,
    }


def pool(**fields: Any) -> dict[str, Any]:
    return {"id": "actor.user", "summary": "1 run: in use.", "runs": [], "decisions": 1, **fields}


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        pytest.param(decision(), ["  11:59:48   12s ago  1 ← 0  1 run: 1 request waits"], id="one reason"),
        pytest.param(
            decision(3 * 3600, decision={"start": 2}),
            ["  09:00:00    3h ago  1 ← 0  1 run: 1 request waits", " " * 29 + "starts 2"],
            id="with a start",
        ),
        pytest.param(
            decision(200_000, reasons=["0 runs: idle", "wind down R: idle for 300 s"], wantedRuns=0, presentRuns=1),
            ["  Mar 02 04:26:40    2d ago  0 ← 1  0 runs: idle", " " * 36 + "wind down R: idle for 300 s"],
            id="days ago, and what was done",
        ),
        pytest.param(
            decision(-5, reasons=[]), ["  12:00:05    0s ago  1 ← 0  no reason was noted"], id="clocks differ"
        ),
    ],
)
def test_a_decision_in_lines(given: dict[str, Any], lines: list[str]) -> None:
    """Local time and how long ago, wanted ← present, why, and what was done below."""
    assert lines_of_decision(given, NOW) == lines


def test_a_pool_begins_with_what_matters_and_ends_with_the_newest_decision() -> None:
    """The sentence, then the runs, then the decisions; what is left out is said."""
    lines = lines_of_pool(pool(runs=[RUN, IDLE_RUN], decisions=7), [decision(99), decision(1)], NOW)
    assert lines == [
        "1 run: in use.  (pool actor.user)",
        "",
        "  RUN                STATE     IN FLIGHT  UNUSED FOR    CPU   MEMORY",
        "  RRRRRRRRRRRRRRRRR  serving           2           -    96%    50 MB  overloaded",
        "  RRRRRRRRRRRRRRRRR  frozen            0          2m      -        -  older build or memory",
        "",
        "  5 earlier decisions: --limit 7 shows them.",
        "  11:58:21   99s ago  1 ← 0  1 run: 1 request waits",
        "  11:59:59    1s ago  1 ← 0  1 run: 1 request waits",
    ]


def test_no_decision_is_told_with_the_reason() -> None:
    """Nothing was decided where nobody has called, or what was is forgotten."""
    lines = lines_of_pool(pool(decisions=0), [], NOW)
    assert lines[0].startswith("1 run: in use.")
    assert "nobody has called it" in lines[-1]
    assert "decision_keep_days" in lines[-1]


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_out_of_range_is_refused_before_anything_is_asked(limit: int) -> None:
    """The message names the range."""
    with pytest.raises(Refused, match="from 1 to 1000"):
        explain_actor(None, "hello", limit=limit, follow=False, as_json=False)  # type: ignore[arg-type]


class Answers:
    """An API that answers one page of decisions after the other, then is gone."""

    def __init__(self, *pages: list[dict[str, Any]]) -> None:
        self.pages = list(pages)
        self.page: list[dict[str, Any]] = []

    def call(self, method: str, path: str, **options: Any) -> Any:
        assert method == "GET"
        if path.endswith("/pools"):
            if not self.pages:
                raise KeyboardInterrupt
            self.page = self.pages.pop(0)
            return {"items": [pool(lastDecision=self.page[-1] if self.page else None, decisions=len(self.page))]}
        assert path == "greenroom/pools/actor.user/decisions"
        return {"items": list(reversed(self.page))[: int(options["params"]["limit"])]}


def test_following_prints_each_decision_once_in_its_order(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were there, then those that come, also several between two looks; Ctrl-C ends it."""
    monkeypatch.setattr("time.sleep", lambda _secs: None)
    made = [decision(id=f"d{number}", reasons=[f"reason {number}"]) for number in range(5)]
    api: Any = Answers(made[:1], made[:1], made[:4], made[:5])
    with pytest.raises(KeyboardInterrupt):
        explain_actor(api, "hello", limit=10, follow=True, as_json=False)
    shown = [line.partition("reason ")[2] for line in capsys.readouterr().out.splitlines() if "reason " in line]
    assert shown == ["0", "1", "2", "3", "4"]
