"""``greenroom serve``: what must be there before the parent process listens, then the parent."""

from __future__ import annotations

from gateway.commands.run_network import SETUP, with_run_network
from gateway.data_dir import make_data_dir
from gateway.parent import serve as serve_parent
from gateway.settings import Settings


def serve(settings: Settings) -> int:
    """Serve until told to stop; the exit code. Raises Refused."""
    # With Docker the network rules depend on the subnet too, whoever says where runs reach Greenroom.
    if settings.launcher == "docker" or (settings.launcher in SETUP and settings.run_host is None):
        make_data_dir(settings.data)
        settings = with_run_network(settings)
    return serve_parent(settings)
