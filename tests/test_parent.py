"""The parent process: real processes, real signals, real sockets; only the worker is a stand-in."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from parent_process import LIMIT_SECS, Parent, lock_lines, parents, wait_until

from gateway.commands.reload import reload
from gateway.listening import listen
from gateway.refusals import Refused
from gateway.reload_status import read_status


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Parent]]:
    """Starts parents on ``tmp_path``; none outlives the test."""
    with parents(tmp_path / "data") as start_one:
        yield start_one


def test_serves_and_drains_on_ctrl_c(start):
    """SIGINT to the parent becomes SIGTERM to the worker; its exit code is the parent's."""
    parent = start()
    parent.get("/pid")
    parent.process.send_signal(signal.SIGINT)
    assert parent.wait() == 0
    assert "drained" in parent.heard
    assert "press Ctrl-C again" in parent.heard
    assert lock_lines(parent.data) == []


def test_settings_reach_the_worker_unseen(start):
    """The token goes by standard input: no command line or variable shows it, and it holds what was given."""
    parent = start()
    told = json.loads(parent.get("/settings"))
    assert told["token"] == "a-token-of-this-test"
    assert "a-token-of-this-test" not in " ".join(told["argv"])
    assert "GREENROOM_PARENT" not in told["variables"]


def test_worker_is_in_a_session_of_its_own(start):
    """Ctrl-C at a terminal reaches the parent's process group alone."""
    parent = start()
    worker = int(parent.get("/pid"))
    assert os.getpgid(worker) != os.getpgid(parent.process.pid)
    assert os.getsid(worker) == worker


def test_second_ctrl_c_stops_at_once(start):
    """A worker that drains for long is stopped by the second signal."""
    parent = start(behaviour="stubborn")
    parent.get("/pid")
    parent.process.send_signal(signal.SIGTERM)
    parent.wait_for("stopping:")
    parent.process.send_signal(signal.SIGINT)
    assert parent.wait() == 7
    assert "stopping at once" in parent.heard


def test_second_ctrl_c_that_hits_a_worker_at_its_very_end(start):
    """The exit code is that of every other stop at once, also where the worker no longer handles signals."""
    parent = start(behaviour="leaving")
    parent.get("/pid")
    parent.process.send_signal(signal.SIGTERM)
    parent.wait_for("stopping:")
    parent.process.send_signal(signal.SIGINT)
    assert parent.wait() == 130


def test_a_deaf_worker_is_killed(start):
    """A worker that hears neither signal is killed soon after the second."""
    parent = start(behaviour="deaf")
    worker = int(parent.get("/pid"))
    parent.process.send_signal(signal.SIGTERM)
    parent.wait_for("stopping:")
    parent.process.send_signal(signal.SIGTERM)
    assert parent.wait() == 128 + signal.SIGKILL
    assert not psutil.pid_exists(worker)


def test_a_crashed_worker_is_replaced(start):
    """The sockets stay open over a crash: a request that comes in between is answered by the next worker."""
    parent = start()
    first = parent.get("/pid")
    with pytest.raises((http.client.BadStatusLine, ConnectionError)):
        parent.get("/crash")
    assert parent.get("/pid") != first
    parent.wait_for("the new worker serves")
    assert "exit code 3" in parent.heard
    assert "Traceback" not in parent.heard


def test_stop_between_two_workers(start):
    """Ctrl-C in the pause after a crash ends the parent at once."""
    parent = start()
    with pytest.raises((http.client.BadStatusLine, ConnectionError)):
        parent.get("/crash")
    parent.wait_for("a new one starts")
    parent.process.send_signal(signal.SIGINT)
    assert parent.wait() == 0


def test_a_worker_that_refuses_is_not_repeated(start):
    """A worker that ends before it ever served has told why: the parent ends with its exit code."""
    parent = start(behaviour="refuse")
    assert parent.wait() == 2
    assert parent.heard == "greenroom: this Actor file is broken\n"


@pytest.mark.parametrize("behaviour", ["", "deaf"])
def test_kill_9_takes_the_worker_along(start, behaviour):
    """After kill -9 of the parent its worker dies too, and lock and port are free for the next."""
    parent = start(behaviour=behaviour)
    worker, port = psutil.Process(int(parent.get("/pid"))), parent.port
    parent.process.kill()
    successor = start(port=port)
    assert successor.get("/pid")
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


ONE_OF_EACH = ["gateway.event_holder", "tests/stand_in_worker.py"]


def test_reload_replaces_the_worker(start):
    """The new one serves, the old one has gone, and whoever asked is told the steps."""
    parent, told = start(), []
    first = parent.get("/pid")
    assert reload(parent.data, told.append) == 0
    assert parent.get("/pid") != first
    assert told[-1] == "the new worker serves."
    wait_until(lambda: parent.children == ONE_OF_EACH)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.wait() == 0


def test_a_reload_that_is_refused_leaves_the_old_worker(start):
    """The reason is told to whoever asked; the next reload works."""
    parent = start()
    first = parent.get("/pid")
    parent.behave("refuse")
    with pytest.raises(Refused, match="old worker goes on: this Actor file is broken"):
        reload(parent.data, lambda _: None)
    assert parent.get("/pid") == first
    assert parent.children == ONE_OF_EACH
    parent.behave("")
    assert reload(parent.data, lambda _: None) == 0
    assert parent.get("/pid") != first


def test_a_successor_that_falls_after_the_hand_over_is_replaced(start):
    """Then nobody serves for a moment, as after a crash; the reload has failed, and says so."""
    parent = start()
    first = parent.get("/pid")
    parent.behave("fall")
    with pytest.raises(Refused, match="exit code 5"):
        reload(parent.data, lambda _: None)
    parent.behave("")
    assert parent.get("/pid") != first
    wait_until(lambda: parent.children == ONE_OF_EACH)


def test_a_worker_that_dies_while_it_hands_over_makes_room(start):
    """Its successor is prepared already, and takes its place at once."""
    parent = start(behaviour="crash on hand over")
    first = parent.get("/pid")
    assert reload(parent.data, lambda _: None) == 0
    assert parent.get("/pid") != first
    assert "exit code 6" in parent.heard + _heard_so_far(parent)
    wait_until(lambda: parent.children == ONE_OF_EACH)


def _heard_so_far(parent: Parent) -> str:
    parent.wait_for("takes over")
    return parent.heard


def test_two_reloads_at_once_are_two_reloads(start):
    """The second is for what has changed since the first began, so it waits for that, and begins anew."""
    parent = start()
    first = parent.get("/pid")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in range(2):
            asked = [pool.submit(reload, parent.data, lambda _: None) for _ in range(2)]
            assert [one.result(LIMIT_SECS) for one in asked] == [0, 0]
    assert parent.get("/pid") != first
    assert read_status(parent.data).is_over
    wait_until(lambda: parent.children == ONE_OF_EACH)


def test_a_worker_that_has_handed_over_is_told_to_stop_too(start):
    """Ctrl-C after a reload ends both workers, and the parent waits for both."""
    parent = start(behaviour="keep")
    first = int(parent.get("/pid"))
    assert reload(parent.data, lambda _: None) == 0
    parent.wait_for("keeps what it has")
    assert psutil.pid_exists(first)
    parent.process.send_signal(signal.SIGINT)
    assert parent.wait() == 0
    assert parent.heard.count("drained") == 2
    assert not psutil.pid_exists(first)


def test_reload_without_a_server(tmp_path):
    """Nobody is sent a signal where no lock is held, whatever the lock file says."""
    (tmp_path / "lock").write_text(f"{os.getpid()}\nhttp://127.0.0.1:1\n")
    with pytest.raises(Refused, match="no Greenroom serves"):
        reload(tmp_path, lambda _: None)


def test_a_dead_holder_of_events_sockets_is_replaced(start):
    """It is not part of the worker, and neither ends with the other."""
    parent = start()
    first = parent.get("/pid")

    def holder() -> list[psutil.Process]:
        found = psutil.Process(parent.process.pid).children()
        return [one for one in found if one.status() != "zombie" and "gateway.event_holder" in one.cmdline()]

    (dead,) = wait_until(holder)
    dead.kill()
    (second,) = wait_until(lambda: [one for one in holder() if one.pid != dead.pid])
    assert parent.get("/pid") == first
    with pytest.raises((http.client.BadStatusLine, ConnectionError)):
        parent.get("/crash")
    assert parent.get("/pid") != first
    assert [one.pid for one in holder()] == [second.pid]
    parent.process.send_signal(signal.SIGTERM)
    assert parent.wait() == 0
    assert not psutil.pid_exists(second.pid)


def test_second_server_on_the_same_data_is_refused(start):
    """Two servers never share a data folder: the second is told, in one line, which process holds it."""
    first = start()
    first.get("/pid")
    second = start()
    assert second.wait() == 1
    assert f"process {first.process.pid}" in second.heard
    assert second.heard.count("\n") == 1


def test_port_taken(start):
    """A taken port is told in one line that names it and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        parent = start(port=port)
        assert parent.wait() == 1
    assert f"port {port} on 127.0.0.1 is taken" in parent.heard
    assert "--port" in parent.heard
    assert parent.heard.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "told"),
    [
        pytest.param("no-such-host.invalid", "is unknown", id="unknown name"),
        pytest.param("192.0.2.1", "no address of this machine", id="another machine's"),
    ],
)
def test_listen_refuses_in_words(host, told):
    """An address that can't be listened on is a clear line, not a traceback."""
    with pytest.raises(Refused, match=told):
        listen(host, 0)


def test_listens_on_both_loopbacks():
    """``*.localhost`` may resolve to ::1 first, so the same port is open there where the machine has IPv6."""
    sockets = listen("127.0.0.1", 0)
    try:
        ports = {sock.getsockname()[1] for sock in sockets}
        assert len(ports) == 1
        assert sockets[0].family == socket.AF_INET
        assert {sock.getsockname()[0] for sock in sockets} <= {"127.0.0.1", "::1"}
    finally:
        for sock in sockets:
            sock.close()
