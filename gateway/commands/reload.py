"""``greenroom reload``: asks each server on a data folder for new workers and tells how that goes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.data_dir import gateway_folders, live_holder, read_holder
from gateway.refusals import Refused
from gateway.reload_status import ReloadStatus, read_status

_LIMIT_SECS = 900.0  # more than any step of it may take; two, where one is under way already
_POLL_SECS = 0.05


def reload(data: Path, say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)) -> int:
    """
    Have the server on *data* replace its workers, or each gateway there in turn; 0 once the new ones serve.

    One that is under way already is waited for, and followed by another one. Raises Refused, saying why not.
    """
    if _holder_pid(data) is not None:
        _reload_one(data, say)
        return 0
    gateways = [folder for folder in gateway_folders(data) if _holder_pid(folder) is not None]
    if not gateways:
        raise Refused(
            f"no Greenroom serves the data folder {data}: start one with 'greenroom serve' or 'greenroom gateway'."
        )
    for folder in gateways:
        if len(gateways) > 1:
            say(f"the gateway {read_holder(folder).url} ...")
        _reload_one(folder, say)
    return 0


def _reload_one(folder: Path, say: Callable[[str], None]) -> None:
    """The server whose lock and status lie in *folder*."""
    pid = _holder_pid(folder)
    if pid is None:
        raise Refused(f"the server on {folder} ended meanwhile; its own output tells why.")
    before = read_status(folder)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)
    wanted = before.number + 1
    shown = ReloadStatus()
    until = time.monotonic() + _LIMIT_SECS
    while time.monotonic() < until:
        status = read_status(folder)
        if status != shown and status.number >= wanted:
            shown = status
            if not status.is_over:
                say(f"{status.step} ...")
        if status.is_over and status.number >= wanted:
            if status.has_failed:
                raise Refused(f"the reload failed, the old worker goes on: {status.step}")
            say(f"{status.step}.")
            return
        if _holder_pid(folder) != pid:
            raise Refused("the server ended meanwhile; its own output tells why.")
        time.sleep(_POLL_SECS)
    raise Refused("the server does not tell how the reload went; its log may.")


def _holder_pid(folder: Path) -> int | None:
    """The process that says it has *folder* to itself, if it lives."""
    holder = live_holder(folder)
    return int(holder.pid) if holder is not None and holder.pid.isascii() and holder.pid.isdecimal() else None
