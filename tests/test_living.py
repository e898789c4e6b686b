"""Who of the gateway processes of a data folder lives."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.core.demand import DemandReport
from gateway.core.slot_leases import SlotClaim, SlotRequest
from gateway.living import Deaths, alive, bury, dead, follow_deaths, living_folder
from gateway.state.signals_memory import MemorySignals

HOLD = """
import sys
from pathlib import Path
from gateway.living import alive
with alive(Path(sys.argv[1]), sys.argv[2]) as has_left:
    print("alive", flush=True)
    if sys.stdin.read():
        has_left()
"""


def start(data: Path, name: str) -> subprocess.Popen[bytes]:
    """A process that lives until its input ends, or until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"alive\n"
    return process


def test_a_killed_process_is_dead_and_one_that_ended_well_was_never_there(tmp_path: Path) -> None:
    """At once, and until it is buried; one that lives is not. Who could not give back all by itself is dead too."""
    killed, ended, hasty = (start(tmp_path, name) for name in ("killed", "ended", "hasty"))
    with alive(tmp_path, "own"):
        assert dead(tmp_path) == []
        killed.kill()
        killed.communicate()
        ended.communicate(b"well")
        hasty.communicate()
        assert dead(tmp_path) == ["hasty", "killed"]
        assert dead(tmp_path) == ["hasty", "killed"]
        bury(tmp_path, "hasty")
        bury(tmp_path, "killed")
        bury(tmp_path, "killed")
        assert dead(tmp_path) == []
    assert dead(tmp_path) == ["own"]


def test_without_a_folder_nobody_is_dead(tmp_path: Path) -> None:
    """Such as before the first gateway has ever started."""
    assert dead(tmp_path) == []


async def test_what_a_killed_one_had_borrowed_is_free_at_once(tmp_path: Path) -> None:
    """And what it had reported is forgotten: nothing of it is in flight."""
    signals, name = MemorySignals(), "killed"
    taken = SlotRequest(borrower=name, number=1, is_full=True, claims={"r": SlotClaim(limit=1, likes=1)})
    await signals.slots.settle(taken)
    await signals.report_demand(DemandReport(gateway_id=name, routes_seen=0), ttl_secs=1000)
    process = start(tmp_path, name)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        following = group.create_task(follow_deaths(tmp_path, signals))
        process.kill()
        process.communicate()
        while await signals.demand_reports():
            await signals.wait_for_report(30)
        following.cancel()
    wanted = SlotRequest(borrower="other", number=1, is_full=True, claims={"r": SlotClaim(limit=1, needs=1)})
    assert (await signals.slots.settle(wanted)).leases["r"].slots == 1


def test_what_can_not_be_looked_at_now_is_for_the_next_look(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Such as with too many open files. The log hears of it once; each of the dead is told of once."""
    deaths, folder = Deaths(tmp_path), living_folder(tmp_path)
    folder.touch()  # opened as a folder, it is an error
    assert [deaths.take(), deaths.take()] == [[], []]
    assert len(caplog.messages) == 1
    folder.unlink()
    with alive(tmp_path, "own"):
        assert deaths.take() == []
    assert [deaths.take(), deaths.take()] == [["own"], []]
    folder.rmdir()
    folder.touch()
    assert deaths.take() == []
    assert len(caplog.messages) == 2


async def test_a_look_for_the_dead_that_fails_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker serves on, and sees them later."""
    monkeypatch.setattr("gateway.living._EVERY_SECS", 0.01)
    signals, folder, has_failed = MemorySignals(), living_folder(tmp_path), asyncio.Event()
    monkeypatch.setattr("gateway.living._log.warning", lambda *_: has_failed.set())
    await signals.report_demand(DemandReport(gateway_id="dead", routes_seen=0), ttl_secs=1000)
    folder.touch()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        following = group.create_task(follow_deaths(tmp_path, signals))
        await has_failed.wait()
        folder.unlink()
        with alive(tmp_path, "dead"):
            pass
        while await signals.demand_reports():
            await signals.wait_for_report(30)
        following.cancel()
