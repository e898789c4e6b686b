"""``greenroom reload``: asks the server on a data folder for a new worker and tells how that goes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.data_dir import lock_path, read_holder
from gateway.refusals import Refused
from gateway.reload_status import ReloadStatus, read_status

_LIMIT_SECS = 900.0  # more than any step of it may take; two, where one is under way already
_POLL_SECS = 0.05


def reload(data: Path, say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)) -> int:
    """
    Have the server on *data* replace its worker; 0 once the new one serves.

    One that is under way already is waited for, and followed by another one. Raises Refused, saying why not.
    """
    pid = _server_on(data)
    before = read_status(data)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
    wanted = before.number + 1
    shown = ReloadStatus()
    until = time.monotonic() + _LIMIT_SECS
    while time.monotonic() < until:
        status = read_status(data)
        if status != shown and status.number >= wanted:
            shown = status
            if not status.is_over:
                say(f"{status.step} ...")
        if status.is_over and status.number >= wanted:
            if status.has_failed:
                raise Refused(f"the reload failed, the old worker goes on: {status.step}")
            say(f"{status.step}.")
            return 0
        if _holder_pid(data) != pid:
            raise Refused("the server ended meanwhile; its own output tells why.")
        time.sleep(_POLL_SECS)
    raise Refused("the server does not tell how the reload went; its log may.")


def _holder_pid(data: Path) -> int | None:
    """The process that says it serves *data*, if the lock is held at all."""
    try:
        descriptor = os.open(lock_path(data), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        pid = read_holder(data).pid
        return int(pid) if pid.isascii() and pid.isdecimal() else None
    finally:
        os.close(descriptor)
    return None


def _server_on(data: Path) -> int:
    pid = _holder_pid(data)
    if pid is None:
        raise Refused(f"no Greenroom serves the data folder {data}: start one with 'greenroom serve'.")
    return pid
