"""What runs use, read from the kernel's table of processes: all that is theirs, and nothing of others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from autoscaler.launchers import usage
from autoscaler.launchers.process_table import entries, pids, started_at
from autoscaler.launchers.usage import Meter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc to read")

# Adopts what its descendants leave, as a shim does, and makes children as it is told: each says its pid.
GUARD = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
for line in sys.stdin:
    if line.strip() == "orphan":  # detached in every way
        script = "from subprocess import *; print(Popen(['sleep', '600'], start_new_session=True, stdout=DEVNULL).pid)"
        print(subprocess.check_output([sys.executable, "-c", script], text=True), end="", flush=True)
    else:
        print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
"""


class Guard:
    """A process in a shim's place."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.children: list[int] = []
        started = started_at(self.process.pid)
        assert started is not None
        self.shim = (self.process.pid, started)

    def tell(self, word: str) -> int:
        """It has one more child; its pid."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        self.children.append(int(self.process.stdout.readline()))
        return self.children[-1]

    def end(self) -> None:
        for pid in self.children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def guards() -> Iterator[list[Guard]]:
    """Two."""
    made = [Guard(), Guard()]
    yield made
    for guard in made:
        guard.end()


def counts(meter: Meter, guards: list[Guard]) -> list[int]:
    """How many processes each has below it."""
    found = meter.measure({str(at): guard.shim for at, guard in enumerate(guards)})
    return [found[str(at)].processes for at in range(len(guards))]


def test_what_comes_later_counts_like_what_was_there(guards: list[Guard]) -> None:
    """Children, and what has detached itself and lost its parent; each to the one run that it belongs to."""
    meter, (one, other) = Meter(), guards
    one.tell("child")
    assert counts(meter, guards) == [1, 0]
    one.tell("child")
    other.tell("orphan")
    assert counts(meter, guards) == [2, 1]
    other.tell("child")
    assert counts(meter, guards) == counts(Meter(), guards) == [2, 2]


def test_a_run_that_is_known_later_has_all_that_it_had_before(guards: list[Guard]) -> None:
    """Its processes were there in looks that did not know of it yet, and seemed to be nobody's."""
    meter, (one, other) = Meter(), guards
    other.tell("child")
    other.tell("orphan")
    assert counts(meter, [one]) == [0]
    assert counts(meter, [one]) == [0]
    assert counts(meter, guards) == [0, 2]


def test_nobody_is_looked_at_twice_who_is_none_of_a_runs(guards: list[Guard], monkeypatch: pytest.MonkeyPatch) -> None:
    """But for whoever has come since."""
    looks: list[int] = []
    stat_fields = usage.stat_fields
    monkeypatch.setattr(usage, "stat_fields", lambda pid: looks.append(pid) or stat_fields(pid))
    meter, (one, _) = Meter(), guards
    one.tell("child")
    counts(meter, guards)
    first = set(looks)
    assert os.getpid() in first
    looks.clear()
    assert counts(meter, guards) == [1, 0]
    again = first & set(looks)
    own = {guard.process.pid for guard in guards} | set(one.children)
    assert own <= again
    assert os.getpid() not in again
    assert len(again) < len(first) / 2


def test_a_pid_that_somebody_else_has_now_is_looked_at_anew(
    guards: list[Guard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry of another process is another one, so what was known of the pid counts for nothing."""
    meter, (one, _) = Meter(), guards
    child = one.tell("child")
    real = entries

    def as_if_of_another() -> list[tuple[int, int]]:
        return [(pid, number + 1 if pid == child else number) for pid, number in real()]

    # As if the child's pid had been a stranger's in the looks before.
    meter.measure({"0": one.shim})
    stranger = next(entry for entry in real() if entry[0] == child)
    meter._strangers.add(stranger)
    assert meter.measure({"0": one.shim})["0"].processes == 0
    monkeypatch.setattr(usage, "entries", as_if_of_another)
    assert meter.measure({"0": one.shim})["0"].processes == 1


def test_whose_parent_ends_amid_the_look_is_not_taken_for_a_stranger(
    guards: list[Guard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been one of the run's: it counts again from the next look on."""
    meter, (one, _) = Meter(), guards
    child = one.tell("child")
    stat_fields = usage.stat_fields

    def with_a_parent_that_has_gone(pid: int) -> list[str] | None:
        fields = stat_fields(pid)
        if fields is not None and pid == child:
            fields[1] = "4194304"  # beyond all pids
        return fields

    with monkeypatch.context() as patch:
        patch.setattr(usage, "stat_fields", with_a_parent_that_has_gone)
        assert meter.measure({"0": one.shim})["0"].processes == 0
    assert meter.measure({"0": one.shim})["0"].processes == 1


@pytest.mark.parametrize(
    "shims", [pytest.param({}, id="no run"), pytest.param({"0": (1, "0")}, id="a shim that has gone")]
)
def test_where_there_is_nothing_to_measure(shims: dict[str, Any]) -> None:
    """Nothing comes of it."""
    assert Meter().measure(shims) == {}


def test_entries_are_those_of_all_processes() -> None:
    """Each once."""
    assert os.getpid() in dict(entries())
    assert abs(len(entries()) - len(pids())) < 50
    assert len(dict(entries())) == len({number for _, number in entries()})
