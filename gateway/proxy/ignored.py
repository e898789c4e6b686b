"""
No I/O: which requests are no use of their Actor, a health checker's as its owner names it.

They are served by a run that is there, like all others, but wake none and keep none awake.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.standby import StandbyConfig
from gateway.proxy.plan import Headers

# Told the target of a request, as it goes to the Actor: whether it is no use.
Ignores = Callable[[bytes], bool]


def ignoring(config: StandbyConfig, headers: Callable[[], Headers]) -> Ignores | None:
    """
    Which of the requests with these *headers* are no use; None: each is use.

    *headers* are asked for only where the Actor's settings name a ``User-Agent``; names are compared in any case.
    """
    agents = tuple(agent.encode() for agent in config.idle_ignored_user_agents)
    if agents and any(name.lower() == b"user-agent" and value.startswith(agents) for name, value in headers()):
        return _each
    if not config.idle_ignored_paths:
        return None
    paths = frozenset(path.encode() for path in config.idle_ignored_paths)
    return lambda target: target.partition(b"?")[0] in paths


def _each(_target: bytes) -> bool:
    return True
