"""``greenroom serve``: what must be there before the parent process listens, then the parent."""

from __future__ import annotations

from gateway.commands.run_network import with_network_of_runs
from gateway.parent import serve as serve_parent
from gateway.refusals import USAGE, Refused
from gateway.settings import Settings


def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit code. Raises Refused."""
    if settings.workers > 1:
        raise Refused(
            f"workers is {settings.workers} (GREENROOM_WORKERS), but 'greenroom serve' is one process that is all in "
            "one: use 'greenroom gateway --workers N' and 'greenroom autoscaler'.",
            exit_code=USAGE,
        )
    return serve_parent(with_network_of_runs(settings))
