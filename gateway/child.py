"""What a process that ``greenroom serve`` has started does first: it dies with its parent and hands nothing on."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable

PARENT_VARIABLE = "GREENROOM_PARENT"

_PR_SET_PDEATHSIG = 1


def enter_child(descriptors: Iterable[int]) -> None:
    """
    Die with the parent, and let no child inherit *descriptors* or the lock.

    A shim that inherited a listening socket would keep the port busy after Greenroom has ended. On Linux the kernel
    kills this process when the parent dies; a parent that died before this call is noticed here.
    """
    inherited = list(descriptors)
    parent_pid, _, lock = os.environ.pop(PARENT_VARIABLE, "").partition(":")
    if lock:
        inherited.append(int(lock))
    for descriptor in inherited:
        os.set_inheritable(descriptor, False)
    if not parent_pid:
        return  # started by hand or by a test, without a parent
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent_pid):
        os.kill(os.getpid(), signal.SIGKILL)
