"""What a thousand Actors cost that nobody calls: the processor time of all of Greenroom's processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

from loadtests.server import Server

ACTORS = 1000
_SETTLING_SECS = 3.0


def cpu_share(server: Server, secs: float) -> float:
    """The share of a core that is used over *secs*, by what the kernel has counted for each process."""
    time.sleep(_SETTLING_SECS)  # whatever the start has left to do
    parent = psutil.Process(server.pid)
    pids = [parent.pid, *(child.pid for child in parent.children(recursive=True))]
    before, began = sum(map(_cpu_secs, pids)), time.monotonic()
    time.sleep(secs)
    return (sum(map(_cpu_secs, pids)) - before) / (time.monotonic() - began)


def _cpu_secs(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
