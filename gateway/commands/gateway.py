"""``greenroom gateway``: a gateway without an autoscaler, which is a process of its own, on this machine or another."""

from __future__ import annotations

from gateway.commands.run_network import with_network_of_runs
from gateway.data_dir import take_gateway_lock
from gateway.parent import serve as serve_parent
from gateway.refusals import USAGE, Refused
from gateway.serve_children import WORKER_COMMAND
from gateway.settings import Settings


def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit code. Raises Refused."""
    require_signals(settings, "gateway")
    if settings.run_host is None:  # else the engine may be another machine's, and there is nothing to ask it for
        settings = with_network_of_runs(settings)
    return serve_parent(
        settings,
        worker_command=(*WORKER_COMMAND, "--role", "gateway"),
        workers=settings.workers,
        take_lock=take_gateway_lock,
    )


def require_signals(settings: Settings, verb: str) -> None:
    """Raises Refused where the processes of one Greenroom could not hear of each other."""
    if settings.signals_url is None:
        raise Refused(
            f"'greenroom {verb}' is one of several processes, which hear of each other by Redis: give its address in "
            "GREENROOM_SIGNALS_URL, e.g. redis://127.0.0.1:6379/0; or run all in one with 'greenroom serve'.",
            exit_code=USAGE,
        )
