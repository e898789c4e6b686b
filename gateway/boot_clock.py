"""The clock of what is lent for a time by somebody else."""

from __future__ import annotations

import time

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


def boot_time() -> float:
    """Monotonic seconds that go on while the machine sleeps, where the system tells them."""
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)
