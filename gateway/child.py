"""What a process that ``greenroom serve`` starts does first: it dies with its parent and hands nothing on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterable

PARENT_VARIABLE = "GREENROOM_PARENT"

_PR_SET_PDEATHSIG = 1
_OPEN_FILES = 65_536


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


def allow_many_files() -> None:
    """
    Have as many descriptors as the system lets this process have, up to 65,536, for itself and its children.

    A request in flight takes two of them, and the 1024 that are usual to begin with are soon used up.
    """
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    if least != resource.RLIM_INFINITY and least < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
