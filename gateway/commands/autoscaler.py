"""``greenroom autoscaler``: what must be there before it competes for the lead, then its process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

from gateway.child import allow_many_files
from gateway.commands.gateway import require_signals
from gateway.commands.run_network import with_network_of_runs
from gateway.data_dir import make_data_dir, take_shared_lock
from gateway.listening import listen
from gateway.observability import configure_logging
from gateway.reasons import reasons_in_words
from gateway.refusals import FAILED, USAGE, Refused
from gateway.settings import Settings


def serve(settings: Settings) -> int:
    """Compete for the lead until told to stop; the exit code. Raises Refused."""
    from gateway.autoscaler_process import serve_autoscaler

    require_signals(settings, "autoscaler")
    if settings.port == 0:
        raise Refused(
            "--port: the port of the gateways is expected, by which runs reach Greenroom's API; 0 is none.",
            exit_code=USAGE,
        )
    make_data_dir(settings.data)
    settings = with_network_of_runs(settings)
    lock = take_shared_lock(settings.data)
    try:
        sockets = listen(settings.autoscaler_host, settings.autoscaler_port, given_by="--set autoscaler_port=N")
        allow_many_files()
        configure_logging(settings.log_format, settings.log_level, secrets=[settings.token] if settings.token else [])
        with asyncio.Runner(loop_factory=event_loops()) as runner:
            return runner.run(serve_autoscaler(settings, sockets, _say))
    except Exception as error:
        reasons = reasons_in_words(error)
        if reasons is None:
            raise
        raise Refused(*reasons, exit_code=error.exit_code if isinstance(error, Refused) else FAILED) from error
    finally:
        os.close(lock)


def event_loops() -> Callable[[], asyncio.AbstractEventLoop]:
    """The quicker loop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _say(text: str) -> None:
    print(f"greenroom: {text}", file=sys.stderr, flush=True)
