"""
No I/O: when a connection to a run may carry another request, and which requests may be sent twice; for both ways.

A request is sent once more, on a new connection, only where the one that it was sent on had been used before and ended
without a byte of an answer, and only if its method is idempotent (RFC 9110 §9.2.2): then it was most likely closed by
an Actor that was tired of it, and if not, no harm is done.
"""

from __future__ import annotations

IDLE_SECS = 4.0
"""Below the keep-alive time of usual servers (5 s), so that it is rarely they who close first."""

MAX_IDLE = 64
"""Of connections to one run; more of them are closed."""

LAST_BYTES_SECS = 1.0
"""For what the kernel of an ended run has sent; where nothing comes, its machine or its network has vanished."""

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
"""What may be sent twice. All else deserves a look before: the other side may have closed a moment ago."""

IDEMPOTENT_WORDS = frozenset(method.decode() for method in IDEMPOTENT)
"""The same, for who has methods as text."""
