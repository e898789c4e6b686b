"""Several workers under one parent: real processes, real signals, real sockets; only the workers are stand-ins."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from parent_process import Parent, parents, wait_until

from gateway.commands.reload import reload
from gateway.refusals import Refused

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Parent]]:
    """Starts parents of two workers on ``tmp_path``; none outlives the test."""
    with parents(tmp_path / "data") as start_one:
        yield lambda **options: start_one(**{"workers": 2, **options})


def lanes_of(parent: Parent) -> dict[int, int]:
    """The process that answers in each lane, once both have."""
    found: dict[int, int] = {}

    def ask() -> dict[int, int] | None:
        lane, pid = map(int, parent.get("/lane").split())
        found[lane] = pid
        return found if len(found) == 2 else None

    wait_until(ask)
    return found


def crash(parent: Parent) -> None:
    """One of the workers."""
    with contextlib.suppress(http.client.BadStatusLine, ConnectionError):
        parent.get("/crash")


def test_all_workers_take_connections_of_the_same_port(start):
    """Each has a lane of its own, and of some hundred connections none gets less than 30 of 100."""
    parent = start()
    lanes_of(parent)
    answered = Counter(int(parent.get("/lane").split()[0]) for _ in range(300))
    assert sum(answered.values()) == 300
    assert min(answered[0], answered[1]) >= 90


def test_a_worker_that_dies_is_replaced_while_the_other_goes_on(start):
    """The sibling answers at once, without waiting for the new one, which serves in the lane of the dead."""
    parent = start()
    before = lanes_of(parent)
    os.kill(before[1], signal.SIGKILL)
    parent.wait_for("worker 2 of 2: the worker ended unexpectedly (killed by SIGKILL)")
    # Also of those connections that the system gives to the empty lane.
    assert {parent.get("/lane") for _ in range(20)} == {f"0 {before[0]}"}
    parent.wait_for("worker 2 of 2: the new worker serves.")
    after = lanes_of(parent)
    assert after[0] == before[0]
    assert after[1] != before[1]
    wait_until(lambda: 0 < [parent.get("/lane")[0] for _ in range(100)].count("0") < 80)  # it covers no longer


def test_a_lane_is_covered_until_it_serves(start):
    """The cover may die too: another one takes over, and at last each lane has its own worker."""
    parent = start(workers=3)
    found: dict[str, str] = {}
    wait_until(lambda: found.update([parent.get("/lane").split()]) or len(found) == 3)
    parent.behave("refuse", lane=2)
    os.kill(int(found["2"]), signal.SIGKILL)
    parent.wait_for("worker 3 of 3: the worker ended unexpectedly")
    assert "2" not in {parent.get("/lane")[0] for _ in range(30)}
    parent.behave("refuse", lane=0)
    os.kill(int(found["0"]), signal.SIGKILL)
    parent.wait_for("worker 1 of 3: the worker ended unexpectedly")
    assert {parent.get("/lane") for _ in range(30)} == {f"1 {found['1']}"}
    for lane in (0, 2):
        parent.behave("", lane=lane)
    assert reload(parent.data, lambda _: None) == 0
    wait_until(lambda: {parent.get("/lane")[0] for _ in range(30)} == {"0", "1", "2"})


def test_a_stuck_worker_is_covered_until_it_goes_on(start):
    """Connections of its lane are answered by the other one after some seconds; it is not killed."""
    parent = start()
    before = lanes_of(parent)
    os.kill(before[1], signal.SIGSTOP)
    assert {parent.get("/lane") for _ in range(20)} == {f"0 {before[0]}"}
    os.kill(before[1], signal.SIGCONT)
    assert lanes_of(parent) == before


def test_reload_replaces_lane_after_lane(start):
    """Whoever asked is told each step in order; no request fails meanwhile, and all that serve then are new."""
    parent, told = start(), []
    before = lanes_of(parent)
    problems: list[BaseException] = []
    is_over = threading.Event()

    def keep_asking() -> None:
        while not is_over.is_set():
            try:
                assert parent.get("/pid").isdigit()
            except (OSError, http.client.HTTPException, AssertionError) as error:
                problems.append(error)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        assert reload(parent.data, told.append) == 0
    finally:
        is_over.set()
        asking.join()
    assert problems == []
    assert told[0].startswith("worker 1 of 2: ")
    assert told[-2].startswith("worker 2 of 2: ")
    assert told[-1] == "all new workers serve."
    assert set(lanes_of(parent).values()).isdisjoint(before.values())


def test_a_failed_turn_ends_the_reload_and_all_go_on(start):
    """The lane whose turn failed keeps its old worker; the next reload replaces both."""
    parent = start()
    before = lanes_of(parent)
    parent.behave("refuse", lane=1)
    with pytest.raises(Refused, match="worker 2 of 2: this Actor file is broken"):
        reload(parent.data, lambda _: None)
    after = lanes_of(parent)
    assert after[1] == before[1]
    assert after[0] != before[0]
    parent.behave("", lane=1)
    assert reload(parent.data, lambda _: None) == 0
    assert set(lanes_of(parent).values()).isdisjoint(after.values())


def test_a_reload_fills_a_lane_that_waits_for_its_restart(start):
    """The pause after a crash is cut short, since what made the worker crash may just have been mended."""
    parent = start()
    before = lanes_of(parent)
    parent.behave("refuse", lane=1)
    os.kill(before[1], signal.SIGKILL)
    parent.wait_for("a new one starts in 2 s")
    parent.behave("", lane=1)
    assert reload(parent.data, lambda _: None) == 0
    assert set(lanes_of(parent).values()).isdisjoint(before.values())


def test_a_successor_that_falls_leaves_its_lane_alone_in_trouble(start):
    """After a hand-over there is no old worker to go back to: the lane restarts, the other one serves."""
    parent = start()
    before = lanes_of(parent)
    parent.behave("fall", lane=0)
    with pytest.raises(Refused, match=r"worker 1 of 2: .*exit code 5"):
        reload(parent.data, lambda _: None)
    assert parent.get("/lane").split() == ["1", str(before[1])]
    assert lanes_of(parent)[0] != before[0]


def test_stop_drains_all(start):
    """One signal to the parent reaches every worker; nobody is left."""
    parent = start()
    before = lanes_of(parent)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.wait() == 0
    assert parent.heard.count("drained") == 2
    assert not any(psutil.pid_exists(pid) for pid in before.values())


def test_second_signal_stops_all_at_once(start):
    """The first exit code that is not 0 is the parent's."""
    parent = start(behaviour="stubborn")
    lanes_of(parent)
    parent.process.send_signal(signal.SIGTERM)
    parent.wait_for("stopping:")
    parent.process.send_signal(signal.SIGTERM)
    assert parent.wait() == 7
    assert "drained" not in parent.heard


def test_stop_while_a_lane_waits_for_its_restart(start):
    """The empty lane has nothing to drain; the other one has."""
    parent = start()
    lanes_of(parent)
    crash(parent)
    parent.wait_for("a new one starts")
    parent.process.send_signal(signal.SIGTERM)
    assert parent.wait() == 0
    assert parent.heard.count("drained") == 1


def test_a_first_start_that_is_refused_is_told_once(start):
    """The first lane is filled alone: its refusal ends the server before a second worker repeats it."""
    parent = start(behaviour="refuse")
    assert parent.wait() == 2
    assert parent.heard == "greenroom: this Actor file is broken\n"


def test_kill_9_takes_all_workers_along(start):
    """After kill -9 of the parent both die, and the folder is free for the next."""
    parent = start()
    before = [psutil.Process(pid) for pid in lanes_of(parent).values()]
    parent.process.kill()
    _, alive = psutil.wait_procs(before, timeout=10)
    assert alive == []
    assert start().get("/pid")


def test_a_port_that_another_greenroom_shares_among_its_workers_is_taken(start, tmp_path):
    """Lanes share a port with each other and with nobody else, not even with lanes of the same user's other server."""
    port = start().port
    other = start(data=tmp_path / "other", port=port)
    assert other.wait() == 1
    assert f"port {port} on 127.0.0.1 is taken" in other.heard
