"""
The threads of obstore at the end of a process.

Whoever awaits one of its calls goes on while its thread still has to drop what it held of Python. A process that ends
in this moment is aborted (SIGABRT), whatever its exit code was to be: such a thread must not wait for Python any more
once that is being torn down. Known: https://github.com/PyO3/pyo3-async-runtimes/issues/40.
"""

from __future__ import annotations

import atexit
import time
from pathlib import Path

_LOOK_SECS = 0.01
_LIMIT_SECS = 2.0
_TASKS = Path("/proc/self/task")


def wait_for_store_threads() -> None:
    """Return once they are all at rest, at the latest after two seconds; at once where there are none."""
    until = time.monotonic() + _LIMIT_SECS
    is_first = True
    while time.monotonic() < until:
        states = _states()
        # While this thread sleeps, nobody waits for Python in vain; so one sleep is needed, and a look after it.
        if states is not None and (not states or (states == {"S"} and not is_first)):
            return
        is_first = False
        time.sleep(_LOOK_SECS)
        if states is None:
            return


def _states() -> set[str] | None:
    """The states of these threads as the kernel names them; None where it can't be asked."""
    states = set()
    try:
        for task in _TASKS.iterdir():
            # "<id> (<name>) <state> ..."; the name may hold anything.
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
            if name.startswith("tokio"):
                states.add(rest.split()[0])
    except (FileNotFoundError, ProcessLookupError):  # one has ended meanwhile, or this is no Linux
        return {"R"} if _TASKS.exists() else None
    return states


atexit.register(wait_for_store_threads)
