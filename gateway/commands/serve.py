"""``greenroom serve``: what must be there before the parent process listens, then the parent."""

from __future__ import annotations

import subprocess
import sys

from gateway.data_dir import make_data_dir
from gateway.parent import serve as serve_parent
from gateway.refusals import Refused
from gateway.settings import Settings

_SETUP = {"docker": "autoscaler.launchers.docker.setup", "swarm": "autoscaler.launchers.swarm.setup"}
_SETUP_SECS = 60


def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit code. Raises Refused."""
    if settings.launcher in _SETUP and settings.run_host is None:
        make_data_dir(settings.data)
        settings = settings.model_copy(update={"run_host": _bridge_address(settings)})
    return serve_parent(settings)


def _bridge_address(settings: Settings) -> str:
    """Where containers reach this machine; what that takes is made if it is not there."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", _SETUP[settings.launcher]],
            input=settings.model_dump_json(),
            capture_output=True,
            text=True,
            timeout=_SETUP_SECS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Refused(f"the Docker engine did not answer within {_SETUP_SECS} s: look after it.") from error
    if done.returncode != 0:
        raise Refused(*done.stderr.strip().splitlines()[-1:])
    return done.stdout.strip()
